"""Tables that fit a terminal: columns go in a stated order, long names shorten in the middle, and what is too
wide even so is stacked under its row. Without a width every table keeps its own."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable, Sequence

from porter.reporting.text import table

Rows = Sequence[Sequence[str]]

# Characters that a name keeps before a column is dropped for it.
_NAME = 40
_GAP = 2
# Characters of a shortened name's beginning.
_HEAD = 4
# Where a part of a name begins, but for `{0..17}`, which stands for many.
_PART = re.compile(r"\{[^}]*\}|([./])")
_MARK = "…"


Heading = Callable[[str], str]


def headed(lines: list[str], heading: Heading) -> list[str]:
    """A table whose header is set off, by what `heading` puts around it."""
    return [heading(lines[0]), *lines[1:]] if lines else []


def fit(rows: Rows, width: int | None, *, right: Sequence[int] = (), drop: Sequence[int] = ()) -> list[str]:
    """A table of at most `width` columns. The first column shortens; those of `drop` go, in that order."""
    if width is None or not rows or _natural(rows) <= width:
        return table(rows, right=right)
    kept = list(range(len(rows[0])))
    longest = max(_columns(row[0]) for row in rows)
    for column in (*drop, None):
        rest = sum(max(_columns(row[at]) for row in rows) + _GAP for at in kept[1:])
        if column is None or width - rest >= min(longest, _NAME):
            break
        kept.remove(column)
    first = max(width - rest, 8)
    shown = [[shorten(row[0], first), *(row[at] for at in kept[1:])] for row in rows]
    return [
        line if _columns(line) <= width else shorten(line, width)
        for line in table(shown, right=[kept.index(at) for at in right if at in kept])
    ]


def stack(
    rows: Rows,
    width: int | None,
    *,
    right: Sequence[int] = (),
    under: Sequence[int] = (),
    drop: Sequence[int] = (),
) -> list[str]:
    """A table that fits, or its narrow columns with those of `under` on lines below each row. Of the narrow
    ones those of `drop` go, in that order, where there is no room even so; if there are none, a name that is
    too long for its column has a line of its own."""
    if width is None or not rows or _natural(rows) <= width:
        return table(rows, right=right)
    beside = [at for at in range(len(rows[0])) if at not in under]
    head = [[row[at] for at in beside] for row in rows]
    room = width - sum(max(_columns(row[at]) for row in head) + _GAP for at in range(1, len(beside)))
    alone = [not drop and room < _columns(row[0]) <= width for row in head]
    head = [["", *row[1:]] if own else row for own, row in zip(alone, head, strict=True)]
    places = {at: place for place, at in enumerate(beside)}
    lines = fit(
        head,
        width,
        right=[places[at] for at in right if at in places],
        drop=[places[at] for at in drop if at in places],
    )
    labels = [rows[0][at].lower() for at in under]
    wide = max(map(len, labels)) + 4
    found = [lines[0]]
    for line, row, own in zip(lines[1:], rows[1:], alone[1:], strict=True):
        found += [*table([[row[0]]]), line] if own else [line]
        for label, at in zip(labels, under, strict=True):
            if row[at]:
                found += _indented(label, row[at], wide, width)
    return found


def shorten(text: str, width: int) -> str:
    """The text in at most `width` columns, its middle left out; whole parts of a name are kept at its end."""
    if _columns(text) <= width:
        return text
    starts = (
        part.start() for part in _PART.finditer(text) if part[1] and len(text) - part.start() <= width - _HEAD
    )
    kept = len(text) - next(starts, len(text))
    tail = text[len(text) - kept :] if kept >= width // 3 else text[len(text) - width // 2 :]
    head = text[: width - 1 - len(tail)]
    if head.count("{") > head.count("}"):
        head = head[: head.rindex("{")]
    # Characters of two columns take more than they were counted for.
    while tail and _columns(head) + _columns(tail) + 1 > width:
        head, tail = head[:-1], tail[1:]
    return f"{head}{_MARK}{tail}"


def folded(parts: Sequence[str], width: int | None, *, joint: str = " · ", indent: int = 0) -> list[str]:
    """Parts in one line, or in as many as they need."""
    lines: list[str] = []
    for at, part in enumerate(parts):
        # Where another line follows, this one ends in the joint.
        end = joint.rstrip() if at + 1 < len(parts) else ""
        if lines and (width is None or _columns(lines[-1] + joint + part + end) <= width):
            lines[-1] += joint + part
        else:
            if lines:
                lines[-1] += joint.rstrip()
            lines.append(" " * (indent if lines else 0) + part)
    return lines


# What is typed or pasted as one: `a command`, 'a name'.
_WHOLE = re.compile(r"`[^`]*`|(?<!\w)'[^']*'(?!\w)")
# No text has it, control characters being spelled out before a text is shown.
_BLANK = "\0"


def wrapped(text: str, width: int | None, indent: int = 0) -> list[str]:
    """A sentence in lines of at most `width`, those after the first indented. No path, no quoted command and
    no other word is broken, though the line be too long."""
    if width is None or _columns(text) <= width:
        return [text]
    whole = _WHOLE.sub(lambda found: found[0].replace(" ", _BLANK), text)
    lines = textwrap.wrap(
        whole, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_BLANK, " ") for line in lines]


def _indented(label: str, text: str, wide: int, width: int) -> list[str]:
    room = max(width - wide, 16)
    parts = [part if at == 0 else f"+ {part}" for at, part in enumerate(text.split(" + "))]
    pieces = [
        piece for part in parts for piece in (textwrap.wrap(part, room, break_on_hyphens=False) or [""])
    ]
    lead = f"  {label}".ljust(wide)
    return [(lead if at == 0 else " " * wide) + piece for at, piece in enumerate(pieces)]


def _natural(rows: Rows) -> int:
    return sum(max(_columns(row[at]) for row in rows) + _GAP for at in range(len(rows[0]))) - _GAP


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )
