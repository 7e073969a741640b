"""A copy's elements in bounded pieces, each in the target's order, for what changes values on the way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from porter.execution.kernels.boxes import Box
from porter.execution.kernels.gather import Words, gather
from porter.execution.kernels.move import Move
from porter.execution.kernels.tiles import PARTS, target_boxes, turn
from porter.layout.copies import run_length

# Bytes of a piece in its widest dtype, where values are changed on the way and keep their order: pieces that
# stay in the processor's cache are cast faster than the disk takes them.
PIECE = 1 << 20

# The same for pieces that are turned too, which have to be large for long runs, and for dequantised ones.
TURNED_PIECE = 16 << 20


def turned_piece(memory: int) -> int:
    """Bytes of a piece that is turned and changed, where the buffers may take `memory` bytes."""
    return min(TURNED_PIECE, memory // (2 * PARTS))


def ordered_pieces(move: Move, widest: int) -> Iterator[tuple[Box, Words]]:
    """Boxes of the target with their elements, as stored; `widest` is the most bytes one takes on the way.

    What has another order in the source is turned as it is stored, which is fast, so that what follows goes
    straight. The elements are valid until the next piece.
    """
    straight = run_length(move.box.loops) == move.box.elements
    piece = PIECE if straight else turned_piece(move.buffers.memory)
    for box in target_boxes(move.box, max(1, piece // widest), move.target.dtype.itemsize):
        words = gather(move, box)
        if not straight:
            order: Words = np.ndarray(box.shape, words.dtype, move.buffers.take("order", words.nbytes))
            turn(words, order)
            words = order
        yield box, words
