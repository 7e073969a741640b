"""The two ends of every copy: a source file read in pieces, and a weight file being written.

Sources are opened read-only and never written. A weight file counts what it is given, so that a byte
left out or written twice is noticed, and hashes what arrives in order; a file whose bytes came out of
order has no digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import stat
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import TracebackType

from porter.errors import MalformedError, PorterError

# Bytes between two calls of a progress callback.
PROGRESS_STEP = 4 << 20

# Bytes handed to the system at once. One write of a 32 MiB tile takes twice the time of its pieces.
WRITE = 256 << 10


class SourceFile:
    """A checkpoint file of `size` bytes, open for reading. Raises MalformedError if it has another size."""

    def __init__(self, path: Path, name: str, size: int) -> None:
        self.name = name
        self.size = size
        try:
            # O_NONBLOCK so that a pipe in the place of a file is refused, not waited for.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise MalformedError(f"{name} is missing", cause=f"expected a file at {path}") from None
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            os.close(self._fd)
            raise MalformedError(
                f"{name} is not the file that was planned for",
                cause=f"expected a regular file of {size} bytes, found {found.st_size}",
                hint="plan again; the file changed in between",
            )

    def read(self, view: memoryview, offset: int) -> None:
        """Fills `view` from byte `offset` on; MalformedError where the file ends before."""
        done = 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], offset + done)
            if count == 0:
                raise MalformedError(
                    f"{self.name} was cut short while it was read",
                    cause=f"expected {self.size} bytes, found {offset + done}",
                )
            done += count

    @cached_property
    def map(self) -> mmap.mmap:
        """The whole file, mapped read-only."""
        return mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)

    def forget(self, start: int, end: int) -> None:
        """Unmaps the pages that hold bytes `start` to `end`; they stay in the system's cache."""
        if hasattr(mmap, "MADV_DONTNEED"):
            first = start - start % mmap.PAGESIZE
            self.map.madvise(mmap.MADV_DONTNEED, first, min(end, self.size) - first)

    def close(self) -> None:
        # A map that an error's traceback still refers to goes with the traceback.
        if "map" in self.__dict__:
            with contextlib.suppress(BufferError):
                self.map.close()
        os.close(self._fd)


class WeightFile:
    """A new file of exactly `size` bytes, written at any offsets in any order; use it as a context."""

    def __init__(self, path: Path, name: str, size: int, progress: Callable[[str, int], None] | None) -> None:
        self.name = name
        self._size = size
        self._progress = progress
        self._unreported = 0
        self._written = 0
        self._next = 0
        self._hash = hashlib.sha256()
        # 0666 lets the umask decide, as it does for files that a user makes.
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> WeightFile:
        os.ftruncate(self._fd, self._size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Writes `data` at byte `offset`; each byte of the file must be written once."""
        if offset == self._next and self._next == self._written:
            self._hash.update(data)
            self._next += len(data)
        self._put(offset, data)
        self._count(len(data))

    def read(self, view: memoryview, offset: int) -> None:
        """Fills `view` with what the file holds from byte `offset` on, zeros where nothing was written."""
        done = 0
        while done < len(view):
            done += os.preadv(self._fd, [view[done:]], offset + done)

    def patch(self, offset: int, data: memoryview, fresh: int) -> None:
        """Writes `data`, of which only `fresh` bytes were not in the file before."""
        self._put(offset, data)
        self._count(fresh)

    def finish(self) -> None:
        """Makes the bytes durable. Raises PorterError unless as many were written as the file holds."""
        self._report()
        if self._written != self._size:
            raise PorterError(
                f"{self.name}: the plan does not write each byte once",
                cause=f"expected {self._size} bytes, wrote {self._written}",
            )
        os.fsync(self._fd)

    @property
    def digest(self) -> str | None:
        """`sha256:<hex>` of the file, or None if its bytes were not written in order."""
        return f"sha256:{self._hash.hexdigest()}" if self._next == self._size else None

    def _put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        if offset < 0 or offset + len(view) > self._size:
            raise PorterError(f"{self.name}: the plan writes outside the file", cause=f"at byte {offset}")
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done : done + WRITE], offset + done)

    def _count(self, count: int) -> None:
        self._written += count
        self._unreported += count
        if self._unreported >= PROGRESS_STEP:
            self._report()

    def _report(self) -> None:
        if self._progress and self._unreported:
            self._progress(self.name, self._unreported)
        self._unreported = 0
