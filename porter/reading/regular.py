"""Regular files, opened for reading: the one way in which porter opens what a stranger may have put there.

A pipe, a socket or a device in the place of a file would block, or never end. They are refused before a byte
is read, and by what was opened, not by what stood under the name a moment before.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from porter.errors import MalformedError, PorterError, blamed, meaning
from porter.untrusted import shortened


def open_descriptor(path: Path, name: str) -> int:
    """A descriptor of the regular file at `path`, which errors call `name`. Raises MalformedError."""
    try:
        # Merely to open some devices does something.
        _check_regular(os.stat(path).st_mode, name)  # noqa: PTH116
        # O_NONBLOCK so that a pipe in the place of a file is refused, not waited for.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOCTTY", 0))
    except FileNotFoundError:
        raise MalformedError(f"{name} is missing", cause=f"expected a file at {path}") from None
    except (OSError, ValueError) as error:
        raise unreadable(error, name) from None
    try:
        _check_regular(os.fstat(fd).st_mode, name)
    except MalformedError:
        os.close(fd)
        raise
    return fd


def _check_regular(mode: int, name: str) -> None:
    if not stat.S_ISREG(mode):
        raise MalformedError(
            f"{name} is no regular file", cause=f"expected a regular file, found {stat.filemode(mode)}"
        )


@contextmanager
def open_regular(path: Path, name: str) -> Iterator[BufferedReader]:
    """The file as a stream; as `open_descriptor`."""
    with os.fdopen(open_descriptor(path, name), "rb") as stream:
        yield stream


def read_regular(path: Path, name: str, most: int, hint: str | None = None) -> bytes:
    """The whole of a file of at most `most` bytes. Raises MalformedError for a longer one, unread."""
    with open_regular(path, name) as stream:
        try:
            size = os.fstat(stream.fileno()).st_size
            # A file that grows while it is read is no longer either.
            content = stream.read(most + 1) if size <= most else b""
        except OSError as error:
            raise unreadable(error, name) from None
    if size > most or len(content) > most:
        raise _too_large(name, most, max(size, len(content)), hint)
    return content


def check_regular(path: Path, name: str, most: int) -> None:
    """Raises MalformedError unless there is a regular file of at most `most` bytes. Nothing of it is read."""
    with open_regular(path, name) as stream:
        size = os.fstat(stream.fileno()).st_size
    if size > most:
        raise _too_large(name, most, size)


def _too_large(name: str, most: int, found: int, hint: str | None = None) -> MalformedError:
    return MalformedError(
        f"{name} is too large", cause=f"expected at most {most:,} bytes, found {found:,}", hint=hint
    )


def unreadable(error: OSError | ValueError, name: str) -> PorterError:
    """What to say where the system does not open or read a file: whose fault it is, by its answer."""
    name = shortened(name)
    if not isinstance(error, OSError):
        # A name with a null byte.
        return MalformedError(f"{name} cannot be opened", cause=str(error))
    cause, _ = meaning(error)
    kind = MalformedError if error.errno == errno.ENOENT else blamed(error)
    if kind is PorterError:
        cause = f"{cause}: {shortened(str(error.filename or name))}"
    return kind(f"{name} cannot be read", cause=cause)
