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

# Bytes of one tile. Larger ones read the source fewer times and were not faster.
TILE = 32 << 20

# Bytes of source that may be mapped at once for a tile.
SOURCE_SPAN = 64 << 20

# Bytes. Spans of the target shorter than a page are put together in memory and written at once.
SHORT_SPAN = 4 << 10

# A gap this many times larger than the data is not worth reading and writing back.
SPARSE = 64

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def move_tiles(move: Move) -> None:
    """Runs the copy. Raises UnsupportedError for elements that are not 1, 2, 4 or 8 bytes."""
    word = _INTEGERS.get(move.source.dtype.itemsize)
    if word is None:
        raise UnsupportedError(f"{move.label}: cannot transpose {move.source.dtype.name}")
    if move.box.elements == 0:
        return
    source = mapped(move, word)
    for box in target_boxes(move.box, TILE // word.itemsize, word.itemsize):
        write_box(move, box, gather(move, source, box, word))


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


def gather(move: Move, source: torch.Tensor, box: Box, dtype: torch.dtype) -> torch.Tensor:
    """The box's elements, packed in the order of its loops, cast to `dtype`."""
    result = torch.empty(box.shape, dtype=dtype)
    flat = result.view(-1)
    item = source.itemsize
    # The part of the result that a part of the source fills is found with strides into the result.
    inner = Box(_into_packed(box), box.source, 0)
    for part in cut_by_source_span(inner, max(1, SOURCE_SPAN // item)):
        strides = [loop.source_stride for loop in part.loops], [loop.target_stride for loop in part.loops]
        view = source.as_strided(part.shape, strides[0], part.source)
        flat.as_strided(part.shape, strides[1], part.target).copy_(view)
        start = move.source.offset + part.source * item
        move.reader.forget(start, start + part.source_span * item)
    return result


def write_box(move: Move, box: Box, values: torch.Tensor) -> None:
    """Writes the box's packed `values` to where the box lies in the target."""
    flat = values.reshape(-1)
    item = flat.itemsize
    if _patched(box, item) and box.target_span <= SPARSE * box.elements:
        _patch(move, box, flat)
        return
    data = memoryview(flat.view(torch.uint8).numpy())
    for run in runs(packed(box), 0, box.target):
        offset = move.target.offset + run.target * item
        move.writer.write(offset, data[run.source * item : (run.source + run.length) * item])


def _patch(move: Move, box: Box, flat: torch.Tensor) -> None:
    item = flat.itemsize
    word = _INTEGERS[item]
    offset = move.target.offset + box.target * item
    span = memoryview(bytearray(box.target_span * item))
    move.writer.read(span, offset)
    held = torch.frombuffer(span, dtype=word)
    strides = [loop.target_stride for loop in box.loops]
    held.as_strided(box.shape, strides, 0).copy_(flat.view(word).view(box.shape))
    move.writer.patch(offset, span, box.elements * item)


def _patched(box: Box, itemsize: int) -> bool:
    length = run_length(packed(box))
    return box.elements != length and length * itemsize < SHORT_SPAN


def _into_packed(box: Box) -> tuple[Loop, ...]:
    strides = [math.prod(box.shape[axis + 1 :]) for axis in range(len(box.shape))]
    return tuple(
        Loop(loop.size, loop.source_stride, stride) for loop, stride in zip(box.loops, strides, strict=True)
    )
