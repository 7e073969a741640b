"""Tables that extend others: what a child replaces, adds and removes."""

import pytest

from porter.tables import TableError


def test_a_rule_of_the_same_name_takes_its_parents_place(tables):
    tables.dialect()
    child = tables.dialect(
        text="""
        extends = "toy/plain"
        family  = "toy"
        dialect = "child"

        [[rule]]
        theirs = "layers.{layer}.k"
        ours   = "{layer}.k"
        layout = "d_model (n_kv_head head_dim)"
        """,
        name="child",
    )
    layouts = {rule.theirs.text: str(rule.layout) for rule in child.rules}
    assert layouts == {
        "embed": "vocab d_model",
        "layers.{layer}.q": "(n_kv_head q_per_kv head_dim) d_model",
        "head": "vocab d_model",
        "layers.{layer}.k": "d_model (n_kv_head head_dim)",
    }
    assert [rule.where.path.name for rule in child.rules if rule.ours == ("{layer}.k",)] == ["child.toml"]


def test_removed_rules_make_room(tables):
    tables.dialect()
    child = tables.dialect(
        text="""
        extends = "plain.toml"
        family  = "toy"
        dialect = "child"
        remove  = ["layers.{layer}.k"]

        [[rule]]
        theirs = "k.{layer}"
        ours   = "{layer}.k"
        """,
        name="child",
    )
    assert {rule.theirs.text for rule in child.rules} == {"embed", "layers.{layer}.q", "head", "k.{layer}"}


def test_the_family_may_stand_in_the_parent(tables):
    tables.dialect()
    child = tables.dialect(text='extends = "plain.toml"\ndialect = "child"\n', name="child")
    assert (child.family, child.name) == ("toy", "child")


def test_a_canonical_tensor_can_be_taken_away(tables):
    tables.canonical()
    path = tables.write(
        "other/canonical.toml",
        """
        extends = "toy/canonical"
        family  = "other"

        [tensors]
        "head" = false
        "{layer}.k_norm" = "head_dim"
        """,
    )
    from porter.tables.load import load_canonical

    other = load_canonical(path, tables.root)
    assert set(other.tensors) == {"embed", "{layer}.q", "{layer}.k", "{layer}.k_norm"}


def test_the_digest_covers_what_is_extended(tables):
    tables.dialect()
    text = 'extends = "plain.toml"\ndialect = "child"\n'
    before = tables.dialect(text=text, name="child").digest
    assert tables.dialect(text=text, name="child").digest == before
    tables.dialect(('family  = "toy"', 'family  = "toy"  # a remark'))
    assert tables.dialect(text=text, name="child").digest != before


def test_several_bases_of_which_the_later_one_wins(tables):
    tables.dialect()
    tables.write(
        "toy/other.toml",
        '[rules]\n"layers.{layer}.k" = { ours = "{layer}.k", layout = "d_model (n_kv_head head_dim)" }\n',
    )
    child = tables.dialect(text='extends = ["plain.toml", "toy/other"]\n', name="child")
    assert (child.family, child.name) == ("toy", "child"), "the path says both"
    layouts = {rule.theirs.text: str(rule.layout) for rule in child.rules}
    assert layouts["layers.{layer}.k"] == "d_model (n_kv_head head_dim)" and len(layouts) == 4
    turned = tables.dialect(text='extends = ["toy/other", "plain.toml"]\n', name="turned")
    assert "(n_kv_head head_dim) d_model" in {str(rule.layout) for rule in turned.rules}


def test_rules_are_keyed_by_the_stored_name_and_false_takes_one_away(tables):
    tables.dialect()
    child = tables.dialect(
        text="""
        extends = "plain.toml"

        [rules]
        "head"             = false
        "output"           = { ours = "head", tied = "omit" }
        "layers.{layer}.k" = [
            { ours = "{layer}.k", when = "k_bias", layout = "d_model n_kv_head head_dim" },
            { ours = "{layer}.k", when = "not k_bias" },
        ]
        """,
        name="child",
    )
    names = [rule.theirs.text for rule in child.rules]
    assert names == ["embed", "layers.{layer}.q", "output", "layers.{layer}.k", "layers.{layer}.k"]
    assert {str(rule.layout) for rule in child.rules if rule.ours == ("{layer}.k",)} == {
        "d_model n_kv_head head_dim",
        "n_kv_head head_dim d_model",
    }


def test_stems_are_renamed_in_one_place(tables):
    """Whole parts of a name, all at once; what the table itself adds is left alone."""
    tables.dialect()
    child = tables.dialect(
        text="""
        extends = "plain.toml"

        [names]
        "layers.{layer}" = "blocks.{layer}.attn"
        "q" = "k"
        "k" = "q"
        "embed" = "tok"

        [rules]
        "q" = { ours = "head" }
        "head" = false
        """,
        name="child",
    )
    assert {rule.theirs.text: rule.ours for rule in child.rules} == {
        "tok": ("embed",),
        "blocks.{layer}.attn.k": ("{layer}.q",),
        "blocks.{layer}.attn.q": ("{layer}.k",),
        "q": ("head",),
    }


def test_a_circle_is_an_error(tables):
    tables.write("toy/one.toml", 'extends = "toy/two"\nfamily = "toy"\ndialect = "one"\n')
    with pytest.raises(TableError, match="extends itself") as caught:
        tables.dialect(text='extends = "toy/one"\nfamily = "toy"\ndialect = "two"\n', name="two")
    assert caught.value.hint


@pytest.mark.parametrize("value", ["3", "[3]", "true"])
def test_extends_is_a_name(tables, value):
    with pytest.raises(TableError, match="`extends` must be a text"):
        tables.dialect(text=f'extends = {value}\nfamily = "toy"\ndialect = "x"\n')


def test_a_rule_takes_the_place_of_those_for_what_it_makes(tables):
    """One tensor for what the parent has in two; without a `when`, so that it always holds."""
    tables.dialect()
    text = """
        extends = "plain.toml"
        family  = "toy"
        dialect = "child"

        [[rule]]
        theirs = "qk.{layer}"
        ours   = ["{layer}.q", "{layer}.k"]
        layout = "(n_kv_head q_per_kv head_dim | n_kv_head head_dim) d_model"
        """
    child = tables.dialect(text=text, name="child")
    assert {rule.theirs.text for rule in child.rules} == {"embed", "head", "qk.{layer}"}
    # The control: where it holds only at times, the parent's still stand, and the two are at odds.
    sometimes = text.replace('d_model"\n', 'd_model"\n        when = "tie_embeddings"\n')
    with pytest.raises(TableError, match="two rules make"):
        tables.dialect(text=sometimes, name="sometimes")


SHORT = """
extends = "plain.toml"
family  = "toy"
dialect = "child"
"""


def test_what_stands_at_the_top_is_what_is_matched_and_written(tables):
    tables.dialect()
    short = tables.dialect(text=SHORT + 'model_type = "toy_2"\narchitecture = "Toy2"\n', name="short")
    long = tables.dialect(
        text=SHORT
        + '[config.match]\nmodel_type = ["toy_2"]\n'
        + '[config.write]\nmodel_type = "toy_2"\narchitectures = ["Toy2"]\n',
        name="long",
    )
    assert short.config.match == long.config.match == {"model_type": ["toy_2"]}
    written = [{name: value for name, (value, _) in one.config.write.items()} for one in (short, long)]
    assert written[0] == written[1] == {"model_type": "toy_2", "architectures": ["Toy2"]}
    other = tables.dialect(
        text=SHORT + 'match = { class_name = "A", "config.b" = [true, 1] }\n', name="other"
    )
    assert other.config.match == {"class_name": ["A"], "config.b": [True, 1]}


@pytest.mark.parametrize("line", ['model_type = ["toy"]', 'match = "toy"', "architecture = 3"])
def test_what_stands_at_the_top_in_another_form_is_refused_with_the_form(tables, line):
    tables.dialect()
    with pytest.raises(TableError, match=r"must be a (text|table)"):
        tables.dialect(text=SHORT + line + "\n", name="child")
