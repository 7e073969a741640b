"""Values of encoded tensors, decoded piece by piece in the source's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from porter.containers.base import StoredTensor
from porter.errors import PorterError
from porter.execution.kernels.boxes import Box, cut_by_source_span
from porter.execution.kernels.move import Move
from porter.sources.base import SourceFile
from porter.values.encodings import Values, encoding_of
from porter.values.numbers import numbers

# Elements. Decoding makes several temporaries of the size of what it is given, which stay in the cache.
STEP = 1 << 16

Factors = tuple[StoredTensor, SourceFile]


def decoded(move: Move, limit: int) -> Iterator[tuple[Box, Values]]:
    """Boxes whose source spans at most `limit` elements, each with its float32 values."""
    take = move.buffers.take
    for box in cut_by_source_span(move.box, limit):
        values = decoded_range(
            move.source,
            move.reader,
            move.factors,
            box.source,
            box.source_span,
            lambda size: take("blocks", size),
        )
        strides = [loop.source_stride * values.itemsize for loop in box.loops]
        # Refuses what would leave the array.
        placed: Values = np.ndarray(box.shape, values.dtype, values, 0, strides)
        yield box, placed


def decoded_range(
    tensor: StoredTensor,
    reader: SourceFile,
    factors: Factors | None,
    start: int,
    count: int,
    take: Callable[[int], Any] = bytearray,
) -> Values:
    """The float32 values of `count` elements of an encoded tensor, from element `start` on.

    `take` gives room for that many bytes. Raises UnsupportedError for what cannot be decoded here.
    """
    dtype, encoding = tensor.dtype, encoding_of(tensor.dtype)
    if encoding is None:
        raise PorterError(f"{tensor.name!r} is not encoded", cause=f"it is {dtype.name}")
    unit = encoding.unit(dtype, tensor.shape)
    first, last = start // unit, -(-(start + count) // unit)
    values = np.empty((last - first) * unit, np.float32)
    step = max(1, STEP // unit)
    for begin in range(first, last, step):
        end = min(begin + step, last)
        raw = memoryview(take(dtype.nbytes((end - begin) * unit)))
        reader.read([raw], tensor.offset + dtype.nbytes(begin * unit))
        beside = _plain(*factors, begin, end) if factors is not None else None
        try:
            found = encoding.decode(raw, dtype, unit, beside)
        except PorterError as error:
            raise type(error)(
                f"{tensor.name!r}: {error.message}", cause=error.cause, hint=error.hint
            ) from None
        values[(begin - first) * unit : (end - first) * unit] = found
    return values[start - first * unit :][:count]


def _plain(stored: StoredTensor, reader: SourceFile, first: int, last: int) -> Values:
    """Elements of a tensor of plain floats, as float32."""
    item = stored.dtype.itemsize
    raw = bytearray((last - first) * item)
    reader.read([memoryview(raw)], stored.offset + first * item)
    return numbers(np.frombuffer(raw, f"<u{item}"), stored.dtype).astype(np.float32, copy=False)
