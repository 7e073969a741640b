"""Bits as numbers and numbers as bits, for every dtype whose elements are whole bytes, in NumPy.

Widening is exact. Narrowing rounds once, to nearest with ties to even, as torch's casts do (float64 becomes
float32 on the way, as it does there); what is out of range becomes an infinity or, where a dtype has none,
NaN, and `out_of_range` finds it. Tests hold all of it against torch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from porter.dtypes import Dtype
from porter.errors import UnsupportedError

Numbers = NDArray[Any]
Words = NDArray[Any]

# What NumPy has itself, by the names of headers.
_PLAIN: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip

# Floats of one byte: bits of the fraction, the exponent's bias, the words of infinity and NaN (0x80 where
# there is one zero), and whether zero has a sign.
_BYTES = {
    "F8_E4M3": (3, 7, 0x7F, True),
    "F8_E5M2": (2, 15, 0x7C, True),
    "F8_E4M3FNUZ": (3, 8, 0x80, False),
    "F8_E5M2FNUZ": (2, 16, 0x80, False),
}
_POWERS = "F8_E8M0"

# The bit of a bfloat16 that makes a NaN of an infinity.
_QUIET = 0x40

_NONE = np.zeros(1, np.bool_)

# Elements that are rounded at a time: what is held beside them stays in the processor's cache.
_STEP = 1 << 16


def numbers(words: Words, dtype: Dtype) -> Numbers:
    """What bits stand for: float32 of floats, float64 of float64, integers as they are.

    Raises UnsupportedError for what is no number of whole bytes.
    """
    plain = _PLAIN.get(dtype.name)
    if plain is not None:
        found: Numbers = words.view(plain)
        return _widened(found)
    if dtype.name == "BF16":
        return from_bfloat16(words, np.empty(words.shape, np.uint32)).view(np.float32)
    table: Numbers = _table(dtype)[words]
    return table


def from_bfloat16(words: Words, into: Words) -> Words:
    """The bits of float32 for those of bfloat16, which are their upper halves. NaNs keep what they hold."""
    into[...] = words
    into <<= 16
    return into


def bits(values: Numbers, dtype: Dtype, into: Words | None = None) -> Words:
    """The bits of numbers after one rounding, in `into` where that is given: unsigned integers."""
    found = np.empty(values.shape, f"<u{dtype.itemsize}") if into is None else into
    plain = _PLAIN.get(dtype.name)
    with np.errstate(over="ignore", invalid="ignore"):
        if plain is not None:
            if plain is np.float16 and values.dtype != np.float16:
                values = values.astype(np.float32, copy=False)
            found.view(plain)[...] = values
            return found
        values = values.astype(np.float32, copy=False)
    if dtype.name != "BF16" and dtype.name not in _BYTES:
        raise UnsupportedError(f"cannot compute with {dtype.name}")
    round_some = _to_bfloat16 if dtype.name == "BF16" else _to_byte
    if values.flags.c_contiguous and found.flags.c_contiguous:
        flat, out = values.reshape(-1), found.reshape(-1)
        for start in range(0, len(flat), _STEP):
            round_some(flat[start : start + _STEP], out[start : start + _STEP], dtype)
    else:
        found[...] = bits(np.ascontiguousarray(values), dtype)
    return found


def rounded(values: Numbers, dtype: Dtype) -> Numbers:
    """Numbers after one rounding: float64 for F64, else float32."""
    if dtype.name in ("F64", "F32"):
        with np.errstate(over="ignore"):
            exact: Numbers = values.astype(_PLAIN[dtype.name])
        return exact
    return numbers(bits(values, dtype), dtype)


def out_of_range(values: Numbers, words: Words, dtype: Dtype) -> NDArray[np.bool_]:
    """Which finite values have no finite counterpart, or, in an integer dtype, no equal one.

    One False stands for all.
    """
    if dtype.kind != "float":
        unequal: NDArray[np.bool_] = numbers(words, dtype).astype(values.dtype) != values
        return unequal
    if not values.size or (values.dtype == np.float32 and dtype.name in ("F32", "F64")):
        return _NONE
    # The extremes tell of an infinity or a NaN in a fraction of the time that looking at all takes.
    extremes = np.array([values.min(), values.max()])
    if np.isfinite(extremes).all() and np.isfinite(rounded(extremes, dtype)).all():
        return _NONE
    lost: NDArray[np.bool_] = np.isfinite(values) & ~np.isfinite(numbers(words, dtype))
    return lost


def _widened(values: Numbers) -> Numbers:
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _to_bfloat16(values: Numbers, out: Words, dtype: Dtype) -> None:
    words = values.view(np.uint32)
    upper = words >> 16
    upper &= 1
    upper += words
    upper += 0x7FFF
    upper >>= 16
    out[...] = upper
    if np.isnan(values.max(initial=-np.inf)):
        # What was widened comes back with what it holds; a NaN that holds nothing above stays one.
        odd = np.isnan(values)
        kept = words[odd] >> 16
        kept[kept & 0x7F == 0] |= _QUIET
        out[odd] = kept


def _to_byte(values: Numbers, out: Words, dtype: Dtype) -> None:
    _, _, odd, signed = _BYTES[dtype.name]
    sizes, halves = _steps(dtype)
    size = np.abs(values)
    found = np.searchsorted(halves, size).astype(np.uint8)
    # Half way between two: to the even one.
    tie = halves[np.minimum(found, len(halves) - 1)] == size
    found += tie & (found % 2 == 1)
    over, nan = found >= len(sizes), np.isnan(values)
    sign = np.signbit(values) & (signed | ((found > 0) & ~over & ~nan))
    found[over] = odd
    found[nan] = 0x80 if odd == 0x80 else 0x7F
    found[sign] |= 0x80
    out[...] = found


@cache
def _steps(dtype: Dtype) -> tuple[Numbers, Numbers]:
    """The finite values from zero up, and what lies half way to the next one of each."""
    every = _table(dtype)[:0x80]
    sizes = every[np.isfinite(every)]
    above = np.append(sizes[1:], 2 * sizes[-1] - sizes[-2])
    return sizes, ((sizes.astype(np.float64) + above) / 2).astype(np.float32)


@cache
def _table(dtype: Dtype) -> Numbers:
    """The values of all words of a byte."""
    word = np.arange(256)
    if dtype.name == _POWERS:
        return np.where(word == 255, np.nan, np.exp2(word - 127.0)).astype(np.float32)
    if dtype.name not in _BYTES:
        raise UnsupportedError(f"cannot compute with {dtype.name}")
    fraction, bias, odd, _ = _BYTES[dtype.name]
    size = word & 0x7F
    exponent, rest = size >> fraction, size & ((1 << fraction) - 1)
    normal = (1 + rest / (1 << fraction)) * np.exp2(exponent.astype(np.float64) - bias)
    values = np.where(exponent == 0, rest / (1 << fraction) * np.exp2(1.0 - bias), normal)
    if odd == 0x80:
        values[0x80] = np.nan
    else:
        values[size >= odd] = np.nan
        if dtype.name == "F8_E5M2":
            values[size == odd] = np.inf
    return np.where(word & 0x80, -values, values).astype(np.float32)
