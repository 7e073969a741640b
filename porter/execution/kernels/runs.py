"""Copies of class runs: ranges of bytes gathered in a bounded buffer, each span of the target one write.

Works for every dtype whose runs are whole blocks. Never imports torch.
"""

from __future__ import annotations

from porter.execution.kernels.boxes import byte_loops
from porter.execution.kernels.move import Move
from porter.execution.open_files import SourceFile
from porter.layout.copies import coalesce, run_length, runs

# Bytes gathered before a write.
BUFFER = 1 << 20

# Bytes. Shorter runs are copied out of the mapped source, since a read of each would cost more.
LONG_RUN = 16 << 10

# Bytes of mapped source after which its pages are let go, to keep resident memory flat.
RESIDENT = 32 << 20

# Bytes that the kernel may map around one page fault (Linux' default), counted for each short run.
FAULT = 64 << 10


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
    fill = _Reading(move.reader) if run_length(loops) >= LONG_RUN else _Mapped(move.reader)
    with fill:
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


class _Reading:
    """Fills views by reads."""

    def __init__(self, reader: SourceFile) -> None:
        self._reader = reader

    def __enter__(self) -> None:
        pass

    def __exit__(self, *problem: object) -> None:
        pass

    def __call__(self, view: memoryview, position: int) -> None:
        self._reader.read([view], position)


class _Mapped:
    """Fills views from the mapped file, and lets its pages go again."""

    def __init__(self, reader: SourceFile) -> None:
        self._reader = reader
        self._low = self._high = self._resident = 0

    def __enter__(self) -> None:
        self._source = memoryview(self._reader.map)

    def __exit__(self, *problem: object) -> None:
        self._source.release()
        if self._resident:
            self._reader.forget(self._low, self._high)

    def __call__(self, view: memoryview, position: int) -> None:
        end = position + len(view)
        view[:] = self._source[position:end]
        if not self._resident:
            self._low, self._high = position, end
        self._low, self._high = min(self._low, position), max(self._high, end)
        self._resident += len(view) + FAULT
        if self._resident >= RESIDENT:
            self._reader.forget(self._low, self._high)
            self._resident = 0


def _flush(move: Move, offset: int, data: memoryview) -> None:
    if data:
        move.writer.write(offset, data)
