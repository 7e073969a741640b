"""Copies of class compute: casts and value operations, elementwise and in bounded memory.

Operations are done in float32 and cast once, at the end; a cast alone goes straight from dtype to dtype.
Rounding is that of `porter.values.numbers` (to nearest, ties to even). A value that the target cannot hold is
an error, never an infinity. Quantised sources are dequantised first, to float32. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from porter.errors import UnsupportedError
from porter.execution.kernels.boxes import Box
from porter.execution.kernels.encoded import decoded
from porter.execution.kernels.gather import word
from porter.execution.kernels.move import Move
from porter.execution.kernels.ordered import ordered_pieces, turned_piece
from porter.execution.kernels.tiles import write_box
from porter.values.encodings import encoding_of
from porter.values.numbers import Numbers, Words, bits, from_bfloat16, numbers, out_of_range


def move_values(move: Move) -> None:
    """Runs the copy. Raises UnsupportedError for what is no plain number, and for values out of range."""
    if move.box.elements == 0:
        return
    if (move.source.dtype.name, move.target.dtype.name) == ("BF16", "F32") and not move.copy.operations:
        _widen(move)
        return
    if encoding_of(move.source.dtype) is not None:
        pieces = decoded(move, max(1, turned_piece(move.buffers.memory) // 4))
    else:
        pieces = _plain(move)
    target = move.target.dtype
    item = word(target.itemsize, move.label).itemsize
    lost = 0
    for box, values in pieces:
        for operation in move.copy.operations:
            values = operation.apply(values)
        data = move.buffers.take("turned", box.elements * item)
        made: Words = np.ndarray(box.shape, f"<u{item}", data)
        bits(values, target, made)
        wide = out_of_range(values, made, target)
        if wide.any() and not move.writer.takes_lost(move.target, int(wide.sum()), _first(box, wide)):
            lost += int(wide.sum())
        write_box(move, box, data, item)
    if lost:
        raise UnsupportedError(
            f"{lost} values of tensor {move.copy.source!r} do not fit {move.target.dtype.name}",
            cause=f"they are out of its range, on the way to {move.copy.target!r} in {move.target.file}",
            hint=f"keep the dtype, or ask for {'' if target.name == 'BF16' else 'bfloat16 or '}float32",
        )


def _widen(move: Move) -> None:
    """bfloat16 made float32, straight where it is written from: nothing can be lost."""
    for box, words in ordered_pieces(move, move.target.dtype.itemsize):
        data = move.buffers.take("turned", box.elements * move.target.dtype.itemsize)
        from_bfloat16(words, np.ndarray(box.shape, np.uint32, data))
        write_box(move, box, data, move.target.dtype.itemsize)


def _plain(move: Move) -> Iterator[tuple[Box, Numbers]]:
    """Boxes in the target's order, with their values or, to operate on, these in float32."""
    source = move.source.dtype
    widest = max(4, source.itemsize, move.target.dtype.itemsize)
    for box, words in ordered_pieces(move, widest):
        values = numbers(words, source)
        yield box, values.astype(np.float32, copy=False) if move.copy.operations else values


def _first(box: Box, chosen: NDArray[np.bool_]) -> int:
    """The first element of the target among those of a box that are chosen."""
    found = np.argwhere(chosen)
    strides = np.array([loop.target_stride for loop in box.loops], np.int64)
    return box.target + int((found @ strides).min())
