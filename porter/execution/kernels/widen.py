"""bfloat16 made float32, without torch: a bfloat16 is the upper half of the float32 of the same value.

The bits are shifted, so every value is exact, and NaNs keep what they hold, as in torch's own cast.
"""

from __future__ import annotations

import numpy as np

from porter.execution.kernels.gather import Words
from porter.execution.kernels.move import Move
from porter.execution.kernels.ordered import ordered_pieces
from porter.execution.kernels.tiles import write_box

_UPPER_HALF = 16


def widens(move: Move) -> bool:
    """Whether a copy is of this kind, and nothing else is done to its values."""
    kinds = (move.source.dtype.name, move.target.dtype.name)
    return kinds == ("BF16", "F32") and not move.copy.operations and move.factors is None


def move_widened(move: Move) -> None:
    """Runs the copy."""
    if move.box.elements == 0:
        return
    item = move.target.dtype.itemsize
    for box, words in ordered_pieces(move, item):
        data = move.buffers.take("turned", box.elements * item)
        wide: Words = np.ndarray(box.shape, np.uint32, data)
        wide[...] = words
        wide <<= _UPPER_HALF
        write_box(move, box, data, item)
