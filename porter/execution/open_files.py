"""The two ends of every copy: a source file read in pieces, and a weight file being written.

Sources are opened read-only and never written. A weight file is written in ranges, each by one thread;
every range counts what it is given, so that a byte left out or written twice is noticed, and sums what
arrives in order.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import threading
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

from porter.errors import MalformedError, PorterError
from porter.execution.system import reserve, start_writeback

# Bytes between two calls of a progress callback.
PROGRESS_STEP = 4 << 20

# Bytes summed and handed to the system at once, while they are in the cache. One write of 32 MiB takes twice
# the time of its pieces.
WRITE = 512 << 10


class Stopped(Exception):
    """Another thread has failed, or the user has interrupted: this one must not go on."""


class SourceFile:
    """A checkpoint file of `size` bytes, open for reading. Raises MalformedError if it has another size."""

    def __init__(self, path: Path, name: str, size: int) -> None:
        self.name = name
        self.size = size
        try:
            # O_NONBLOCK so that a pipe in the place of a file is refused, not waited for.
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise MalformedError(f"{name} is missing", cause=f"expected a file at {path}") from None
        found = os.fstat(self.fd)
        self.modified = found.st_mtime_ns
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            os.close(self.fd)
            raise MalformedError(
                f"{name} is not the file that was planned for",
                cause=f"expected a regular file of {size} bytes, found {found.st_size}",
                hint="plan again; the file changed in between",
            )

    def read(self, views: Sequence[memoryview], offset: int) -> None:
        """Fills `views`, at most 1024, one after the other with what stands from byte `offset` on.

        Raises MalformedError where the file ends before.
        """
        while views:
            count = os.preadv(self.fd, views, offset)
            if count == 0:
                raise MalformedError(
                    f"{self.name} was cut short while it was read",
                    cause=f"expected {self.size} bytes, found {offset}",
                )
            offset += count
            views = _unfilled(views, count)

    @cached_property
    def map(self) -> mmap.mmap:
        """The whole file, mapped read-only."""
        return mmap.mmap(self.fd, self.size, access=mmap.ACCESS_READ)

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
        os.close(self.fd)


def _unfilled(views: Sequence[memoryview], count: int) -> Sequence[memoryview]:
    for number, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[number + 1 :]]
        count -= len(view)
    return []


class WeightFile:
    """A file of exactly `size` bytes, written at any offsets in any order; use it as a context.

    A file that is already there is taken over if it has that size; `resumed` says so.
    """

    def __init__(
        self, path: Path, name: str, size: int, progress: Callable[[str, int], None] | None = None
    ) -> None:
        self.name = name
        self.size = size
        self.stopped = threading.Event()
        self._progress = progress
        self._unreported = 0
        self._written = 0
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        # 0666 lets the umask decide, as it does for files that a user makes.
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        self.resumed = size > 0 and os.fstat(self.fd).st_size == size
        if not self.resumed:
            os.ftruncate(self.fd, 0)
            os.ftruncate(self.fd, size)

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    def reserve(self) -> None:
        """Reserves the file's room on disk. Raises OSError if there is too little."""
        reserve(self.fd, self.size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Writes `data` at byte `offset`; each byte of the file must be written once."""
        self.put(offset, data)
        self.count(len(data))

    def read(self, view: memoryview, offset: int) -> None:
        """Fills `view` with what the file holds from byte `offset` on, zeros where nothing was written."""
        done = 0
        while done < len(view):
            count = os.preadv(self.fd, [view[done:]], offset + done)
            if count == 0:
                raise PorterError(f"{self.name} was cut short while it was written")
            done += count

    def put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Writes `data` without counting it."""
        view = memoryview(data)
        if offset < 0 or offset + len(view) > self.size:
            raise PorterError(f"{self.name}: the plan writes outside the file", cause=f"at byte {offset}")
        done = 0
        while done < len(view):
            if self.stopped.is_set():
                raise Stopped
            # The system lets one thread write to a file at a time, and the others burn their time waiting.
            with self._writing:
                done += os.pwrite(self.fd, view[done : done + WRITE], offset + done)

    def count(self, count: int) -> None:
        """Notes that `count` bytes of the file have got their final value."""
        with self._lock:
            self._written += count
            self._unreported += count
            if self._unreported >= PROGRESS_STEP:
                self._report()

    def finish(self) -> None:
        """Makes the bytes durable. Raises PorterError unless as many were written as the file holds."""
        with self._lock:
            self._report()
        if self._written != self.size:
            raise PorterError(
                f"{self.name}: the plan does not write each byte once",
                cause=f"expected {self.size} bytes, wrote {self._written}",
            )
        os.fsync(self.fd)

    def _report(self) -> None:
        if self._progress and self._unreported:
            self._progress(self.name, self._unreported)
        self._unreported = 0


class RangeWriter:
    """What one unit of work writes: `expected` bytes in `start` to `end` of a weight file."""

    def __init__(self, file: WeightFile, start: int, end: int, expected: int, *, summed: bool) -> None:
        self.file = file
        self._start, self._end = start, end
        self._expected = expected
        self._summed = summed
        self._next = start
        self._crc = 0
        self._written = 0

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Writes `data` at byte `offset` of the file; each byte of the range must be written once."""
        self._check(offset, len(data))
        view = memoryview(data)
        for start in range(0, len(view), WRITE):
            piece = view[start : start + WRITE]
            # Summed while it is still in the processor's cache: 0.17 s a GB, against 0.21 when read again.
            if self._summed and offset + start == self._next:
                self._crc = zlib.crc32(piece, self._crc)
                self._next += len(piece)
            self.file.put(offset + start, piece)
        self._count(len(data))

    def read(self, view: memoryview, offset: int) -> None:
        self.file.read(view, offset)

    def patch(self, offset: int, data: memoryview, fresh: int) -> None:
        """Writes `data`, of which only `fresh` bytes were not in the file before."""
        self._check(offset, len(data))
        self.file.put(offset, data)
        self._count(fresh)

    def finish(self) -> int | None:
        """The CRC-32 of the whole range, if it is to be summed; it is read again if written out of order.

        Raises PorterError unless as many bytes were written as expected.
        """
        if self._written != self._expected:
            raise PorterError(
                f"{self.file.name}: the plan does not write each byte once",
                cause=f"expected {self._expected} bytes from byte {self._start} on, wrote {self._written}",
            )
        start_writeback(self.file.fd, self._start, self._end - self._start)
        if not self._summed:
            return None
        return self._crc if self._next == self._end else range_crc(self.file, self._start, self._end)

    def _check(self, offset: int, length: int) -> None:
        if offset < self._start or offset + length > self._end:
            raise PorterError(
                f"{self.file.name}: the plan writes outside a tensor", cause=f"at byte {offset}"
            )

    def _count(self, count: int) -> None:
        self._written += count
        self.file.count(count)


def write_zeros(writer: RangeWriter, start: int, end: int) -> None:
    """Fills a range with zeros: a file that an earlier run has left may hold something there."""
    zeros = bytes(min(WRITE, end - start))
    for begin in range(start, end, WRITE):
        writer.write(begin, zeros[: min(WRITE, end - begin)])


def range_crc(file: WeightFile, start: int, end: int) -> int:
    """The CRC-32 of what the file holds in a range."""
    buffer = memoryview(bytearray(min(WRITE, end - start)))
    crc = 0
    while start < end:
        piece = buffer[: min(len(buffer), end - start)]
        file.read(piece, start)
        crc = zlib.crc32(piece, crc)
        start += len(piece)
    return crc
