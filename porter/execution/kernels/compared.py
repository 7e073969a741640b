"""Comparing elements of two stored tensors that lie in different orders, or have different dtypes.

Elements of one dtype to which nothing is done are compared bit by bit. Otherwise values are compared: in
float64 as they are stored, in float32 after a check's operations; two NaNs are then equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from porter.containers.base import StoredTensor
from porter.errors import UnsupportedError
from porter.layout.copies import Loop, elements
from porter.planning.plan import EqualCheck
from porter.sources.base import SourceFile
from porter.values.encodings import encoding_of
from porter.values.numbers import numbers
from porter.values.operations import Operation

# Elements that are compared at a time.
CHUNK = 4 << 20

# What lies this much farther apart than its elements take is read run by run.
_LOOSE = 2

# Bytes. What lies this close is read at once all the same.
_CLOSE = 16 << 10

Sources = Mapping[str, SourceFile]
Array = NDArray[Any]


def compare_values(check: EqualCheck, tensors: Mapping[str, StoredTensor], sources: Sources) -> str | None:
    """Where elements differ, in words, and what they are; None if all are equal."""
    kept, dropped = tensors[check.kept], tensors[check.dropped]
    exact = kept.dtype == dropped.dtype and not (check.kept_operations or check.dropped_operations)
    exact = exact and kept.scales is None and dropped.scales is None and kept.dtype.block == 1
    for loops, one, two in _chunks(check.loops, check.kept_offset, check.dropped_offset):
        sides = (
            (kept, one, [(loop.size, loop.source_stride) for loop in loops], check.kept_operations),
            (dropped, two, [(loop.size, loop.target_stride) for loop in loops], check.dropped_operations),
        )
        if exact:
            ours, theirs = (_words(t, at, steps, sources) for t, at, steps, _ in sides)
            same = ours == theirs
        else:
            operated = bool(check.kept_operations or check.dropped_operations)
            ours, theirs = (
                _values(tensor, at, steps, operations, operated, tensors, sources)
                for tensor, at, steps, operations in sides
            )
            same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        if not same.all():
            at = np.unravel_index(np.argmin(same), same.shape)
            place = one + sum(int(i) * loop.source_stride for i, loop in zip(at, loops, strict=True))
            found = "" if exact else f": {ours[at]} against {theirs[at]}"
            return f"their values differ at element {place} of {kept.name!r}{found}"
    return None


def _chunks(loops: Sequence[Loop], one: int, two: int) -> Iterator[tuple[list[Loop], int, int]]:
    """Parts of a loop nest of at most CHUNK elements each, as square as may be: long runs on either side."""
    if elements(loops) <= CHUNK:
        yield list(loops), one, two
        return
    longest = max(range(len(loops)), key=lambda axis: loops[axis].size)
    loop = loops[longest]
    half = loop.size // 2
    for begin, size in ((0, half), (half, loop.size - half)):
        part = [*loops[:longest], loop._replace(size=size), *loops[longest + 1 :]]
        yield from _chunks(part, one + begin * loop.source_stride, two + begin * loop.target_stride)


def _words(tensor: StoredTensor, start: int, steps: list[tuple[int, int]], sources: Sources) -> Array:
    """Elements as unsigned integers of their size, in the order of `steps` (size, stride)."""
    item = tensor.dtype.itemsize

    def read(at: int, count: int) -> Array:
        raw = bytearray(count * item)
        sources[tensor.file].read([memoryview(raw)], tensor.offset + at * item)
        return np.frombuffer(raw, f"u{item}")

    return _gathered(read, start, steps, _CLOSE // item)


def _gathered(
    read: Callable[[int, int], Array], start: int, steps: list[tuple[int, int]], close: int
) -> Array:
    """Elements in the order of `steps`; `read` gives a range of them. Spans of `close` are read at once."""
    shape = [size for size, _ in steps]
    span = 1 + sum((size - 1) * stride for size, stride in steps)
    if span <= max(_LOOSE * int(np.prod(shape)), close) or not steps:
        flat = read(start, span)
        return np.ndarray(shape, flat.dtype, flat, 0, [stride * flat.itemsize for _, stride in steps])
    widest = max(range(len(steps)), key=lambda axis: steps[axis][1])
    size, stride = steps[widest]
    rest = [*steps[:widest], *steps[widest + 1 :]]
    parts = (_gathered(read, start + step * stride, rest, close) for step in range(size))
    return np.stack(list(parts), axis=widest)


def _values(
    tensor: StoredTensor,
    start: int,
    steps: list[tuple[int, int]],
    operations: Sequence[Operation],
    operated: bool,
    tensors: Mapping[str, StoredTensor],
    sources: Sources,
) -> Array:
    found = _encoded(tensor, start, steps, tensors, sources)
    if found is None:
        found = _plain(tensor, start, steps, sources, operated)
    values = found.astype(np.float32 if operated else np.float64)
    for operation in operations:
        values = operation.apply(values)
    return values


def _encoded(
    tensor: StoredTensor,
    start: int,
    steps: list[tuple[int, int]],
    tensors: Mapping[str, StoredTensor],
    sources: Sources,
) -> Array | None:
    """The values of an encoded tensor, in float32; None where its elements are plain numbers."""
    if encoding_of(tensor.dtype) is None:
        return None
    from porter.execution.kernels.encoded import decoded_range

    factors = None
    if tensor.scales is not None:
        factors = tensors[tensor.scales], sources[tensors[tensor.scales].file]
    reader = sources[tensor.file]
    return _gathered(lambda at, count: decoded_range(tensor, reader, factors, at, count), start, steps, 1)


def _plain(
    tensor: StoredTensor, start: int, steps: list[tuple[int, int]], sources: Sources, narrow: bool
) -> Array:
    """The values of plain numbers, in float32 where that is asked for, else in float64."""
    words = np.ascontiguousarray(_words(tensor, start, steps, sources))
    try:
        found: Array = numbers(words, tensor.dtype)
    except UnsupportedError as error:
        raise UnsupportedError(f"cannot compare {tensor.name!r}: it is {tensor.dtype.name}") from error
    # A contiguous array has a dim, whatever it was made of.
    return found.astype(np.float32 if narrow else np.float64).reshape([size for size, _ in steps])
