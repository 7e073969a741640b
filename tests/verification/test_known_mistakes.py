"""The table of mistakes: what porter ships, what a user adds, and what is refused in it."""

from __future__ import annotations

import pytest
from handmade import CONFIG, hf_weights, write

import porter
from porter.tables.catalogue import family_names, load_families
from porter.tables.model import TableError
from porter.verification.known_mistakes import known_mistakes


def test_it_is_no_family_and_has_all_kinds():
    assert not any(name.startswith("_") for name in family_names())
    shipped = known_mistakes()
    for kind in (
        "alias",
        "exchange",
        "reshaped",
        "reverse",
        "layout",
        "interleave",
        "hold",
        "steps",
        "index",
    ):
        assert any(getattr(mistake, kind) for mistake in shipped.mistakes), kind
    assert shipped.configs and shipped.published


def test_every_hyperparameter_that_is_compared_has_its_mistake_named():
    families = load_families(())
    table = {name: item for f in families for name, item in families[f].canonical.hyperparameters.items()}
    named = {entry.of for entry in known_mistakes().configs}
    assert named <= table.keys()
    # Names, and how many rows are stored, are not compared.
    beside = {name for name, item in table.items() if item.advisory or item.idle}
    assert (
        table.keys() - named
        == beside - named
        == {"padded_vocab_size", "model_name", "hf_model_type", "idle_kv"}
    )


def test_a_mistake_of_ones_own_has_its_own_words(tmp_path, original, port):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "_mistakes.toml").write_text(
        '[[mistake]]\nsays = "scaled as our old script did"\nof = ["*.attn.o"]\nmultiply = "n_layer / 4.0"\n'
        # Not a whole number, and not a hyperparameter of any model: neither stands in the way.
        '[[mistake]]\nsays = "never"\nmultiply = "n_layer / 4"\n'
        '[[mistake]]\nsays = "nor this"\nadd = "no_such"\n'
    )

    def scale(weights):
        weights["transformer.h.1.attn.proj.weight"] *= 0.75

    out = port(scale)
    (mistake,) = porter.verify(original, out, maps=[folder]).mistakes
    assert mistake.known == "scaled as our old script did" and mistake.layers == (1,)
    (plain,) = porter.verify(original, out).mistakes
    assert "multiplied by 0.75" in plain.says


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[mistake]]\nreverse = true\n", "needs `says`"),
        ('[[mistake]]\nsays = "x"\n', "one kind of change"),
        ('[[mistake]]\nsays = "x"\nreverse = true\nadd = 1\n', "one kind of change"),
        ('[[mistake]]\nsays = "x"\nadd = [1]\n', "must be"),
        ('[[mistake]]\nsays = "x"\nthrough = "BF17"\n', "needs a dtype"),
        ('[[mistake]]\nsays = "x"\nexchange = ["a"]\n', "two axes"),
        ('[[mistake]]\nsays = "x"\nours = ["*"]\nlayout = "(a"\n', "never closed"),
        ('[[mistake]]\nsays = "x"\nadd = 1\nwhy = 2\n', "unknown key"),
        ('[config]\nof = "norm_eps"\n', "must be a list"),
        ('[[config]]\nof = "norm_eps"\n', "needs `of` and `says`"),
        ("[published]\ngemma = 3\n", "must be a table"),
        ("[further]\n", "unknown key"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_with_its_place(tmp_path, text, said):
    (tmp_path / "_mistakes.toml").write_text(text)
    with pytest.raises(TableError, match=said) as error:
        known_mistakes((tmp_path,))
    assert "_mistakes.toml:" in error.value.message


def test_quick_looks_at_little_and_finds_what_is_everywhere(tmp_path, original, port):
    def swap(weights):
        for layer in range(3):
            one, other = (f"transformer.h.{layer}.mlp.{part}.weight" for part in ("fc_1", "fc_2"))
            weights[one], weights[other] = weights[other], weights[one]

    verdict = porter.verify(original, port(swap), quick=True)
    assert verdict.quick and verdict.says == (
        "differs: layers 0 to 2: `mlp.fc_1` holds up_proj and `mlp.fc_2` gate_proj: gate and up are swapped"
    )
    assert not verdict.mistakes[0].proved
    sound = porter.verify(original, write(tmp_path / "again", hf_weights(), CONFIG), quick=True)
    assert (sound.outcome, sound.says[:26]) == ("equal", "equal: 29 tensors (sampled")
