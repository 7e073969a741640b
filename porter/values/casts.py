"""Casts between float32, float16 and bfloat16, by integers and NumPy: torch takes some 200 MB to be imported.

A bfloat16 is the upper half of the float32 of the same value, so widening shifts its bits. Narrowing rounds
once, to nearest with ties to even, as torch does. A NaN stays one and keeps its sign and what fits of its
content, so that what was widened comes back as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from porter.dtypes import Dtype
from porter.values.operations import Operation

# Elements that are cast at a time: with what is between they stay in the processor's second cache.
BLOCK = 1 << 14

# Magnitudes, as bits of float32: infinity, above which are the NaNs, and those from which on a finite value
# has no finite counterpart: half a step above the largest one.
_INFINITY = 0x7F800000
_OVERFLOW = {"BF16": 0x7F7F8000, "F16": 0x477FF000}

_MAGNITUDE = 0x7FFFFFFF
_SIGN = 0x80000000

# What makes a NaN of a bfloat16 whose other bits of content are zero.
_QUIET = 0x40

_FLOATS = ("F32", "F16", "BF16")

# Unsigned integers of an element's size, whatever it is that they hold the bits of.
Words = NDArray[Any]
Floats = NDArray[np.float32]


def can_cast(source: Dtype, target: Dtype) -> bool:
    """Whether `cast` knows both dtypes."""
    return source.name in _FLOATS and target.name in _FLOATS


def cast(words: Words, source: Dtype, target: Dtype, out: Words, operations: Sequence[Operation] = ()) -> int:
    """Casts flat, contiguous elements into `out`, after the operations, which are done in float32.

    Returns how many finite values `target` cannot hold: they are infinities in `out`.
    """
    if source == target and not operations:
        out[...] = words
        return 0
    lost = 0
    room = np.empty(min(BLOCK, len(words)), np.float32)
    for start in range(0, len(words), BLOCK):
        piece, into = words[start : start + BLOCK], out[start : start + BLOCK]
        if target.name == "F32" and not operations:
            to_float32(piece, source, into.view(np.float32))
            continue
        values = to_float32(piece, source, room[: len(piece)])
        # Infinities that an operation makes are the float32 that it is done in.
        with np.errstate(all="ignore"):
            for operation in operations:
                values = operation.apply(values)
        lost += _narrow(values, target, into)
    return lost


def to_float32(words: Words, dtype: Dtype, room: Floats | None = None) -> Floats:
    """The exact values of elements of one of the three dtypes, in `room` unless they are there already."""
    if dtype.name == "F32":
        return words.view(np.float32)
    if room is None:
        room = np.empty(words.shape, np.float32)
    if dtype.name == "F16":
        room[...] = words.view(np.float16)
        return room
    wide = room.view(np.uint32)
    wide[...] = words
    wide <<= 16
    return room


def _narrow(values: Floats, dtype: Dtype, out: Words) -> int:
    """Rounds values into `out`; how many finite ones became infinities."""
    bits = values.view(np.uint32)
    if dtype.name == "F32":
        out[...] = bits
        return 0
    overflow = _OVERFLOW[dtype.name]
    # Two extremes tell of all that is special in a third of the time that looking at each element takes.
    special = int(bits.view(np.int32).max()) >= overflow or int(bits.max()) >= overflow | _SIGN
    if dtype.name == "F16":
        with np.errstate(all="ignore"):
            out.view(np.float16)[...] = values
    else:
        _round_to_bfloat16(bits, out)
    if not special:
        return 0
    magnitudes = bits & _MAGNITUDE
    if dtype.name == "BF16":
        # Rounding up would have carried some into the sign.
        nans = magnitudes > _INFINITY
        upper = bits[nans] >> 16
        out[nans] = np.where(upper & 0x7F, upper, upper | _QUIET)
    return int(np.count_nonzero((magnitudes >= overflow) & (magnitudes < _INFINITY)))


def _round_to_bfloat16(bits: Words, out: Words) -> None:
    """The upper halves after adding just under half of what the last of their bits is worth, or half of it
    where that bit is set: a carry is the rounding up.
    """
    sums = bits >> 16
    sums &= 1
    sums += 0x7FFF
    sums += bits
    sums >>= 16
    np.copyto(out, sums, casting="unsafe")
