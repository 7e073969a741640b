"""Name patterns: anchored, whole numbers without leading zeros, no name that could be read in two ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porter.tables.patterns import Pattern, PatternError, parse_pattern, taken_apart, templates

NAME = "model.layers.{layer}.experts.{expert}.up"


def test_a_name_gives_its_variables():
    assert Pattern(NAME).match("model.layers.10.experts.0.up") == {"layer": 10, "expert": 0}
    assert Pattern(NAME).variables == ("layer", "expert")
    assert Pattern(NAME).format({"layer": 10, "expert": 0}) == "model.layers.10.experts.0.up"


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.01.experts.0.up",
        "model.layers.1.experts.00.up",
        "xmodel.layers.1.experts.0.up",
        "base.model.layers.1.experts.0.up",
        "model.layers.1.experts.0.up.weight",
        "model.layers.1.experts.0.up\n",
        "model.layers.-1.experts.0.up",
        "model.layers.1.0.experts.0.up",
        "model.layers.one.experts.0.up",
        "model.layers..experts.0.up",
        "model.layers.{layer}.experts.0.up",
        "model.layers.１.experts.0.up",
        "model.layers.²a.experts.0.up",
        "model.layers.\0.experts.\0.up",
        "model.layers.\0.experts.5.up",
        "",
    ],
)
def test_a_name_that_only_looks_alike_does_not_fit(name):
    assert Pattern(NAME).match(name) is None


def test_a_number_without_end_does_not_fit():
    """Names are a stranger's text: Python refuses to read a number of many thousand digits."""
    assert Pattern("a.{layer}").match("a." + "9" * 10_000) is None


def test_literal_digits_are_compared_as_written():
    pattern = Pattern("conv1.{layer}.w2")
    assert pattern.match("conv1.5.w2") == {"layer": 5}
    assert pattern.match("conv3.5.w2") is None
    assert pattern.match("conv1.5.w02") is None


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_formatted_is_matched(layer, expert):
    values = {"layer": layer, "expert": expert}
    assert Pattern(NAME).match(Pattern(NAME).format(values)) == values


@given(
    st.lists(st.sampled_from(["a.", "b", ".", "0.", "12.", "{x}", "{y}", "_"]), min_size=1, max_size=5).map(
        "".join
    ),
    st.text("ab.0127_", max_size=12),
)
def test_two_patterns_that_do_not_overlap_share_no_name(text, name):
    other = Pattern("a.{x}.b")
    try:
        pattern = parse_pattern(text)
    except PatternError:
        return
    if not pattern.overlaps(other):
        for candidate in (name, pattern.format({"x": 1, "y": 2}), other.format({"x": 12})):
            assert pattern.match(candidate) is None or other.match(candidate) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "}", "a.{layer", "a.{}", "a.{1x}", "a.{a-b}", "{x}{y}", "{x}1", "1{x}", "{x}.{x}", "{{x}}"],
)
def test_a_bad_pattern_is_refused(text):
    with pytest.raises(PatternError):
        parse_pattern(text)


def test_a_numbered_suffix_is_absent_for_zero():
    pattern = parse_pattern("block{_layer}/kernel")
    assert [pattern.format({"layer": at}) for at in range(3)] == [
        "block/kernel",
        "block_1/kernel",
        "block_2/kernel",
    ]
    assert pattern.match("block/kernel") == {"layer": 0}
    assert pattern.match("block_12/kernel") == {"layer": 12}
    for name in ("block_0/kernel", "block_01/kernel", "block_/kernel", "block1/kernel"):
        assert pattern.match(name) is None
    assert pattern.overlaps(Pattern("block/kernel"))
    assert not pattern.overlaps(Pattern("block_0x/kernel"))


@given(st.lists(st.text(alphabet="ab.19٣0", max_size=40), max_size=6))
def test_the_templates_of_many_names_are_those_of_each(names):
    assert templates(tuple(names)) == [taken_apart(name)[0] for name in names]
    long = ["layers.12." * 400 + "9" * n for n in range(30)]
    assert templates(tuple(long)) == [taken_apart(name)[0] for name in long]
