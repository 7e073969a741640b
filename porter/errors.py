"""Every error that porter raises on purpose, and the exit code that each one stands for.

A `PorterError` is written for the person at the keyboard: `message` says what is wrong and where,
`cause` what was expected and found, `hint` what to do next. The command line prints these three
and exits with `exit_code`; nothing else decides an exit code.
"""

from __future__ import annotations

from porter.untrusted import shortened_lines


class PorterError(Exception):
    """Base of all errors; on its own: the work failed (exit code 1)."""

    exit_code = 1

    def __init__(self, message: str, *, cause: str | None = None, hint: str | None = None) -> None:
        # Errors quote names and values out of files, which may have megabytes.
        super().__init__(shortened_lines(message))
        self.message = shortened_lines(message)
        self.cause = cause and shortened_lines(cause)
        self.hint = hint and shortened_lines(hint)

    def __str__(self) -> str:
        lines = [self.message]
        if self.cause:
            lines.append(f"cause: {self.cause}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UsageError(PorterError):
    """The request itself cannot be carried out as put: options, paths, an output in the way."""

    exit_code = 2


class DifferenceError(PorterError):
    """Two things that had to agree differ: tied copies, a digest, a verification."""

    exit_code = 3


class AccessError(PorterError):
    """Authentication or an accepted licence is needed."""

    exit_code = 4


class UnsupportedError(PorterError):
    """Well-formed input that porter, a mapping table or the target cannot express or map."""

    exit_code = 5


class ModelLacksError(UnsupportedError):
    """A config that is right, and that porter's own model does not implement."""


class MalformedError(PorterError):
    """The input breaks its own format, is incomplete, or is unsafe to read."""

    exit_code = 6


class UnforeseenError(MalformedError):
    """Input that made Python raise an error of its own; to be reported (see `porter.reading.net`)."""


class ChangedError(MalformedError):
    """A source is not what it was when it was planned for."""
