"""Copies of class extent: one range of bytes, read and written through a small reused buffer.

Works for every dtype, packed and quantised ones included. Never imports torch.
"""

from __future__ import annotations

from porter.errors import PorterError
from porter.execution.kernels.move import Move
from porter.layout.copies import run_length

# Bytes. Stays in the L2 cache: on a warm ext4 faster than copy_file_range, and faster and steadier
# than 1 or 8 MiB.
BUFFER = 256 << 10


def move_extent(move: Move) -> None:
    """Runs the copy. Raises MalformedError if the source ends early, UnsupportedError on partial blocks."""
    box = move.box
    if box.elements == 0:
        return
    if box.elements != run_length(box.loops):
        raise PorterError(f"{move.label}: not one range of bytes")
    dtype = move.source.dtype
    move_bytes(
        move,
        move.source.offset + dtype.nbytes(box.source),
        move.target.offset + dtype.nbytes(box.target),
        dtype.nbytes(box.elements),
    )


def move_bytes(move: Move, read_at: int, write_at: int, count: int) -> None:
    """Moves `count` bytes between two offsets of the files."""
    buffer = memoryview(bytearray(min(BUFFER, count)))
    while count:
        piece = buffer[: min(count, len(buffer))]
        move.reader.read([piece], read_at)
        move.writer.write(write_at, piece)
        read_at += len(piece)
        write_at += len(piece)
        count -= len(piece)
