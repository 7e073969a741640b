"""Copies of class tile: real transposes, in bounded tiles.

A tile is read into memory in the source's order, each of its pages once. It is turned in strips that stay in
the processor's cache until they are summed and written, in the target's order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from porter.execution.kernels.boxes import Box, cut_to_tiles, packed, parts
from porter.execution.kernels.gather import LINE, Words, gather, word
from porter.execution.kernels.move import Move
from porter.layout.copies import run_length, runs

# Bytes of one tile. Larger ones are no faster.
TILE = 64 << 20

# Bytes of a strip of a tile.
STRIP = 1 << 20

# What is held beside a tile: its rows are set apart, and what is turned is patched into what was there.
PARTS = 4

# Bytes of a run in the source below which a tile is not made narrower: a page is read whole anyway.
SOURCE_RUN = 4 << 10

# Bytes. Spans of the target shorter than a page are put together in memory and written at once.
SHORT_SPAN = 4 << 10

# Where the gaps are this many times larger than the data, reading all of it costs more than it saves.
SPARSE = 64

# Elements that are turned at once: so many of the source's rows, so many elements of each.
BLOCK_ROWS, BLOCK_COLUMNS = 512, 256

# Elements of each side of a matrix below which a loop over all elements is faster than one over blocks.
_LEAST_SIDE = 8


def move_tiles(move: Move) -> None:
    """Runs the copy. Raises UnsupportedError for elements that are not 1, 2, 4 or 8 bytes."""
    item = word(move.source.dtype.itemsize, move.label).itemsize
    if move.box.elements == 0:
        return
    for box in target_boxes(move.box, tile_elements(move, item), item):
        for strip, values in _strips(box, gather(move, box)):
            data = move.buffers.take("turned", strip.elements * item)
            turn(values, np.ndarray(strip.shape, values.dtype, data))
            write_box(move, strip, data, item)


def _strips(box: Box, values: Words) -> Iterator[tuple[Box, Words]]:
    """Parts of a tile with their values, in the target's order; what is patched stays in one part."""
    item = values.itemsize
    axis = next((axis for axis, loop in enumerate(box.loops) if loop.size > 1), None)
    if axis is None or box.elements * item <= STRIP or _patched(box, item):
        yield box, values
        return
    step = box.elements // box.loops[axis].size * item
    # Of a line of the cache that is read, all is used.
    least = LINE // item if box.loops[axis].source_stride == 1 else 1
    start = 0
    for part in parts(box, axis, max(STRIP // step, least)):
        size = part.loops[axis].size
        piece = values[(slice(None),) * axis + (slice(start, start + size),)]
        start += size
        if size > 1:
            yield part, piece
        else:
            yield from _strips(part, piece)


def tile_elements(move: Move, item: int) -> int:
    """How many elements of `item` bytes one tile may have."""
    return max(1, min(TILE, move.buffers.memory // PARTS) // item)


def target_boxes(box: Box, limit: int, itemsize: int) -> Iterator[Box]:
    """Boxes of at most `limit` elements in the target's order, where spans are short close together."""
    if _patched(box, itemsize):
        return cut_to_tiles(box, limit, 1, by_target_span=True)
    return cut_to_tiles(box, limit, max(1, SOURCE_RUN // itemsize))


def turn(values: Words, out: Words) -> None:
    """Copies `values` into the contiguous `out` of the same shape and dtype, block by block."""
    axes = _matrix(values)
    if axes is None:
        out[...] = values
        return
    order = [axis for axis in range(values.ndim) if axis not in axes]
    values, out = values.transpose(*order, *axes), out.transpose(*order, *axes)
    for index in np.ndindex(values.shape[:-2]):
        _turn_matrix(values[index], out[index])


def _turn_matrix(values: Words, out: Words) -> None:
    for column in range(0, values.shape[0], BLOCK_COLUMNS):
        for row in range(0, values.shape[1], BLOCK_ROWS):
            block = np.s_[column : column + BLOCK_COLUMNS, row : row + BLOCK_ROWS]
            out[block] = values[block]


def _matrix(values: Words) -> tuple[int, int] | None:
    """The axes of the matrices to turn: the one that is innermost in the source, and the last one."""
    if values.ndim < 2 or values.strides[-1] == values.itemsize:
        return None
    inner = next((axis for axis in range(values.ndim - 1) if values.strides[axis] == values.itemsize), None)
    if inner is None or min(values.shape[inner], values.shape[-1]) < _LEAST_SIDE:
        return None
    return inner, values.ndim - 1


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
    strides = [loop.target_stride * item for loop in box.loops]
    dtype = word(item, move.label)
    held: Words = np.ndarray(box.shape, dtype, span, strides=strides)
    held[...] = np.ndarray(box.shape, dtype, data)
    move.writer.patch(offset, span, box.elements * item)


def _patched(box: Box, itemsize: int) -> bool:
    length = run_length(packed(box))
    return box.elements != length and length * itemsize < SHORT_SPAN
