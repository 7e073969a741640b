"""What had come of a file from the Hub beyond its front, when a run was stopped: kept beside the front, and
read back by the next run.

The front alone stands under the name that the Hub's client gives to an unfinished file, since the client
takes such a file's length for what has come. What is kept here need not be right: the digest of the whole
decides.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

# The bytes that follow: where in the file they begin, and how many they are.
_HEAD = struct.Struct("<QQ")

Piece = tuple[int, memoryview]


def ahead_of(partial: Path) -> Path:
    """Where it is kept; no name that the client looks for."""
    return partial.with_name(f"{partial.name}.ahead")


def keep(partial: Path, fd: int, done: int, pieces: Iterable[Piece]) -> None:
    """Lets `partial`, open at `fd` and `done` bytes long, have what joins its end, and keeps the rest."""
    ahead = ahead_of(partial)
    ahead.unlink(missing_ok=True)
    kept = []
    for start, content in sorted(pieces, key=lambda piece: piece[0]):
        if start <= done < start + len(content):
            # Of the range that was being written a part may stand already.
            done += os.pwrite(fd, content[done - start :], done)
        elif start > done and content:
            kept.append((start, content))
    if kept:
        with ahead.open("xb") as stream:
            for start, content in kept:
                stream.write(_HEAD.pack(start, len(content)))
                stream.write(content)


class Ahead:
    """What an earlier run has kept of one file; it is gone from its place as soon as it is taken up."""

    def __init__(self, partial: Path) -> None:
        self._pieces: list[tuple[int, int, int]] = []
        self._fd: int | None = None
        try:
            self._fd = os.open(ahead_of(partial), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        ahead_of(partial).unlink(missing_ok=True)
        at, end = 0, os.fstat(self._fd).st_size
        while len(head := os.pread(self._fd, _HEAD.size, at)) == _HEAD.size:
            start, length = _HEAD.unpack(head)
            at += _HEAD.size
            if at + length > end:
                break
            self._pieces.append((start, start + length, at))
            at += length

    @property
    def nbytes(self) -> int:
        return sum(stop - start for start, stop, _ in self._pieces)

    def fill(self, start: int, view: memoryview) -> Iterator[tuple[int, int]]:
        """Puts into a view of the file's bytes from `start` on what is kept of them; yields the ranges of the
        file that are left to fetch."""
        stop = start + len(view)
        for low, high, at in sorted(self._pieces):
            low, high, at = max(low, start), min(high, stop), at + max(start - low, 0)
            if low >= high:
                continue
            if low > start:
                yield start, low
            assert self._fd is not None
            read = os.preadv(self._fd, [view[low - (stop - len(view)) : high - (stop - len(view))]], at)
            start = low + read
        if start < stop:
            yield start, stop

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
