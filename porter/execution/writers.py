"""What a unit of work writes into: the contract of a writer, and the guard around one unit.

A writer stands for one output file. Units are ranges of it that do not overlap; each is written by one
thread. The guard counts what it is given, so that a byte left out or written twice is noticed, and sums what
arrives in order.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from porter.containers.base import StoredTensor
from porter.errors import PorterError

# Bytes between two calls of a progress callback.
PROGRESS_STEP = 4 << 20

# Bytes summed and handed to the system at once, while they are in the cache. One write of 32 MiB takes twice
# the time of its pieces.
WRITE = 512 << 10


class Stopped(Exception):
    """Another thread has failed, or the user has interrupted: this one must not go on."""


class Writer(Protocol):
    """One output file of `size` bytes, written at any offset, by several threads.

    `readable` says whether what was written can be read again; where it cannot, the ranges of a tensor come
    in order, each once. A writer that has been `stop`ped raises Stopped.
    """

    name: str
    size: int
    readable: bool
    stopped: threading.Event

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None: ...

    def read(self, view: memoryview, offset: int) -> None:
        """Fills `view` with what the file holds from byte `offset` on, zeros where nothing was written."""
        ...

    def begin_writeback(self, offset: int, length: int) -> None:
        """A range is finished: whoever makes it durable may begin with it."""
        ...

    def finish(self) -> None:
        """All is written: makes it durable, where that has a meaning."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class LossyWriter(Writer, Protocol):
    """A writer that wants to know of values that do not fit their dtype, and takes what becomes of them."""

    def lost(self, tensor: StoredTensor, count: int, first: int) -> None:
        """Of a part of `tensor` so many values are out of range, the element `first` before the others."""
        ...


class Volatile:
    """Base of writers of what no disk holds: there is nothing to write back, to make durable or to close."""

    def begin_writeback(self, offset: int, length: int) -> None:
        pass

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


class MemoryRange(Volatile):
    """A writer of the bytes of a file from `start` on in `content`, in memory.

    Raises PorterError for what is written outside of it.
    """

    def __init__(self, name: str, start: int, content: bytearray | memoryview, readable: bool = True) -> None:
        self.name, self.size = name, start + len(content)
        self.readable = readable
        self.stopped = threading.Event()
        self._start, self._view = start, memoryview(content)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        low = offset - self._start
        if low < 0 or low + len(data) > len(self._view):
            raise PorterError(f"{self.name}: the plan writes outside a part", cause=f"at byte {offset}")
        self._view[low : low + len(data)] = data

    def read(self, view: memoryview, offset: int) -> None:
        low = offset - self._start
        view[:] = self._view[low : low + len(view)]


class Tally:
    """How many bytes of a file have got their final value, told to `progress` in steps of megabytes."""

    def __init__(self, name: str, size: int, progress: Callable[[str, int], None] | None) -> None:
        self._name, self._size = name, size
        self._progress = progress
        self._unreported = 0
        self._written = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._written += count
            self._unreported += count
            if self._unreported >= PROGRESS_STEP:
                self._report()

    def finish(self) -> None:
        """Raises PorterError unless as many bytes were written as the file holds."""
        with self._lock:
            self._report()
        if self._written != self._size:
            raise PorterError(
                f"{self._name}: the plan does not write each byte once",
                cause=f"expected {self._size} bytes, wrote {self._written}",
            )

    def _report(self) -> None:
        if self._progress and self._unreported:
            self._progress(self._name, self._unreported)
        self._unreported = 0


class RangeWriter:
    """What one unit writes: `expected` bytes in `start` to `end` of a file.

    Where the writer cannot be read again, what does not come in order is gathered in memory and handed over
    at the end; a unit is bounded.
    """

    def __init__(
        self,
        writer: Writer,
        start: int,
        end: int,
        *,
        summed: bool = False,
        gathered: bool = False,
        count: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._writer = writer
        self._start, self._end = start, end
        self._summed = summed
        self._held = bytearray(end - start) if gathered else None
        self._tell = count
        self._next = start
        self._crc = 0
        self._written = 0

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Writes `data` at byte `offset` of the file; each byte of the range must be written once."""
        self._check(offset, len(data))
        if self._held is not None:
            self._held[offset - self._start : offset - self._start + len(data)] = data
            self._count(len(data))
            return
        view = memoryview(data)
        for start in range(0, len(view), WRITE):
            piece = view[start : start + WRITE]
            # Summed while it is still in the processor's cache: 0.17 s a GB, against 0.21 when read again.
            if self._summed and offset + start == self._next:
                self._crc = zlib.crc32(piece, self._crc)
                self._next += len(piece)
            self._writer.write(offset + start, piece)
        self._count(len(data))

    def read(self, view: memoryview, offset: int) -> None:
        if self._held is not None:
            view[:] = memoryview(self._held)[offset - self._start : offset - self._start + len(view)]
            return
        self._writer.read(view, offset)

    def patch(self, offset: int, data: memoryview, fresh: int) -> None:
        """Writes `data`, of which only `fresh` bytes were not in the file before."""
        self._check(offset, len(data))
        if self._held is not None:
            self._held[offset - self._start : offset - self._start + len(data)] = data
        else:
            self._writer.write(offset, data)
        self._count(fresh)

    def takes_lost(self, tensor: StoredTensor, count: int, first: int) -> bool:
        """Tells the writer of values that are out of range; False where it does not take such ones."""
        if not isinstance(self._writer, LossyWriter):
            return False
        self._writer.lost(tensor, count, first)
        return True

    def add(self, count: int) -> None:
        """Notes bytes of the range that have come in another way: blocks that are shared."""
        self._count(count)

    def finish(self) -> int | None:
        """The CRC-32 of the whole range, if it is to be summed; it is read again if written out of order.

        Raises PorterError unless as many bytes were written as the range has.
        """
        if self._written != self._end - self._start:
            raise PorterError(
                f"{self._writer.name}: the plan does not write each byte once",
                cause=f"expected {self._end - self._start} bytes from byte {self._start} on, "
                f"wrote {self._written}",
            )
        if self._held is not None:
            self._writer.write(self._start, self._held)
            self._writer.begin_writeback(self._start, self._end - self._start)
            return zlib.crc32(self._held) if self._summed else None
        self._writer.begin_writeback(self._start, self._end - self._start)
        if not self._summed:
            return None
        return self._crc if self._next == self._end else range_crc(self._writer, self._start, self._end)

    def _check(self, offset: int, length: int) -> None:
        if offset < self._start or offset + length > self._end:
            raise PorterError(
                f"{self._writer.name}: the plan writes outside a tensor", cause=f"at byte {offset}"
            )

    def _count(self, count: int) -> None:
        self._written += count
        self._tell(count)


def write_zeros(writer: RangeWriter, start: int, end: int) -> None:
    """Fills a range with zeros: a file that an earlier run has left may hold something there."""
    zeros = bytes(min(WRITE, end - start))
    for begin in range(start, end, WRITE):
        writer.write(begin, zeros[: min(WRITE, end - begin)])


def range_crc(file: Writer, start: int, end: int) -> int:
    """The CRC-32 of what the file holds in a range."""
    buffer = memoryview(bytearray(min(WRITE, end - start)))
    crc = 0
    while start < end:
        piece = buffer[: min(len(buffer), end - start)]
        file.read(piece, start)
        crc = zlib.crc32(piece, crc)
        start += len(piece)
    return crc
