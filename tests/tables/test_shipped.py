"""The tables that porter ships: each loads, binds, and keeps what the design promises of every table."""

import math
import re

import pytest

from porter.errors import MalformedError, UnsupportedError, UsageError
from porter.recognition.stored_names import NameMatcher
from porter.tables import TableError, family_names, load_families, load_user_table, mappings_root
from porter.tables.bind import Sizes, bind_dialect

FAMILIES = load_families()
DIALECTS = [
    pytest.param(family, dialect, id=f"{family.name}/{dialect.name}")
    for family in FAMILIES.values()
    for dialect in family.dialects.values()
]

# Weights of AltUp that are square whatever the sizes: nothing but logits tells these axes from those.
SQUARE = {"altup_in": "altup", "altup_out": "altup", "d_altup": "d_model"}


def example(family, **changes):
    neutral = {name: item.neutral for name, item in family.canonical.hyperparameters.items()}
    return {**neutral, **family.canonical.example, **changes}


def test_every_table_on_disk_is_a_dialect_of_a_family():
    on_disk = {
        (path.parent.name, path.stem)
        for path in mappings_root().glob("*/*.toml")
        if path.stem != "canonical"
        and (path.parent.name != "decoder" or re.search(r"^shared\s*=", path.read_text("utf-8"), re.M))
    }
    loaded = {(f.name, d.name) for f in FAMILIES.values() for d in f.dialects.values()}
    own = {(f.name, d.name) for f in FAMILIES.values() for d in f.dialects.values() if not d.shared}
    assert on_disk == own | {("decoder", name) for name in ("litgpt", "litgpt-legacy")}
    assert loaded - own == {
        (name, shared)
        for name, family in FAMILIES.items()
        for shared in ("litgpt", "litgpt-legacy")
        if family.refusal(shared) is None
    }
    assert {"gemma", "gemma2", "gemma3_text", "llama", "gpt_neox"} <= set(family_names())


@pytest.mark.parametrize(("family", "dialect"), DIALECTS)
def test_the_example_states_every_required_hyperparameter(family, dialect):
    missing = [
        name
        for name, item in family.canonical.hyperparameters.items()
        if item.required and name not in family.canonical.example
    ]
    assert missing == []


@pytest.mark.parametrize(("family", "dialect"), DIALECTS)
def test_no_two_axes_have_one_size(family, dialect):
    """Otherwise a layout with two axes swapped could pass for the right one."""
    sizes = Sizes(family.canonical, example(family))
    there = [t for t in family.canonical.tensors.values() if sizes.holds(t.when, {"layer": 0}, ())]
    axes = {axis for tensor in there for axis in tensor.axes}
    found = {axis: sizes.size(axis, {"layer": 0}) for axis in axes - SQUARE.keys()}
    for axis in axes & SQUARE.keys():
        assert sizes.size(axis, {"layer": 0}) == found[SQUARE[axis]]
    # One query per kv head (MHA) is a size that no layout can be mistaken about.
    distinct = [size for size in found.values() if size != 1]
    assert len(distinct) == len(set(distinct)), found


@pytest.mark.parametrize(("family", "dialect"), DIALECTS)
def test_every_canonical_tensor_is_stored_once_and_whole(family, dialect):
    hyperparameters = example(family)
    sizes = Sizes(family.canonical, hyperparameters)
    stored = {}
    for tensor in bind_dialect(dialect, family.canonical, hyperparameters):
        pieces = [
            math.prod(sizes.size(axis, tensor.fixed) for axis in block.address.strides)
            for block in tensor.blocks
        ]
        pieces += [math.prod(loop.size for loop in filler.loops) for filler in tensor.fillers]
        assert math.prod(tensor.shape) == sum(pieces), f"{tensor.name} is made of its blocks and nothing else"
        for block in tensor.blocks:
            free = [axis for axis in block.address.strides if axis in family.canonical.index]
            assert tensor.fixed.keys().isdisjoint(free)
            # Along a stacked variable, one block is all of its tensors.
            for at in sizes.points(free):
                name = block.canonical.format(**tensor.fixed, **dict(zip(free, at, strict=True)))
                stored[name] = stored.get(name, 0) + 1
    layers = range(hyperparameters["n_layer"])
    wanted = {
        tensor.name.format(layer=layer, expert=expert, altup_extra=extra): 1
        for tensor in family.canonical.tensors.values()
        for layer in layers
        for expert in range(hyperparameters["n_expert"] or 1)
        for extra in range(max(1, (hyperparameters.get("n_altup") or 0) - 1))
        if sizes.holds(tensor.when, {"layer": layer}, ())
    }
    assert stored == wanted


@pytest.mark.parametrize(("family", "dialect"), DIALECTS)
def test_names_are_anchored_and_belong_to_one_rule(family, dialect):
    """Every name that is made is recognised as itself; what surrounds or pads it makes it unknown."""
    matcher = NameMatcher(dialect)
    bound = bind_dialect(dialect, family.canonical, example(family))
    assert len({tensor.name for tensor in bound}) == len(bound)
    made = {tensor.name for tensor in bound}
    for tensor in bound:
        name = tensor.name
        fitting = [rule for rule in dialect.rules if rule.theirs.match(name) is not None]
        assert tensor.rule in fitting
        if len(fitting) > 1:
            # Rules of one name exclude each other.
            sizes = Sizes(family.canonical, example(family))
            tensors = family.canonical.tensors
            whens = [[rule.when, *(tensors[name].when for name in rule.weights)] for rule in fitting]
            assert sum(all(sizes.holds(w, tensor.fixed, ()) for w in when) for when in whens) == 1
        assert matcher.spelled(name) == name
        assert not matcher.ignored(name)
        odd = [f"x{name}", f"{name}x", f"{name}.weight", f"module.{name}", name.upper(), f"{name}\n"]
        if re.search(r"[0-9]", name):
            odd.append(re.sub(r"([0-9]+)", r"0\1", name, count=1))
        for other in odd:
            assert other in made or matcher.spelled(other) is None, other


@pytest.mark.parametrize(("family", "dialect"), DIALECTS)
def test_sizes_that_do_not_divide_are_refused_with_both_numbers(family, dialect):
    hyperparameters = example(family)
    heads = hyperparameters["n_head"] + 1
    with pytest.raises(MalformedError) as caught:
        bind_dialect(dialect, family.canonical, {**hyperparameters, "n_head": heads})
    assert f"{heads} / {hyperparameters['n_kv_head']} is not a whole number" in caught.value.cause


def test_biases_are_there_when_the_config_says_so():
    family = FAMILIES["llama"]
    for bias in (False, True):
        bound = bind_dialect(family.dialect("litgpt"), family.canonical, example(family, attention_bias=bias))
        names = {tensor.name for tensor in bound}
        assert ("transformer.h.0.attn.qkv.bias" in names) == bias
        assert "transformer.h.0.attn.proj.bias" not in names


def test_a_few_shapes_by_hand():
    """Gemma 2B's: 18 layers, 8 heads of 256 over one kv head, width 2048, 16384 hidden units."""
    family = FAMILIES["gemma"]
    sizes = {"n_layer": 18, "n_head": 8, "n_kv_head": 1, "head_dim": 256, "d_model": 2048}
    hyperparameters = example(family, **sizes, d_ff=16384, vocab_size=256000)
    shapes = {
        name: {t.name: t.shape for t in bind_dialect(family.dialect(name), family.canonical, hyperparameters)}
        for name in ("hf", "litgpt")
    }
    assert shapes["hf"]["model.layers.17.self_attn.q_proj.weight"] == (2048, 2048)
    assert shapes["hf"]["model.layers.17.self_attn.k_proj.weight"] == (256, 2048)
    assert shapes["litgpt"]["transformer.h.17.attn.qkv.weight"] == (2560, 2048)
    assert shapes["litgpt"]["transformer.h.0.mlp.proj.weight"] == (2048, 16384)
    assert shapes["litgpt"]["lm_head.weight"] == (256000, 2048)
    assert len(shapes["hf"]) == 1 + 18 * 9 + 2
    assert len(shapes["litgpt"]) == 1 + 18 * 7 + 2


def test_an_unknown_family_or_dialect_says_which_there_are():
    with pytest.raises(UsageError, match="no dialect called 'klingon'") as caught:
        FAMILIES["llama"].dialect("klingon")
    assert "litgpt" in caught.value.hint
    with pytest.raises(UnsupportedError, match="no table for llama in the dialect 'keras'") as caught:
        FAMILIES["llama"].dialect("KerasHub")
    assert "litgpt" in caught.value.hint


USER = """
extends = "decoder/litgpt"
family  = "llama"
dialect = "mine"

[[rule]]
theirs = "my_head"
ours   = "head"
"""


def test_a_table_of_ones_own_joins_its_family(tmp_path):
    path = tmp_path / "mine.toml"
    text = USER.replace('dialect = "mine"\n', 'dialect = "mine"\nremove  = ["lm_head.weight"]\n')
    path.write_text(text, "utf-8")
    families = load_families([path])
    assert "mine" in families["llama"].dialects
    assert "mine" not in FAMILIES["llama"].dialects
    names = {rule.theirs.text for rule in families["llama"].dialect("mine").rules}
    assert "my_head" in names and "lm_head.weight" not in names


def test_a_table_of_ones_own_is_checked_like_the_others(tmp_path):
    path = tmp_path / "mine.toml"
    second = USER + '[[rule]]\ntheirs = "second_head"\nours = "head"\n'
    path.write_text(second, "utf-8")
    with pytest.raises(TableError, match="two rules make the canonical tensor 'head'"):
        load_user_table(path)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('family = "klingon"\ndialect = "x"\n', UnsupportedError, "unknown family 'klingon'"),
        ('family = "_decoder"\ndialect = "x"\n', UnsupportedError, "unknown family '_decoder'"),
        ('dialect = "x"\n', UsageError, "names no `family`"),
    ],
)
def test_a_table_of_ones_own_names_a_family_that_there_is(text, error, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(error, match=message) as caught:
        load_user_table(path)
    assert "llama" in caught.value.hint


def test_a_table_of_ones_own_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="no mapping table at"):
        load_user_table(tmp_path / "none.toml")
