"""Encodings: how stored bytes that are no plain numbers become float32 values.

An encoding is told from a dtype alone. Its elements come in units that are decoded by themselves (a block of
GGUF, a row with its factor), so that pieces give the same bits as the whole. A new one is one more entry of
`_ENCODINGS`. All of them pass `tests/values/test_encodings.py`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from porter.dtypes import SCALED_I8, Dtype
from porter.errors import PorterError, UnsupportedError
from porter.system.extras import install_line

Values = NDArray[np.float32]


class Encoding(Protocol):
    """`factors` says whether a tensor beside it holds a factor for each unit."""

    factors: bool

    def holds(self, dtype: Dtype) -> bool:
        """Whether this is how tensors of the dtype are stored."""
        ...

    def unit(self, dtype: Dtype, shape: tuple[int, ...]) -> int:
        """Elements that are decoded together."""
        ...

    def require(self, dtype: Dtype) -> None:
        """Raises UnsupportedError where what decoding needs is not installed, or does not know the dtype."""
        ...

    def decode(self, data: memoryview, dtype: Dtype, unit: int, factors: Values | None) -> Values:
        """The values of whole units, one after the other. Raises PorterError and UnsupportedError."""
        ...


class _ScaledRows:
    """Whole numbers with one factor a row, as Google's int8 Gemma has them: their product, rounded once."""

    factors = True

    def holds(self, dtype: Dtype) -> bool:
        return dtype == SCALED_I8

    def unit(self, dtype: Dtype, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape[1:], dtype=np.int64))

    def require(self, dtype: Dtype) -> None:
        pass

    def decode(self, data: memoryview, dtype: Dtype, unit: int, factors: Values | None) -> Values:
        if factors is None:
            raise PorterError("no factors for the rows")
        values: Values = np.frombuffer(data, np.int8).astype(np.float32).reshape(len(factors), unit)
        values *= factors[:, None]
        return values.reshape(-1)


class _Blocks:
    """Quantised blocks of GGUF: the arithmetic is the gguf package's, float32 throughout."""

    factors = False

    def holds(self, dtype: Dtype) -> bool:
        return dtype.quantised and dtype != SCALED_I8

    def unit(self, dtype: Dtype, shape: tuple[int, ...]) -> int:
        return dtype.block

    def require(self, dtype: Dtype) -> None:
        _gguf(dtype)

    def decode(self, data: memoryview, dtype: Dtype, unit: int, factors: Values | None) -> Values:
        quants, kind = _gguf(dtype)
        try:
            # Odd scales give infinities and NaNs, which are kept, here as in every other reader.
            with np.errstate(all="ignore"):
                values: Values = quants.dequantize(np.frombuffer(data, np.uint8)[None, :], kind)[0]
        except NotImplementedError:
            raise UnsupportedError(f"gguf cannot dequantise {dtype.name}") from None
        return values


# In the order in which they are asked.
_ENCODINGS: tuple[Encoding, ...] = (_ScaledRows(), _Blocks())


def encoding_of(dtype: Dtype) -> Encoding | None:
    """How tensors of the dtype are encoded; None for plain numbers."""
    return next((encoding for encoding in _ENCODINGS if encoding.holds(dtype)), None)


def _gguf(dtype: Dtype) -> tuple[Any, Any]:
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError:
        raise UnsupportedError(
            f"{dtype.name} needs the gguf package to be dequantised",
            hint=f"{install_line('gguf')} (the extra gguf)",
        ) from None
    kind = getattr(GGMLQuantizationType, dtype.name, None)
    if kind is None:
        raise UnsupportedError(f"gguf does not know {dtype.name}")
    return quants, kind
