"""Reading a box of a source tensor into memory, in the source's order and with as few reads as it allows.

What is returned is a view in the box's own order. Elements are words of their size, so that every dtype of
1, 2, 4 or 8 bytes keeps its bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from porter.errors import UnsupportedError
from porter.execution.kernels.boxes import Box, cut_by_source_span
from porter.execution.kernels.move import Move
from porter.layout.copies import Loop, Run, coalesce, run_length, runs

# An array of unsigned integers, whatever it is that they hold the bits of.
Words = NDArray[Any]

# Bytes of source that are read at once where a box has too many gaps to be read whole.
SOURCE_SPAN = 4 << 20

# Bytes between the starts of two runs above which each is read alone: a call costs as much as this.
LONG_GAP = 16 << 10

# Bytes. Shorter runs are not worth a read of their own.
SHORT_RUN = 1 << 10

# Bytes of rows without gaps between them that are read at once and then set apart in memory, where a row has
# less than LONG_GAP: a view of each row for one call costs more than copying it while it is in the cache.
ROWS = 1 << 20

# Gaps up to this part of the data are read along.
LOOSE = 2

# Bytes of a line of the processor's cache.
LINE = 64

# Bytes. Rows at least this long are set an odd number of lines apart in memory: at a power of two, as a
# matrix has them, all elements of a column compete for a few places of the cache, and turning takes
# four times as long.
SPREAD = 1 << 10

# How many pieces of memory the system fills in one call (IOV_MAX).
_MOST_VIEWS = 1024

_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def word(itemsize: int, what: str) -> np.dtype[Any]:
    """The unsigned integer of that many bytes. Raises UnsupportedError where there is none."""
    found = _WORDS.get(itemsize)
    if found is None:
        raise UnsupportedError(f"{what}: elements of {itemsize} bytes cannot be transposed")
    return np.dtype(found)


def gather(move: Move, box: Box) -> Words:
    """The box's elements as an array of the box's shape; valid until the next call with the same buffers."""
    dtype = word(move.source.dtype.itemsize, move.label)
    item = dtype.itemsize
    start = move.source.offset + box.source * item
    into = _spread(box, item)
    pieces = coalesce(into.loops)
    if run_length(pieces) * item < SHORT_RUN and box.source_span <= LOOSE * box.elements:
        raw = move.buffers.take("read", box.source_span * item)
        move.reader.read([raw], start)
        return _view(raw, dtype, box, [loop.source_stride for loop in box.loops])
    raw = move.buffers.take("read", into.target_span * item)
    apart = box.source_span * item // max(1, box.elements // run_length(pieces))
    rows = box.source_span == box.elements and run_length(pieces) * item < LONG_GAP
    if rows:
        _from_spans(move, into, raw, dtype, ROWS)
    elif run_length(pieces) * item >= SHORT_RUN or apart >= LONG_GAP:
        _read_runs(move, runs(pieces), raw, start, item)
    else:
        _from_spans(move, into, raw, dtype, SOURCE_SPAN)
    return _view(raw, dtype, box, [loop.target_stride for loop in into.loops])


def _view(raw: memoryview, dtype: np.dtype[Any], box: Box, strides: Sequence[int], at: int = 0) -> Words:
    item = dtype.itemsize
    # Refuses what would leave the buffer.
    return np.ndarray(box.shape, dtype, raw, at * item, [stride * item for stride in strides])


def _read_runs(move: Move, pieces: Iterator[Run], raw: memoryview, start: int, item: int) -> None:
    """Reads runs into their places in `raw`; those that follow one another in the file in one call."""
    views: list[memoryview] = []
    first = end = 0
    for run in pieces:
        if views and (run.source != end or len(views) == _MOST_VIEWS):
            move.reader.read(views, start + first * item)
            views = []
        if not views:
            first = run.source
        views.append(raw[run.target * item : (run.target + run.length) * item])
        end = run.source + run.length
    if views:
        move.reader.read(views, start + first * item)


def _from_spans(move: Move, into: Box, raw: memoryview, dtype: np.dtype[Any], nbytes: int) -> None:
    """Runs too short to be read alone, too far apart to be read in one: spans of the source."""
    item = dtype.itemsize
    for part in cut_by_source_span(into, max(1, nbytes // item)):
        span = move.buffers.take("span", part.source_span * item)
        move.reader.read([span], move.source.offset + part.source * item)
        held = _view(raw, dtype, part, [loop.target_stride for loop in part.loops], part.target)
        held[...] = _view(span, dtype, part, [loop.source_stride for loop in part.loops])


def _spread(box: Box, item: int) -> Box:
    """The same elements on their way into memory: in the source's order, without gaps but between rows."""
    strides, step = [1] * len(box.loops), 1
    for axis in sorted(range(len(box.loops)), key=lambda axis: box.loops[axis].source_stride):
        strides[axis] = step
        step *= box.loops[axis].size
        if step * item >= SPREAD:
            step = (-(-step * item // LINE) | 1) * LINE // item
    loops = tuple(
        Loop(loop.size, loop.source_stride, stride) for loop, stride in zip(box.loops, strides, strict=True)
    )
    return Box(loops, box.source, 0)
