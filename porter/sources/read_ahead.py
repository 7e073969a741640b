"""Reading a range of a far file in requests of megabytes, several under way, whatever is asked for at a time.

The kernels read as suits memory: 256 KiB, a run of a row, a window. Over a network each of those would be
a round trip. Here the range that they will read is fetched in pieces ahead of them, and a piece that was read
is let go when newer ones need its room.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

from porter.sources.base import FarFile, SourceFile

# Requests under way: a bucket serves one connection at 50 to 100 MB/s.
AHEAD = 8

# Pieces that are kept behind the reader: what reads in two places of a range goes back and forth.
_BEHIND = 2


@cache
def _pool() -> ThreadPoolExecutor:
    """One for the process, so that the requests under way are bounded however many ranges are read."""
    return ThreadPoolExecutor(AHEAD, thread_name_prefix="porter-ahead")


@contextmanager
def read_ahead(file: SourceFile, start: int, stop: int) -> Iterator[SourceFile]:
    """`file` for somebody who is about to read bytes `start` to `stop` of it; a near file is itself."""
    if not isinstance(file, FarFile) or stop <= start:
        yield file
        return
    ahead = ReadAhead(file, start, min(stop, file.size))
    try:
        yield ahead
    finally:
        ahead.close()


class ReadAhead:
    """For one thread. What lies outside the range is read from the file as it is asked for."""

    def __init__(self, file: FarFile, start: int, stop: int) -> None:
        self.name, self.size = file.name, file.size
        self._file, self._start, self._stop = file, start, stop
        self._pieces: OrderedDict[int, Future[bytearray]] = OrderedDict()
        self._count = -(-(stop - start) // file.request)
        self._closed = threading.Event()

    def read(self, views: Sequence[memoryview], offset: int) -> None:
        for view in views:
            end = offset + len(view)
            if self._start <= offset and end <= self._stop:
                self._fill(view, offset)
            else:
                self._file.read([view], offset)
            offset = end

    def _fill(self, view: memoryview, offset: int) -> None:
        while len(view):
            number = (offset - self._start) // self._file.request
            at = self._start + number * self._file.request
            piece = memoryview(self._piece(number))[offset - at :][: len(view)]
            view[: len(piece)] = piece
            view, offset = view[len(piece) :], offset + len(piece)

    def _piece(self, number: int) -> bytearray:
        for wanted in range(number, min(number + AHEAD, self._count)):
            if wanted not in self._pieces:
                self._pieces[wanted] = _pool().submit(self._fetch(wanted))
            self._pieces.move_to_end(wanted)
        while len(self._pieces) > AHEAD + _BEHIND:
            self._pieces.popitem(last=False)[1].cancel()
        return self._pieces[number].result()

    def _fetch(self, number: int) -> Callable[[], bytearray]:
        low = self._start + number * self._file.request
        high = min(low + self._file.request, self._stop)

        def fetch() -> bytearray:
            content = bytearray(high - low)
            # What is still waiting when the range is let go is not asked for any more.
            if not self._closed.is_set():
                self._file.read([memoryview(content)], low)
            return content

        return fetch

    def close(self) -> None:
        self._closed.set()
        for piece in self._pieces.values():
            piece.cancel()
        self._pieces.clear()
