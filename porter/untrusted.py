"""Text that comes out of files, as it may be shown: one function for each place that it is shown in.

A tensor's name, a config's value, a directory's name are a stranger's text. On a terminal it could move the
cursor, in a spreadsheet be a formula, in Markdown or HTML a link or a script; and it may have megabytes.
Whatever is shown passes through one of these. None of them changes what is plain.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Sink = Literal["terminal", "json", "csv", "markdown", "html"]

# Characters of a name in a line of a table. The longest real names have about 120.
LONGEST_NAME = 400

# Characters of a value in a sentence, and of a line of an error.
LONGEST_VALUE = 80
LONGEST_LINE = 1_000

# Lines of an error; a table to start from, which some print, has about 100.
_MOST_LINES = 400

# How many items of a list, and how deep, a value is shown.
_ITEMS, _DEPTH = 6, 3

# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape(text: str, sink: Sink) -> str:
    """The text as it may stand in that place: of JSON a whole document, else one piece of text."""
    return _ESCAPES[sink](text)


def printable(text: str) -> str:
    """Text for a terminal: what is not printable (controls, bidi marks, line separators) as an escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def printable_lines(text: str) -> str:
    """As `printable`, for text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def shortened(text: str, most: int = LONGEST_NAME) -> str:
    """The text, or its beginning and its end and how long it is."""
    if len(text) <= most:
        return text
    told = f" … ({len(text):,} characters) … "
    return text[: most * 2 // 3] + told + text[-(most // 3) :]


def shortened_lines(text: str) -> str:
    """As `shortened`, for a message of several lines."""
    if len(text) <= LONGEST_LINE:
        return text
    lines = text.split("\n")
    more = [f"… ({len(lines):,} lines)"] if len(lines) > _MOST_LINES else []
    return "\n".join([*(shortened(line, LONGEST_LINE) for line in lines[:_MOST_LINES]), *more])


def quoted(value: Any, most: int = LONGEST_VALUE) -> str:
    """A value as `repr` shows it, in a sentence: of what is long or deep the beginning, and how much it is.

    Its time does not depend on the value's size.
    """
    return _quoted(value, most, 0)


def _quoted(value: Any, most: int, depth: int) -> str:
    if isinstance(value, str | bytes | bytearray):
        if len(value) <= most:
            return repr(value)
        return f"{value[:most]!r}… ({len(value):,} {'characters' if isinstance(value, str) else 'bytes'})"
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        # Python refuses to spell very long ones; a bit is 0.301 digits.
        digits = value.bit_length() * 30103 // 100000
        return repr(value) if digits <= most else f"a number of {digits:,} digits"
    if isinstance(value, Mapping | Sequence):
        return _several(value, most, depth)
    return f"a {type(value).__name__}"


def _several(value: Mapping[Any, Any] | Sequence[Any], most: int, depth: int) -> str:
    kinds = {tuple: "()", list: "[]"}
    brackets = "{}" if isinstance(value, Mapping) else kinds.get(type(value), "[]")
    begin, end = brackets[0], brackets[1]
    if value and depth == _DEPTH:
        return f"{begin}…{end}"
    parts: list[str] = []
    length = 0
    for item in value:
        if len(parts) == _ITEMS or length > most:
            parts.append(f"… ({len(value):,} items)")
            break
        part = _quoted(item, most, depth + 1)
        if isinstance(value, Mapping):
            part += f": {_quoted(value[item], most, depth + 1)}"
        parts.append(part)
        length += len(part)
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    return begin + ", ".join(parts) + comma + end


def _for_json(document: str) -> str:
    """A JSON document that says the same with escapes in the place of what is not seen.

    Line ends and blanks between its values stay; within its texts there are none.
    """
    return "\n".join(
        line
        if line.isprintable()
        else "".join(
            c if c.isprintable() else f"\\u{ord(c):04x}" if c == "\x7f" else json.dumps(c)[1:-1] for c in line
        )
        for line in document.split("\n")
    )


def _for_csv(text: str) -> str:
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


# What makes a link: a bracket before a target, and what is one by itself.
_LINK = re.compile(r"\](?=[(\[:])")
_AUTOLINK = re.compile(r"(?i)(https?|ftp)(:)(?=//)|(www)(\.)|(mailto|xmpp)(:)")


def _for_markdown(text: str) -> str:
    text = re.sub(r"[\\`*|~!]", r"\\\g<0>", printable(text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _AUTOLINK.sub(lambda match: "\\".join(part for part in match.groups() if part), text)
    return _LINK.sub(r"\\]", text)


def _for_html(text: str) -> str:
    return html.escape(printable(text), quote=True)


_ESCAPES: Mapping[Sink, Callable[[str], str]] = {
    "terminal": printable,
    "json": _for_json,
    "csv": _for_csv,
    "markdown": _for_markdown,
    "html": _for_html,
}
