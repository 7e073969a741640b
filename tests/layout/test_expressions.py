"""Expressions over hyperparameters: exact division, a short notation, and nothing that Python would run."""

import contextlib
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from porter.layout import ExpressionError, parse_expression

VALUES = {
    "n_head": 6,
    "n_kv_head": 4,
    "layer": 2,
    "eps": 1e-6,
    "name": "Gemma-2b",
    "tied": True,
    "absent": None,
    "sizes": [11, 13, 17],
}


def value_of(text, functions=None):
    return parse_expression(text).evaluate(VALUES.__getitem__, functions)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("-layer % 3", 1),
        ("n_head * n_kv_head / 8", 3),
        ("n_head - 0.5", 5.5),
        ("5.0 / 2", 2.5),
        ("5 / 2.0", 2.5),
        ("sizes[layer]", 17),
        ("sizes[-1]", 17),
        ("[1, 'a', True, None]", [1, "a", True, None]),
        ("layer >= 2", True),
        ("1 < layer < 2", False),
        ("layer != 2 or not tied", False),
        ("'Gemma' in name", True),
        ("'Gemma' not in name", False),
        ("absent or 5", 5),
        ("absent and 5", None),
        ("10 if tied else missing", 10),
        ("missing if not tied else 20", 20),
        ("tied or missing", True),
        ("(layer + 1) % 2 != 0", True),
    ],
)
def test_the_notation(text, value):
    assert value_of(text) == value


def test_the_names_that_an_expression_reads():
    assert parse_expression("a[layer] + f(b) if not c else 'd'").names == {"a", "layer", "b", "c"}


def test_functions_are_those_that_the_caller_offers():
    assert value_of("double(n_head) + 1", {"double": lambda x: 2 * x}) == 13
    with pytest.raises(ExpressionError, match="unknown function eval") as caught:
        value_of("eval('1')", {"double": abs})
    assert "double" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("n_head / n_kv_head", "6 / 4 is not a whole number"), ("n_head / 0", "6 / 0"), ("7 / -2", "7 / -2")],
)
def test_division_is_exact_and_says_which_numbers_do_not_divide(text, numbers):
    with pytest.raises(ExpressionError) as caught:
        value_of(text)
    assert numbers in caught.value.message
    assert f"`{text}`" in caught.value.message


REFUSED = [
    "name.upper()",
    "().__class__",
    "().__class__.__bases__[0].__subclasses__()",
    "lambda: 1",
    "[x for x in sizes]",
    "{x for x in sizes}",
    "{x: 1 for x in sizes}",
    "(x for x in sizes)",
    "f(x=1)",
    "f(**x)",
    "f(*sizes)",
    "f()()",
    "sizes[0]()",
    "(lambda: f)()",
    "(x := 1)",
    "f'{name}'",
    "f'plain'",
    "2 ** 3",
    "7 // 2",
    "1 << 40",
    "1 | 2",
    "~1",
    "+1",
    "a @ b",
    "a is b",
    "(1, 2)",
    "{1: 2}",
    "{1, 2}",
    "sizes[0:1]",
    "sizes[:]",
    "await x",
    "yield",
    "*sizes",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_outside_the_notation_is_refused_when_it_is_parsed(text):
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text)
    assert f"`{text}`" in caught.value.message


@pytest.mark.parametrize("text", ["", "1 +", "a b", "x = 1", "import os", "1; 2", "a\nb", "\0", "(" * 9000])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ExpressionError, match="cannot parse"):
        parse_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "open('/etc/passwd')",
        "__builtins__['eval']",
        "print(1)",
        "n_head + name",
        "sizes[9]",
        "n_head[0]",
        "absent < 1",
        "1 in n_head",
        "missing",
        "-name",
        # Arithmetic is for numbers: with text and lists it could ask for any amount of memory.
        "'a' * 9999999999",
        "sizes * 9999999999",
        "'%9999999999d' % 1",
        "'a' + 'b'",
        "True + name",
    ],
)
def test_what_has_no_value_is_an_error_of_its_own(text):
    with pytest.raises(ExpressionError) as caught:
        value_of(text)
    assert f"`{text}`" in caught.value.message


@pytest.mark.parametrize(
    "text", ["-" * 700 + "1", "not " * 400 + "1", "1" + "+1" * 3000, "[" * 150 + "]" * 150]
)
def test_depth_does_not_exhaust_the_stack(text):
    with contextlib.suppress(ExpressionError):
        value_of(text)


def test_long_numbers_are_refused_rather_than_awaited():
    with pytest.raises(ExpressionError):
        value_of("9" * 5000)


class Tripwire:
    """A value that notices being called or looked into."""

    def __init__(self):
        self.touched = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        self.touched.append(name)
        return self

    def __call__(self, *arguments, **named):
        self.touched.append("call")
        return self


def test_the_tripwire_can_be_touched():
    """Negative control: what Python itself would do with the text is noticed."""
    wire = Tripwire()
    eval("x.anything()", {"x": wire})
    assert wire.touched == ["anything", "call"]


pieces = st.sampled_from(
    [
        *(
            "x",
            "1",
            "0",
            "2.5",
            "'s'",
            "[",
            "]",
            "(",
            ")",
            "{",
            "}",
            ",",
            ":",
            ".",
            "=",
            ":=",
            "->",
            ";",
            "\n",
        ),
        *(" if ", " else ", " and ", " or ", " not ", " in ", " is ", "lambda ", " for ", "await ", "yield "),
        *(
            "+",
            "-",
            "*",
            "/",
            "//",
            "%",
            "**",
            "<",
            ">=",
            "==",
            "!=",
            "@",
            "&",
            "|",
            "~",
            "^",
            "<<",
            "`",
            "\\",
        ),
        *("__class__", "__import__", "eval", "f'", "f'{x}'", "b'", "\0", "#", "é", "...", "x.y", "x(", "x["),
    ]
)


@settings(max_examples=400)
@given(
    st.lists(pieces, max_size=12).map("".join) | st.text(string.printable, max_size=30) | st.text(max_size=20)
)
@example("x()")
@example("x.y")
@example("__import__('x')")
@example("\ud800")
@example("'\\N{nothing}'")
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_whatever_the_text_only_an_expression_error_can_come_of_it(text):
    wire = Tripwire()
    with contextlib.suppress(ExpressionError):
        parse_expression(text).evaluate(lambda name: wire)
    assert wire.touched == []
