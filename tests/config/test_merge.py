"""Dicts made of several places: whole ones in their order of precedence, entries filled in, none unseen."""

from dataclasses import replace

import pytest

from porter.config.merge import merge_dict
from porter.errors import MalformedError, UnsupportedError
from porter.tables.model import MergedDict

RECIPE = MergedDict(
    first=("old", "new"),
    base={},
    update=(),
    fill={"theta": "theta"},
    kind=("kind", "type"),
    keys={"default": (), "linear": ("factor",), "yarn": ("factor", "beta")},
)

# What the config says, the entries that are read, and what is passed over.
MERGED = {
    "nothing": ({}, {"kind": "default"}, ()),
    "the first, whole": (
        {"old": {"type": "linear", "factor": 2}, "new": {"kind": "yarn", "factor": 3, "beta": 4}},
        {"kind": "linear", "factor": 2},
        ("new",),
    ),
    "an empty one holds nothing": (
        {"old": {}, "new": {"kind": "linear", "factor": 3}},
        {"kind": "linear", "factor": 3},
        (),
    ),
    "null is nothing": ({"old": None, "new": {"kind": "default"}}, {"kind": "default"}, ()),
    "twice the same": ({"old": {"kind": "default"}, "new": {"kind": "default"}}, {"kind": "default"}, ()),
    "filled in": ({"theta": 7}, {"kind": "default", "theta": 7}, ()),
    "not filled in": ({"old": {"theta": 5}, "theta": 7}, {"kind": "default", "theta": 5}, ("theta",)),
    "kind before type": (
        {"old": {"kind": "linear", "type": "yarn", "factor": 2}},
        {"kind": "linear", "factor": 2},
        ("old.type",),
    ),
    "an entry of another kind": (
        {"old": {"kind": "linear", "factor": 2, "beta": 3}},
        {"kind": "linear", "factor": 2},
        ("old.beta",),
    ),
}


@pytest.mark.parametrize(
    ("raw", "factor", "passed_over"),
    [
        ({"old": {"kind": "linear", "factor": 2}, "size": 5}, 5, ("old.factor",)),
        ({"old": {"kind": "linear"}, "size": 5}, 5, ()),
        ({"old": {"kind": "linear", "factor": 2}}, 2, ()),
        ({"old": {"kind": "linear", "factor": 2}, "size": None}, 2, ()),
        ({"old": {"kind": "default"}, "size": 5}, None, ()),
    ],
)
def test_a_field_that_goes_before_an_entry(raw, factor, passed_over):
    merged = merge_dict(replace(RECIPE, over={"factor": "size"}), raw, "c.json")
    assert merged.entries.get("factor") == factor
    assert merged.passed_over == passed_over


@pytest.mark.parametrize("case", MERGED)
def test_what_is_read(case):
    raw, entries, passed_over = MERGED[case]
    merged = merge_dict(RECIPE, raw, "c.json")
    assert (dict(merged.entries), merged.passed_over) == (entries, passed_over)


def test_later_dicts_overwrite_entries_where_the_table_says_so():
    recipe = MergedDict(("new",), {"kind": "default"}, ("old",), {}, ("kind", "type"), RECIPE.keys)
    over = merge_dict(recipe, {"new": {"kind": "yarn", "factor": 3}, "old": {"factor": 2}}, "c.json")
    assert over.entries == {"kind": "yarn", "factor": 2}
    assert over.origins["factor"] == "old.factor"
    # Beside the base's own kind, a `type` has no say.
    alone = merge_dict(recipe, {"old": {"type": "linear", "factor": 2}}, "c.json")
    assert alone.entries == {"kind": "default"} and set(alone.passed_over) == {"old.factor", "old.type"}


@pytest.mark.parametrize(
    ("raw", "error", "words"),
    [
        ({"new": {"sections": [1]}}, UnsupportedError, "c.json: new.sections = [1] is not known"),
        ({"old": {"type": "other"}}, UnsupportedError, "c.json: old.type = 'other' is not known"),
        ({"new": {"kind": 3}}, UnsupportedError, "c.json: new.kind = 3 is not known"),
        ({"new": [1]}, MalformedError, "c.json: new must be a mapping"),
    ],
)
def test_what_is_refused(raw, error, words):
    with pytest.raises(error) as caught:
        merge_dict(RECIPE, raw, "c.json")
    assert words in str(caught.value)
