"""Every error that porter raises on purpose, and the exit code that each one stands for.

A `PorterError` is written for the person at the keyboard: `message` says what is wrong and where,
`cause` what was expected and found, `hint` what to do next. The command line prints these three
and exits with `exit_code`; nothing else decides an exit code.
"""

from __future__ import annotations

import errno

from porter.untrusted import shortened, shortened_lines
from porter.wording import option


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
    """Input that made Python raise an error of its own; to be reported (see `porter.reading.unforeseen`)."""


class ChangedError(MalformedError):
    """A source is not what it was when it was planned for."""


_ANOTHER_DISK = "free some space, or choose another disk with {out}"

# What the operating system's refusals mean, and what to do next.
_REFUSALS = {
    errno.ENOSPC: ("the disk is full", _ANOTHER_DISK),
    errno.EDQUOT: (
        "your quota on that disk is used up",
        _ANOTHER_DISK,
    ),
    errno.EROFS: ("that file system can only be read", "choose another directory with {out}"),
    errno.EACCES: ("you have no permission", "look at the owner and the mode of that path"),
    errno.EPERM: ("you have no permission", "look at the owner and the mode of that path"),
    errno.ENOENT: ("there is no such file or directory", "look whether it has gone meanwhile"),
    errno.ENOTDIR: ("a file stands where a directory belongs", "choose another path"),
    errno.ENAMETOOLONG: ("a name is too long for that file system", "choose a shorter one"),
    errno.EMFILE: ("too many files are open", "raise the limit with `ulimit -n 4096`, then run it again"),
    errno.EIO: ("the disk has failed to read or write", "look after the disk, then run it again"),
    errno.EFBIG: ("the file is too large for that file system", "choose another disk with {out}"),
    errno.ESTALE: ("a network file system has lost the file", "mount it again, then run it again"),
    errno.EISDIR: ("a directory stands where a file belongs", "choose another path"),
    errno.ELOOP: ("its links lead around in a circle", "name the file itself"),
    errno.ENXIO: ("what stands there is no file", "name a regular file"),
    errno.ENOMEM: ("there is not enough memory", "close what else runs, or use a larger machine"),
    errno.ENFILE: ("too many files are open on this machine", "close what else runs, then run it again"),
    errno.EXDEV: ("two file systems are involved where one must be", "choose a path on the same disk"),
    errno.ENOTEMPTY: ("a directory that should be empty is not", "choose another path"),
    errno.ETXTBSY: ("that file is being run as a program", "choose another path"),
    errno.ENODEV: ("the device is gone", "mount it again, then run it again"),
}

# Where a path itself is at fault, and where it is too much for this machine.
_MALFORMED = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}
_TOO_MUCH = {errno.ENOMEM, errno.EFBIG, errno.EMFILE, errno.ENFILE}


def meaning(error: OSError) -> tuple[str, str | None]:
    """What an error of the operating system means, and what to do next."""
    words, hint = _REFUSALS.get(error.errno or 0, (error.strerror or str(error), None))
    return words, hint and hint.format(out=option("out"))


def blamed(error: OSError) -> type[PorterError]:
    """The kind of error, by which the exit code is chosen, that an error of the operating system is."""
    if error.errno in _MALFORMED:
        return MalformedError
    return UnsupportedError if error.errno in _TOO_MUCH else PorterError


def refused(message: str, error: OSError, path: object = None) -> PorterError:
    """An error of the operating system, in words: what it means, of which path, and what to do next.

    `path` stands in for the one that the system names, which may be none that the user has chosen.
    """
    words, hint = meaning(error)
    name = path if path is not None else error.filename
    return PorterError(message, cause=f"{words}: {name}" if name else words, hint=hint)


def stopped(error: OSError) -> PorterError:
    """The same where nothing else is known of what was done: the place, and what the system says of it."""
    words, hint = meaning(error)
    place = error.filename2 or error.filename
    return blamed(error)(f"{shortened(str(place))}: {words}" if place is not None else words, hint=hint)
