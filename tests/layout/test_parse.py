"""What the grammar takes, how it prints, and what it refuses, naming the layout and the place."""

import pytest

from porter.layout import LayoutError, parse_layout

ACCEPTED = {
    "": ((),),
    "1": ((),),
    "a": (("a",),),
    "a b c": (("a", "b", "c"),),
    "(a b) c": (("a", "b", "c"),),
    "((a))": (("a",),),
    "(a | b)": (("a",), ("b",)),
    "(a | b | c) d": (("a", "d"), ("b", "d"), ("c", "d")),
    "a (b | 1) c": (("a", "b", "c"), ("a", "c")),
    "(a (b | 1 | 1) c) d": (("a", "b", "c", "d"), ("a", "c", "d"), ("a", "c", "d")),
    "((a | b) c | d) e": (("a", "c", "e"), ("b", "c", "e"), ("d", "e")),
    "(a | (b | c))": (("a",), ("b",), ("c",)),
    "(1 | 1) a": (("a",), ("a",)),
    "1 a 1": (("a",),),
    "_x1 Y": (("_x1", "Y"),),
}


@pytest.mark.parametrize("text", ACCEPTED)
def test_leaves_are_read_depth_first(text):
    assert parse_layout(text).leaves == ACCEPTED[text]


@pytest.mark.parametrize(
    ("untidy", "tidy"),
    [
        ("  a   b ", "a b"),
        ("(a|b)c", "(a | b) c"),
        ("( a\tb )\nc", "(a b) c"),
        ("((a)(b|1))", "((a) (b | 1))"),
        ("1(a)1", "1 (a) 1"),
    ],
)
def test_equal_layouts_print_alike(untidy, tidy):
    assert str(parse_layout(untidy)) == tidy
    assert parse_layout(untidy) == parse_layout(tidy)


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_is_printed_reads_the_same(text):
    layout = parse_layout(text)
    assert parse_layout(str(layout)) == layout


def test_a_merge_is_not_two_dims():
    """The normal form keeps parentheses: they say how many stored dims there are."""
    assert parse_layout("(a b)") != parse_layout("a b")
    assert parse_layout("a b") != parse_layout("b a")


# The layout, what is wrong, and the column that the caret stands under (None: no single place).
REFUSED = [
    ("a | b", "stands only inside parentheses", 3),
    ("| a", "stands only inside parentheses", 1),
    ("a (b) | c", "stands only inside parentheses", 7),
    ("a) b", "closes nothing", 2),
    ("(a b", "never closed", 1),
    ("c (a | b", "never closed", 3),
    ("(a (b c) | d", "never closed", 1),
    ("()", "an empty block", 2),
    ("(", "an empty block", 2),
    ("a ( | b)", "an empty block", 5),
    ("(a | )", "an empty block", 6),
    ("(a | | b)", "an empty block", 6),
    ("a-b", "expected an axis name", 2),
    ("a,b", "expected an axis name", 2),
    ("a 2 b", "expected an axis name", 3),
    ("a 11", "expected an axis name", 3),
    ("1a", "expected an axis name", 1),
    ("0", "expected an axis name", 1),
    ("a   [b]", "expected an axis name", 5),
    ("größe", "expected an axis name", 3),
    ("a ...", "expected an axis name", 3),
]


@pytest.mark.parametrize(("text", "what", "column"), REFUSED)
def test_a_refusal_quotes_the_layout_and_points_at_the_place(text, what, column):
    with pytest.raises(LayoutError) as caught:
        parse_layout(text)
    error = caught.value
    assert f"layout `{text}`" in error.message
    assert what in error.message
    heading, quoted, caret = error.cause.split("\n")
    assert heading == f"at column {column}"
    assert quoted.strip() == text.strip()
    assert caret.index("^") - 2 == column - 1


@pytest.mark.parametrize(
    ("text", "product"),
    [
        ("(a | b) (c | d)", "(a | b) (c | d)"),
        ("(a | b) x (c | d)", "(a | b) x (c | d)"),
        ("((a | b) (c | d))", "(a | b) (c | d)"),
        ("x ((a | b) (c | d) | e)", "(a | b) (c | d)"),
        ("((a | b) c) (d | e)", "((a | b) c) (d | e)"),
        ("(1 | 1) (1 | 1)", "(1 | 1) (1 | 1)"),
    ],
)
def test_two_sums_in_one_product_are_refused(text, product):
    with pytest.raises(LayoutError, match="two sums in one product") as caught:
        parse_layout(text)
    assert f"layout `{text}`" in caught.value.message
    assert f"`{product}`" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["(a | (b | c) d)", "((a | b) c | (d | e) f)", "x (a (b | c) | (d | e))"])
def test_sums_in_different_blocks_may_nest(text):
    parse_layout(text)


@pytest.mark.parametrize(
    ("text", "axis", "block"),
    [
        ("d_model d_model", "d_model", "d_model d_model"),
        ("(a b) a", "a", "a b a"),
        ("(b | a) a", "a", "a a"),
        ("a (b | (c | a))", "a", "a a"),
    ],
)
def test_an_axis_stands_once_in_a_block(text, axis, block):
    with pytest.raises(LayoutError, match=f"the axis {axis} appears twice") as caught:
        parse_layout(text)
    assert f"layout `{text}`" in caught.value.message
    assert f"`{block}`" in caught.value.message
    assert "d_model_out" in caught.value.hint


def test_an_axis_may_stand_in_several_blocks():
    assert parse_layout("(a | a) b").leaves == (("a", "b"), ("a", "b"))


def test_deep_nesting_is_refused_before_it_exhausts_the_stack():
    assert parse_layout("(" * 32 + "a" + ")" * 32).leaves == (("a",),)
    for depth in (33, 100_000):
        with pytest.raises(LayoutError, match="deeper than 32"):
            parse_layout("(" * depth + "a" + ")" * depth)
