"""How tensors differ in numbers, as a sink: each tensor that a plan makes, against the same of another model.

Both sides are of one dtype. Sums are taken in float64, over parts that stay small; nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from porter.containers.base import OutputFile, StoredTensor
from porter.errors import UnsupportedError
from porter.execution.sinks.tensors import TensorSink, TensorWriter
from porter.execution.writers import Writer

Numbers = NDArray[Any]

# The other side's bytes of elements (from, to) of a tensor.
Read = Callable[[str, int, int], memoryview]

# Elements that are compared at once: their numbers in float64 stay in the processor's cache.
_PART = 64 << 10

# Rows and columns of the difference that its rank is told from; how far a singular value has to stand out
# from the middle one to count; and what factor between two of them is a gap.
CORNER = 192
_STANDS_OUT = 8
_GAP = 2.0

# The largest rank that is called low, as a share of the corner's side; what it has to explain of the
# difference; and the share of elements that have to differ, since few values are of low rank by themselves.
_LOW, _EXPLAINS, _MANY = 0.34, 0.5, 0.05

_NUMPY = {
    "F64": "f8",
    "F32": "f4",
    "BOOL": "u1",
    **{f"{k}{n}": f"{k.lower()}{n // 8}" for k in "IU" for n in (8, 16, 32, 64)},
}


@dataclass
class Statistics:
    """`elements` were compared, of which `differing` differ by more than the tolerance, the first at `first`
    in row-major order with the two values `pair`. `largest` and `total` are of |a - b|, over finite numbers;
    `square`, `own`, `other`, `product` the sums of (a - b)², a², b² and a·b. `odd` elements are NaN or
    infinite on one side alone, or differ in that. `rank` is that of the difference, where it is low, and
    `explains` the share of the difference that it holds.
    """

    elements: int = 0
    differing: int = 0
    first: int | None = None
    pair: tuple[float, float] = (0.0, 0.0)
    largest: float = 0.0
    total: float = 0.0
    square: float = 0.0
    own: float = 0.0
    other: float = 0.0
    product: float = 0.0
    odd: int = 0
    rank: int | None = None
    explains: float = 0.0
    corner: Corner | None = field(default=None, repr=False)

    def add(self, a: Numbers, b: Numbers, start: int, atol: float, rtol: float) -> None:
        """Takes elements from index `start` on, as float64."""
        with np.errstate(invalid="ignore", over="ignore"):
            delta = a - b
            distance = np.abs(delta)
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            within = same | (distance <= atol + rtol * np.abs(b))
        finite = np.isfinite(distance)
        self.odd += int(np.count_nonzero(~finite & ~same))
        self.elements += len(a)
        places = np.flatnonzero(~within)
        if len(places):
            self.differing += len(places)
            if self.first is None:
                at = int(places[0])
                self.first, self.pair = start + at, (float(a[at]), float(b[at]))
        if not finite.all():
            a, b, delta, distance = (np.where(finite, values, 0.0) for values in (a, b, delta, distance))
        self.largest = max(self.largest, float(distance.max(initial=0.0)))
        self.total += float(distance.sum())
        self.square += float(delta @ delta)
        self.own += float(a @ a)
        self.other += float(b @ b)
        self.product += float(a @ b)
        if self.corner is not None:
            self.corner.add(delta, start)

    def add_equal(self, values: Numbers) -> bool:
        """Takes elements that are the same on both sides; False, and nothing, where one is not finite."""
        square = float(values @ values) if values.dtype.kind == "f" else math.inf
        if not math.isfinite(square):
            return False
        self.elements += len(values)
        self.own, self.other, self.product = self.own + square, self.other + square, self.product + square
        return True

    def finish(self) -> None:
        """All elements have come: the rank is found out."""
        if self.corner is not None and self.differing >= _MANY * self.elements and not self.odd:
            found = low_rank(self.corner.values)
            if found is not None:
                self.rank, self.explains = found
        self.corner = None


class Corner:
    """Elements of the difference of two matrices: evenly spaced rows and columns."""

    def __init__(self, rows: int, columns: int) -> None:
        down = np.unique(np.linspace(0, rows - 1, min(CORNER, rows)).astype(np.int64))
        along = np.unique(np.linspace(0, columns - 1, min(CORNER, columns)).astype(np.int64))
        self._places = (down[:, None] * columns + along[None, :]).ravel()
        self._found = np.zeros(len(self._places))
        self._shape = len(down), len(along)

    @property
    def values(self) -> Numbers:
        return self._found.reshape(self._shape)

    def add(self, delta: Numbers, start: int) -> None:
        low, high = np.searchsorted(self._places, [start, start + len(delta)])
        self._found[low:high] = delta[self._places[low:high] - start]


def low_rank(matrix: Numbers) -> tuple[int, float] | None:
    """The rank of a matrix but for noise, and the share of its squares that it explains; None if not low."""
    values = np.linalg.svd(matrix, compute_uv=False)
    if not values[0] > 0:
        return None
    floor = max(float(np.median(values)) * _STANDS_OUT, float(values[0]) * 1e-6)
    rank = int(np.count_nonzero(values > floor))
    if rank > 1:
        # Rounding is no even noise, and its own largest values may stand out: the widest gap decides.
        gaps = values[:rank] / np.maximum(np.append(values, 0.0)[1 : rank + 1], np.finfo(np.float64).tiny)
        widest = int(np.argmax(gaps)) + 1
        rank = widest if gaps[widest - 1] >= _GAP else rank
    share = float((values[:rank] ** 2).sum() / (values**2).sum())
    return (rank, share) if 0 < rank <= _LOW * len(values) and share >= _EXPLAINS else None


class StatisticsWriter(TensorWriter):
    def __init__(self, file: OutputFile, sink: StatisticsSink) -> None:
        super().__init__(file)
        self._sink = sink

    def take(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        self._sink.compare(tensor, start // tensor.dtype.itemsize, data)


class StatisticsSink(TensorSink):
    """`other` reads the other side; of each tensor the first `counts` elements are compared.

    Elements are within tolerance where |a - b| ≤ atol + rtol · |b|. `found` is there after `commit`.
    """

    ordered = True

    def __init__(self, other: Read, counts: Mapping[str, int], atol: float = 0.0, rtol: float = 0.0) -> None:
        super().__init__()
        self._other, self._counts, self._atol, self._rtol = other, counts, atol, rtol
        self._sums: dict[str, Statistics] = {}
        self.found: dict[str, Statistics] = {}

    def writer(self, file: OutputFile) -> Writer:
        return StatisticsWriter(file, self)

    def compare(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        dtype = _NUMPY.get(tensor.dtype.name)
        if dtype is None:
            raise UnsupportedError(f"{tensor.name} holds no numbers to compare", cause=tensor.dtype.name)
        item, limit = tensor.dtype.itemsize, self._counts[tensor.name]
        sums = self._sums.get(tensor.name)
        if sums is None:
            sums = self._sums[tensor.name] = Statistics(corner=_corner(tensor.shape))
        stop = min(start + len(data) // item, limit)
        for low in range(start, stop, _PART):
            high = min(low + _PART, stop)
            one = np.frombuffer(data, dtype, high - low, (low - start) * item)
            other = np.frombuffer(self._other(tensor.name, low, high), dtype)
            if not (np.array_equal(one.view(f"u{item}"), other.view(f"u{item}")) and sums.add_equal(one)):
                sums.add(one.astype(np.float64), other.astype(np.float64), low, self._atol, self._rtol)
        if sums.elements == limit:
            sums.finish()

    def commit(self) -> None:
        self.found = dict(self._sums)


def _corner(shape: tuple[int, ...]) -> Corner | None:
    """Of a matrix, whose rows run over all axes but the last, where a low rank can mean something."""
    if len(shape) < 2 or min(math.prod(shape[:-1]), shape[-1]) < 16:
        return None
    return Corner(math.prod(shape[:-1]), shape[-1])
