"""Copies of class tile: real transposes, done by torch in bounded tiles.

Elements are moved as integers of their size, so that every dtype of 1, 2, 4 or 8 bytes keeps its bits.
A tile is read into memory in the source's order, each of its pages once, turned there, and written in the
target's order. It is as large as the memory allows, so that both sides come in long runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from porter.errors import UnsupportedError
from porter.execution.boxes import Box, cut_to_tiles, packed
from porter.execution.gather import gather
from porter.execution.move import Move
from porter.layout.copies import run_length, runs

# Bytes of one tile in the target. Larger ones are no faster.
TILE = 64 << 20

# A tile is in memory up to three times: as read (with gaps, twice its size), and as turned.
PARTS = 4

# Bytes of a run in the source below which a tile is not made narrower: a page is read whole anyway.
SOURCE_RUN = 4 << 10

# Bytes. Spans of the target shorter than a page are put together in memory and written at once.
SHORT_SPAN = 4 << 10

# Where the gaps are this many times larger than the data, reading all of it costs more than it saves.
SPARSE = 64

# Elements of each side of a square below which torch's loop over it is slower than a loop over all.
_SQUARE = 8

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def move_tiles(move: Move) -> None:
    """Runs the copy. Raises UnsupportedError for elements that are not 1, 2, 4 or 8 bytes."""
    item = move.source.dtype.itemsize
    word = _INTEGERS.get(item)
    if word is None:
        raise UnsupportedError(f"{move.label}: cannot transpose {move.source.dtype.name}")
    if move.box.elements == 0:
        return
    for box in target_boxes(move.box, tile_elements(move, item), item):
        data = move.buffers.take("turned", box.elements * item)
        turn(gather(move, box, word), torch.frombuffer(data, dtype=word).view(box.shape))
        write_box(move, box, data, item)


def tile_elements(move: Move, item: int) -> int:
    """How many elements of `item` bytes one tile may have."""
    return max(1, min(TILE, move.buffers.memory // PARTS) // item)


def target_boxes(box: Box, limit: int, itemsize: int) -> Iterator[Box]:
    """Boxes of at most `limit` elements in the target's order, where spans are short close together."""
    if _patched(box, itemsize):
        return cut_to_tiles(box, limit, 1, by_target_span=True)
    return cut_to_tiles(box, limit, max(1, SOURCE_RUN // itemsize))


def turn(values: torch.Tensor, out: torch.Tensor) -> None:
    """Copies `values` into the contiguous `out` of the same shape, and casts them to its dtype.

    torch turns a whole matrix of one dtype in blocks, at the speed of memory; any other strided copy goes
    element by element, at a tenth of it. So what is a stack of matrices is turned matrix by matrix.
    """
    axes = _matrix(values) if values.dtype == out.dtype else None
    if axes is None:
        out.copy_(values)
        return
    rows, columns = axes
    order = [axis for axis in range(values.dim()) if axis not in axes]
    values, out = values.permute(*order, rows, columns), out.permute(*order, rows, columns)
    _turn_each(values, out)


def _turn_each(values: torch.Tensor, out: torch.Tensor) -> None:
    if values.dim() > 2:
        for one, other in zip(values.unbind(), out.unbind(), strict=True):
            _turn_each(one, other)
    elif out.is_contiguous() and values.t().is_contiguous():
        out.copy_(values)
    else:
        # A matrix with gaps is closed up first; copying rows is cheap.
        out.copy_(values.t().contiguous().t())


def _matrix(values: torch.Tensor) -> tuple[int, int] | None:
    """The axes of the matrices to turn: the last one, and the one that is innermost in the source."""
    if values.dim() < 2 or values.stride(-1) == 1:
        return None
    inner = next((axis for axis in range(values.dim() - 1) if values.stride(axis) == 1), None)
    if inner is None or min(values.shape[inner], values.shape[-1]) < _SQUARE:
        return None
    return inner, values.dim() - 1


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
    span = move.buffers.take("patched", box.target_span * item)
    move.writer.read(span, offset)
    held = torch.frombuffer(span, dtype=_INTEGERS[item])
    fresh = torch.frombuffer(data, dtype=_INTEGERS[item]).view(box.shape)
    held.as_strided(box.shape, _strides(box), 0).copy_(fresh)
    move.writer.patch(offset, span, box.elements * item)


def _strides(box: Box) -> Sequence[int]:
    return [loop.target_stride for loop in box.loops]


def _patched(box: Box, itemsize: int) -> bool:
    length = run_length(packed(box))
    return box.elements != length and length * itemsize < SHORT_SPAN
