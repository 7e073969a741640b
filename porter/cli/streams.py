"""stdout and stderr as a command may find them: closed, broken, or with an encoding that lacks our signs.

Promised: a remark that cannot be printed never ends a command, and no data are lost without an exit code
that says so, but where whoever reads a pipe has gone.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from typing import Any, TextIO, cast

# How our own signs are written where the encoding lacks them.
_PLAIN = {"·": "-", "→": "->", "⇄": "<>", "×": "x", "…": "...", "−": "-", "–": "-", "—": "-", "━": "="}


class ReaderGone(Exception):
    """Whoever read stdout has seen enough."""


class _Remarks:
    """A stderr that never fails: what it cannot take is dropped, and all that follows."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            _to_nowhere(2)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            _to_nowhere(2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Closed:
    """A stdout that was closed before we began: whatever needs it fails, and says why."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "stdout is closed")

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def prepare() -> None:
    """To be called before any file is opened: a free descriptor 0, 1 or 2 would go to the next one, and
    what libraries print would land in it."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error("porter", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="porter")
    if sys.stdout is None:
        sys.stdout = cast(TextIO, _Closed())
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    sys.stderr = cast(TextIO, _Remarks(sys.stderr))


def write(text: str) -> None:
    """Write to stdout. Raises ReaderGone, and OSError for what else keeps data from being printed."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        _to_nowhere(1)
        raise ReaderGone from None
    except OSError:
        _to_nowhere(1)
        raise


def flush() -> None:
    """Raises as `write` does; must be called before a command ends well."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere(1)
        raise ReaderGone from None
    except OSError:
        _to_nowhere(1)
        raise


def is_unicode() -> bool:
    """Whether stdout takes every character."""
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("_", "-").startswith("utf")


def _to_nowhere(descriptor: int) -> None:
    """What is still buffered must not fail again when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    spelled = (
        _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode() for character in text
    )
    return "".join(spelled), error.end
