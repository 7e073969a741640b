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


def test_a_circle_is_an_error(tables):
    tables.write("toy/one.toml", 'extends = "toy/two"\nfamily = "toy"\ndialect = "one"\n')
    with pytest.raises(TableError, match="extends itself") as caught:
        tables.dialect(text='extends = "toy/one"\nfamily = "toy"\ndialect = "two"\n', name="two")
    assert caught.value.hint


@pytest.mark.parametrize("value", ["3", '["plain.toml"]', "true"])
def test_extends_is_a_name(tables, value):
    with pytest.raises(TableError, match="`extends` must be a string"):
        tables.dialect(text=f'extends = {value}\nfamily = "toy"\ndialect = "x"\n')
