"""Copies of class tile: real transposes, done by torch in bounded tiles.

Elements are moved as integers of their size, so that every dtype of 1, 2, 4 or 8 bytes keeps its bits.
A tile is gathered from the mapped source in the target's order and written as the spans that it fills
there.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import torch

from porter.errors import UnsupportedError
from porter.execution.boxes import Box, cut_by_elements, cut_by_source_span, cut_by_target_span, packed
from porter.execution.move import Move
from porter.layout.copies import Loop, run_length, runs

# Bytes of one tile. Smaller ones read the source more often; below 8 MiB they were slower.
TILE = 32 << 20

# Bytes of source that may be mapped at once for a tile.
SOURCE_SPAN = 64 << 20

# Bytes. Spans of the target shorter than a page are put together in memory and written at once.
SHORT_SPAN = 4 << 10

# Where the gaps are this many times larger than the data, reading all of it costs more than it saves.
SPARSE = 64

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def move_tiles(move: Move) -> None:
    """Runs the copy. Raises UnsupportedError for elements that are not 1, 2, 4 or 8 bytes."""
    item = move.source.dtype.itemsize
    word = _INTEGERS.get(item)
    if word is None:
        raise UnsupportedError(f"{move.label}: cannot transpose {move.source.dtype.name}")
    if move.box.elements == 0:
        return
    source = mapped(move, word)
    limit = max(1, TILE // item)
    room = memoryview(bytearray(min(limit, move.box.elements) * item))
    for box in target_boxes(move.box, limit, item):
        data = room[: box.elements * item]
        gather(move, source, box, torch.frombuffer(data, dtype=word))
        write_box(move, box, data, item)


def mapped(move: Move, dtype: torch.dtype) -> torch.Tensor:
    """The whole source tensor, flat, as a view of its mapped file."""
    with warnings.catch_warnings():
        # The view is only read; torch cannot express that.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(
            move.reader.map, dtype=dtype, count=move.source.elements, offset=move.source.offset
        )


def target_boxes(box: Box, limit: int, itemsize: int) -> Iterator[Box]:
    """Boxes of at most `limit` elements in the target's order, each close together where spans are short."""
    if _patched(box, itemsize):
        return cut_by_target_span(box, limit)
    return cut_by_elements(box, limit)


def gather(move: Move, source: torch.Tensor, box: Box, packed_values: torch.Tensor) -> None:
    """Fills the flat `packed_values` with the box's elements in the order of its loops, cast to its dtype."""
    item = source.itemsize
    for part in cut_by_source_span(_into_packed(box), max(1, SOURCE_SPAN // item)):
        view = source.as_strided(part.shape, [loop.source_stride for loop in part.loops], part.source)
        place = [loop.target_stride for loop in part.loops]
        start = move.source.offset + part.source * item
        packed_values.as_strided(part.shape, place, part.target).copy_(view)
        move.reader.forget(start, start + part.source_span * item)


def write_box(move: Move, box: Box, data: memoryview, item: int) -> None:
    """Writes the box's packed elements, `item` bytes each, to where the box lies in the target."""
    if _patched(box, item) and box.target_span <= SPARSE * box.elements:
        _patch(move, box, data, item)
        return
    for run in runs(packed(box), 0, box.target):
        offset = move.target.offset + run.target * item
        move.writer.write(offset, data[run.source * item : (run.source + run.length) * item])


def _patch(move: Move, box: Box, data: memoryview, item: int) -> None:
    offset = move.target.offset + box.target * item
    span = memoryview(bytearray(box.target_span * item))
    move.writer.read(span, offset)
    held = torch.frombuffer(span, dtype=_INTEGERS[item])
    fresh = torch.frombuffer(data, dtype=_INTEGERS[item]).view(box.shape)
    held.as_strided(box.shape, [loop.target_stride for loop in box.loops], 0).copy_(fresh)
    move.writer.patch(offset, span, box.elements * item)


def _patched(box: Box, itemsize: int) -> bool:
    length = run_length(packed(box))
    return box.elements != length and length * itemsize < SHORT_SPAN


def _into_packed(box: Box) -> Box:
    """The same elements, but with the packed buffer as the target."""
    loops = tuple(
        Loop(loop.size, loop.source_stride, math.prod(box.shape[axis + 1 :]))
        for axis, loop in enumerate(box.loops)
    )
    return Box(loops, box.source, 0)
