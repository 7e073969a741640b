"""How commands speak: data on stdout; progress, warnings and errors on stderr; colour only where wanted."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from porter.cli import streams
from porter.errors import PorterError
from porter.reporting.fitting import fit, headed, stack, wrapped
from porter.untrusted import escape, printable, printable_lines

# Version of the JSON that `--json` prints; it changes when a field changes its meaning or goes.
SCHEMA = 1

BOLD = "1"
_BOLD = re.compile(r"(\x1b\[[01]m)")


@dataclass
class Settings:
    """What the options that every command has are set to."""

    quiet: bool = False
    color: str = "auto"
    debug: bool = False
    offline: bool = False


settings = Settings()


def data(lines: Iterable[str] | str) -> None:
    """Print data: this is what a pipe gets. Of escapes a heading's own are left, where stdout shows them."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    parts = _BOLD.split(text) if colored(sys.stdout) else [text]
    parts[::2] = map(printable_lines, parts[::2])
    streams.write("".join(parts) + "\n")


def findings(lines: Iterable[str]) -> None:
    """Print data of which each line begins with a word for what it is about; on a terminal none is broken
    within a word."""
    data(_folded(line, sys.stdout) for line in lines)


def width() -> int | None:
    """How many columns a table may take: those of the terminal, any number in a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    drop: Sequence[int] = (),
    under: Sequence[int] = (),
) -> None:
    """Print a table that fits the terminal, its header bold: columns of `drop` go where there is no room, in
    that order, or those of `under` stand below each row."""
    if under:
        lines = stack(rows, width(), right=right, under=under)
    else:
        lines = fit(rows, width(), right=right, drop=drop)
    data(headed(lines, heading))


def heading(text: str) -> str:
    """A table's header, bold where stdout shows it."""
    return paint(text, BOLD, sys.stdout)


def report(text: str, *, pasted: bool = False) -> None:
    """Print a line of data about a work that is done and stays done whether or not it can be printed. What
    is to be pasted is never broken."""
    try:
        data(text if pasted else _folded(text, sys.stdout))
        streams.flush()
    except OSError as refused:
        note(f"stdout could not be written ({refused.strerror}): {text}")


def note(text: str, kind: str = "note") -> None:
    """Print a remark to stderr, unless quiet."""
    if not settings.quiet:
        word = paint(kind + ":", "33" if kind == "warning" else "36", sys.stderr)
        sys.stderr.write(
            _folded(f"{kind}: {printable(text)}", sys.stderr).replace(f"{kind}:", word, 1) + "\n"
        )


def say(text: str) -> None:
    """Print a line of progress or of a summary to stderr, unless quiet."""
    if not settings.quiet:
        sys.stderr.write(_folded(printable_lines(text), sys.stderr) + "\n")


def _folded(text: str, stream: Any) -> str:
    """A line whose first word says what it is about, or that is indented; on a terminal, in as many as fit,
    which begin under its second word."""
    if not stream.isatty() or "\n" in text:
        return text
    wide = shutil.get_terminal_size().columns
    if len(_BOLD.sub("", text)) <= wide:
        return text
    label = re.match(r"\s+|\S+\s+", text)
    indent = label.end() if label is not None and label.end() < 12 else 0
    return "\n".join(wrapped(text, wide, indent)) or text


def error(problem: PorterError) -> None:
    """Print an error as `error:`, `cause:` and `hint:` lines, which a terminal breaks between words."""
    lines = []
    wide = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    said = (
        ("error:", "1;31", problem.message),
        ("cause:", "1;36", problem.cause),
        ("hint:", "1;36", problem.hint),
    )
    for word, color, text in said:
        for at, line in enumerate(text.split("\n") if text else ()):
            # Errors quote names from files, and these are untrusted.
            lead = f"{word} " if at == 0 else " " * 7
            first, *rest = wrapped(lead + printable(line), wide, 7)
            lines += [first.replace(word, paint(word, color, sys.stderr), 1) if at == 0 else first, *rest]
    sys.stderr.write("\n".join(lines) + "\n")


def paint(text: str, code: str, stream: Any) -> str:
    """The text in a colour, where the stream shows colours."""
    return f"\x1b[{code}m{text}\x1b[0m" if colored(stream) else text


def colored(stream: Any) -> bool:
    """`--color` decides; then NO_COLOR; then whether the stream is a terminal."""
    if settings.color != "auto":
        return settings.color == "always"
    return not os.environ.get("NO_COLOR") and stream.isatty() and os.environ.get("TERM") != "dumb"


def as_json(value: Any, **extra: Any) -> None:
    """Print a dataclass or mapping as JSON, with the schema's version first."""
    plain = to_plain(value)
    document = json.dumps(
        {"schema": SCHEMA, **plain, **extra}, indent=2, ensure_ascii=not streams.is_unicode()
    )
    data(escape(document, "json"))


def to_plain(value: Any) -> Any:
    """Dataclasses, named tuples, paths and sequences as what JSON holds.

    Fields hidden from repr are left out.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_plain(getattr(value, item.name)) for item in fields(value) if item.repr}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value
