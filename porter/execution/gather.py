"""Reading a box of a source tensor into memory, in the source's order and with as few reads as it allows.

What is returned is a view in the box's own order. Bytes between the box's elements are read along where
that is cheaper than leaving them out, and never held beyond the given memory.
"""

from __future__ import annotations

import math
import warnings

import torch

from porter.execution.boxes import Box, cut_by_source_span
from porter.execution.move import Move
from porter.layout.copies import Loop, coalesce, run_length, runs

# Bytes of source that may be mapped at once where a box has too many gaps to be read whole.
SOURCE_SPAN = 64 << 20

# Bytes. Shorter runs are not worth a read of their own.
SHORT_RUN = 4 << 10

# Gaps up to this part of the data are read along.
LOOSE = 2


def gather(move: Move, box: Box, dtype: torch.dtype) -> torch.Tensor:
    """The box's elements as a tensor of the box's shape, read as `dtype` (of the source's item size).

    The tensor is valid until the next call with the same buffers.
    """
    item = dtype.itemsize
    span = box.source_span
    start = move.source.offset + box.source * item
    if span <= LOOSE * box.elements:
        buffer = move.buffers.take("read", span * item)
        move.reader.read(buffer, start)
        held = torch.frombuffer(buffer, dtype=dtype)
        return held.as_strided(box.shape, [loop.source_stride for loop in box.loops], 0)
    order = sorted(range(len(box.loops)), key=lambda axis: -box.loops[axis].source_stride)
    into = _into_packed(box, order)
    pieces = coalesce(into.loops)
    raw = move.buffers.take("read", box.elements * item)
    held = torch.frombuffer(raw, dtype=dtype)
    if run_length(pieces) * item >= SHORT_RUN:
        for run in runs(pieces):
            piece = raw[run.target * item : (run.target + run.length) * item]
            move.reader.read(piece, start + run.source * item)
    else:
        _from_map(move, into, held)
    return held.as_strided(box.shape, [loop.target_stride for loop in into.loops], 0)


def _from_map(move: Move, into: Box, held: torch.Tensor) -> None:
    """Runs too short to be read alone, too far apart to be read together: the kernel maps their pages."""
    item = held.itemsize
    with warnings.catch_warnings():
        # The view is only read; torch cannot express that.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        source = torch.frombuffer(
            move.reader.map, dtype=held.dtype, count=move.source.elements, offset=move.source.offset
        )
    for part in cut_by_source_span(into, max(1, SOURCE_SPAN // item)):
        view = source.as_strided(part.shape, [loop.source_stride for loop in part.loops], part.source)
        place = [loop.target_stride for loop in part.loops]
        held.as_strided(part.shape, place, part.target).copy_(view)
        start = move.source.offset + part.source * item
        move.reader.forget(start, start + part.source_span * item)


def _into_packed(box: Box, order: list[int]) -> Box:
    """The same elements in the same loops, but into a packed buffer with the axes in the given order."""
    inside = {
        axis: math.prod(box.loops[other].size for other in order[place + 1 :])
        for place, axis in enumerate(order)
    }
    loops = tuple(Loop(loop.size, loop.source_stride, inside[axis]) for axis, loop in enumerate(box.loops))
    return Box(loops, box.source, 0)
