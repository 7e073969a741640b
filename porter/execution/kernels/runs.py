"""Copies of class runs: ranges of bytes gathered in a bounded buffer, each span of the target one write.

Works for every dtype whose runs are whole blocks. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Callable

from porter.execution.buffers import Buffers
from porter.execution.kernels.boxes import byte_loops
from porter.execution.kernels.move import Move
from porter.layout.copies import coalesce, run_length, runs
from porter.sources.base import SourceFile

# Bytes gathered before a write.
BUFFER = 1 << 20

# Bytes. Shorter runs are copied out of a window of the source, since a read of each would cost more.
LONG_RUN = 16 << 10

# Bytes of the source that are read at once for short runs: enough for a hundred and more of them.
WINDOW = 1 << 20


def move_runs(move: Move) -> None:
    """Runs the copy, in the order of the target's addresses. Raises UnsupportedError on partial blocks."""
    box = move.box
    if box.elements == 0:
        return
    dtype = move.source.dtype
    read_at = move.source.offset + dtype.nbytes(box.source)
    write_at = move.target.offset + dtype.nbytes(box.target)
    buffer = move.buffers.take("gathered", min(BUFFER, dtype.nbytes(box.elements)))
    start, filled = write_at, 0
    loops = coalesce(byte_loops(dtype, box.loops))
    end = move.source.offset + dtype.nbytes(move.source.span)
    long = run_length(loops) >= LONG_RUN
    fill = _read_each(move.reader) if long else _Window(move.reader, move.buffers, end).fill
    for run in runs(loops, read_at, write_at):
        if run.target != start + filled:
            _flush(move, start, buffer[:filled])
            start, filled = run.target, 0
        position, left = run.source, run.length
        while left:
            count = min(left, len(buffer) - filled)
            fill(buffer[filled : filled + count], position)
            position, left, filled = position + count, left - count, filled + count
            if filled == len(buffer):
                _flush(move, start, buffer)
                start, filled = start + filled, 0
    _flush(move, start, buffer[:filled])


def _read_each(reader: SourceFile) -> Callable[[memoryview, int], None]:
    return lambda view, position: reader.read([view], position)


class _Window:
    """Fills views out of a window of the source that moves on with them, up to byte `end`."""

    def __init__(self, reader: SourceFile, buffers: Buffers, end: int) -> None:
        self._reader, self._end = reader, end
        self._room = buffers.take("window", min(WINDOW, end))
        self._start = self._stop = 0

    def fill(self, view: memoryview, position: int) -> None:
        stop = position + len(view)
        if len(view) > len(self._room):
            self._reader.read([view], position)
            return
        if not self._start <= position <= stop <= self._stop:
            self._start = position
            self._stop = min(position + len(self._room), self._end)
            self._reader.read([self._room[: self._stop - self._start]], self._start)
        view[:] = self._room[position - self._start : stop - self._start]


def _flush(move: Move, offset: int, data: memoryview) -> None:
    if data:
        move.writer.write(offset, data)
