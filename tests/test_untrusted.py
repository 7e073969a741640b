"""Text of strangers in each place where it is shown."""

import csv
import html
import io
import json
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porter.errors import PorterError
from porter.untrusted import LONGEST_LINE, escape, printable, quoted, shortened

# What acts on a terminal: escapes, C1, a return, bidi controls, line separators, half a pair.
ACTING = "\x1b[2J \x9b31m \r \x7f \u202e \u2066 \u2028 \ufeff \ud800"

any_text = st.text(st.characters(), max_size=60)


@given(any_text)
def test_nothing_that_acts_reaches_a_terminal(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_each_acting_character_is_shown_as_an_escape():
    shown = printable(ACTING)
    for word in (
        "\\x1b[2J",
        "\\x9b31m",
        "\\r",
        "\\x7f",
        "\\u202e",
        "\\u2066",
        "\\u2028",
        "\\ufeff",
        "\\ud800",
    ):
        assert word in shown


@given(st.recursive(any_text, lambda inner: st.lists(inner) | st.dictionaries(any_text, inner), max_leaves=8))
def test_json_says_the_same_and_holds_nothing_that_acts(value):
    document = json.dumps(value, indent=2, ensure_ascii=False)
    safe = escape(document, "json")
    assert json.loads(safe) == value
    assert all(line.isprintable() for line in safe.split("\n"))


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_a_csv_is_a_formula(start):
    buffer = io.StringIO()
    csv.writer(buffer).writerow([escape(start, "csv")])
    (cell,) = next(csv.reader([buffer.getvalue()]))
    assert cell[0] not in "=+-@\t\r"
    assert escape("model.norm.weight", "csv") == "model.norm.weight"


def test_markdown_has_no_links_no_html_and_no_further_cells():
    hostile = "a|b [x](javascript:alert(1)) <img src=x> `c` *d* http://e www.f.g ![h](i) [j]: k \\ ~~l~~"
    safe = escape(hostile, "markdown")
    assert "](" not in safe.replace("\\](", "") and "]:" not in safe.replace("\\]:", "")
    assert (
        "<" not in safe
        and "://" not in safe.replace("\\://", "")
        and "www." not in safe.replace("www\\.", "")
    )
    for sign in "|`*~!":
        assert all(safe[at - 1] == "\\" for at, found in enumerate(safe) if found == sign)
    assert escape("model.layers.{0..17}.q_proj", "markdown") == "model.layers.{0..17}.q_proj"
    assert escape("[256, 20]", "markdown") == "[256, 20]"


@given(any_text)
def test_html_is_text(text):
    tags, told = [], []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)
    parser.handle_data = told.append
    parser.feed(f'<p title="{escape(text, "html")}">{escape(text, "html")}</p>')
    parser.close()
    assert tags == ["p"]
    assert "".join(told) == html.unescape(escape(text, "html"))


def test_what_is_long_is_cut_and_its_length_told():
    assert shortened("x" * 400) == "x" * 400
    cut = shortened("a" * 500_000 + "z" * 500_000)
    assert cut.startswith("aaa") and cut.endswith("zzz") and "(1,000,000 characters)" in cut
    assert len(cut) < 450


DEEP = []
for _ in range(100_000):
    DEEP = [DEEP]

VALUES = {
    "short text": ("a\n", "'a\\n'"),
    "long text": ("x" * 1_000_000, "(1,000,000 characters)"),
    "long bytes": (b"x" * 1_000_000, "(1,000,000 bytes)"),
    "a number": (17, "17"),
    "a long number": (10**100_000, "a number of 100,000 digits"),
    "numbers": ([1, 2.5, None, True], "[1, 2.5, None, True]"),
    "many": (list(range(1_000_000)), "(1,000,000 items)"),
    "a mapping": ({"a": [1], "b": {}}, "{'a': [1], 'b': {}}"),
    "a tuple": ((1,), "(1,)"),
    "depth without end": (DEEP, "[[[[…]]]]"),
    "many in many": ([["x" * 1000] * 1000] * 1000, "(1,000 items)"),
    "an object": (object(), "a object"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_quoted_in_bounds_and_in_no_time(name):
    value, words = VALUES[name]
    began = time.process_time()
    shown = quoted(value)
    assert time.process_time() - began < 0.05
    assert words in shown and len(shown) < 2_000 and shown.isprintable()


@given(st.recursive(st.integers() | st.text(max_size=5), st.lists, max_leaves=3))
def test_small_values_are_quoted_as_repr_does(value):
    shown = quoted(value)
    assert shown == repr(value) or "…" in shown


def test_no_error_prints_megabytes():
    error = PorterError(
        "m" * 3_000_000, cause="c" * 3_000_000, hint="\n".join("h" * 3_000_000 for _ in range(9))
    )
    assert len(str(error)) < 40 * LONGEST_LINE
    assert "(3,000,000 characters)" in error.message and "(3,000,000 characters)" in error.cause
    many = PorterError("\n".join(["line"] * 100_000))
    assert "(100,000 lines)" in many.message and len(many.message) < 10_000
    assert PorterError("short", cause="why").cause == "why"
