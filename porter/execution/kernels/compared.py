"""Comparing elements of two stored tensors that lie in different orders, or have different dtypes.

Elements of one dtype to which nothing is done are compared bit by bit. Otherwise values are compared: in
float64 as they are stored, in float32 after a check's operations; two NaNs are then equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from porter.containers.base import StoredTensor
from porter.errors import UnsupportedError
from porter.layout.copies import Loop, elements
from porter.planning.plan import EqualCheck, Operation
from porter.sources.base import SourceFile

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
    shape = [size for size, _ in steps]
    span = 1 + sum((size - 1) * stride for size, stride in steps)
    if span <= max(_LOOSE * int(np.prod(shape)), _CLOSE // item) or not steps:
        raw = bytearray(span * item)
        sources[tensor.file].read([memoryview(raw)], tensor.offset + start * item)
        return np.ndarray(shape, f"u{item}", raw, 0, [stride * item for _, stride in steps])
    widest = max(range(len(steps)), key=lambda axis: steps[axis][1])
    size, stride = steps[widest]
    rest = [*steps[:widest], *steps[widest + 1 :]]
    parts = (_words(tensor, start + step * stride, rest, sources) for step in range(size))
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
    import torch

    dtype = getattr(torch, tensor.dtype.torch or ("int8" if tensor.scales else ""), None)
    if not isinstance(dtype, torch.dtype) or tensor.dtype.kind == "complex":
        raise UnsupportedError(f"cannot compare {tensor.name!r}: it is {tensor.dtype.name}")
    # A contiguous array has a dim, whatever it was made of.
    words = np.ascontiguousarray(_words(tensor, start, steps, sources)).reshape([size for size, _ in steps])
    values = torch.from_numpy(words).view(dtype).to(torch.float32 if operated else torch.float64)
    if tensor.scales is not None:
        stored = tensors[tensor.scales]
        factors = _values(stored, 0, [(stored.elements, 1)], (), operated, tensors, sources)
        places: Array = np.array(start)
        for size, stride in steps:
            places = places[..., None] + np.arange(size) * stride
        rows = places // (tensor.elements // tensor.shape[0])
        values = (values.float() * torch.from_numpy(np.asarray(factors[rows])).float()).to(values.dtype)
    for operation in operations:
        values = values + operation.value if operation.kind == "add" else values * operation.value
    found: Array = values.numpy()
    return found
