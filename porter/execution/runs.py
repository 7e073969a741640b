"""Copies of class runs: ranges of bytes gathered in a bounded buffer, each span of the target one write.

Works for every dtype whose runs are whole blocks. Never imports torch.
"""

from __future__ import annotations

from porter.execution.boxes import byte_loops
from porter.execution.move import Move
from porter.layout.copies import coalesce, runs

# Bytes gathered before a write.
BUFFER = 1 << 20

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
    buffer = memoryview(bytearray(min(BUFFER, dtype.nbytes(box.elements))))
    start, filled = write_at, 0
    low, high, resident = read_at, read_at, 0
    with memoryview(move.reader.map) as source:
        for run in runs(coalesce(byte_loops(dtype, box.loops)), read_at, write_at):
            if run.target != start + filled:
                _flush(move, start, buffer[:filled])
                start, filled = run.target, 0
            position, left = run.source, run.length
            while left:
                count = min(left, len(buffer) - filled)
                buffer[filled : filled + count] = source[position : position + count]
                position, left, filled = position + count, left - count, filled + count
                low, high = min(low, position - count), max(high, position)
                resident += count + FAULT
                if filled == len(buffer):
                    _flush(move, start, buffer)
                    start, filled = start + filled, 0
                if resident >= RESIDENT:
                    move.reader.forget(low, high)
                    low, high, resident = position, position, 0
        _flush(move, start, buffer[:filled])
        move.reader.forget(low, high)


def _flush(move: Move, offset: int, data: memoryview) -> None:
    if data:
        move.writer.write(offset, data)
