"""A comparison as a sink: each tensor that a plan makes, against the one that is already there."""

from __future__ import annotations

import threading
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from porter.containers.base import OutputFile, StoredTensor
from porter.errors import PorterError
from porter.execution.open_files import OpenFiles
from porter.execution.row_major import read_row_major
from porter.execution.sinks.tensors import TensorSink, TensorWriter
from porter.execution.writers import Writer
from porter.sources.base import FarFile, SourceFile
from porter.sources.read_ahead import ReadAhead
from porter.values.numbers import numbers

# Bytes of the other side that are read at a time.
PIECE = 1 << 20

# Bytes of elements that NumPy compares as one.
_WORDS = (1, 2, 4, 8)

# Element ranges of a tensor (from, to) that may hold anything.
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Differing:
    """A tensor that is not as it should be: how many of its elements differ, and the first that does.

    `largest` is the largest |difference|, and `scale` the largest |value| that should stand in the pieces of
    the tensor that differ; both are of what is finite.
    """

    elements: int
    first: int
    largest: float = 0.0
    scale: float = 0.0

    def joined(self, other: Differing) -> Differing:
        """Of another part of the same tensor as well."""
        return Differing(
            self.elements + other.elements,
            min(self.first, other.first),
            max(self.largest, other.largest),
            max(self.scale, other.scale),
        )


class CompareWriter(TensorWriter):
    def __init__(self, file: OutputFile, sink: CompareSink) -> None:
        super().__init__(file)
        self._sink = sink

    def take(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        for begin in range(0, len(data), PIECE):
            self._sink.compare(tensor, start + begin, data[begin : begin + PIECE])

    def lost(self, tensor: StoredTensor, count: int, first: int) -> None:
        self._sink.lose(tensor, count, first)


class CompareSink(TensorSink):
    """`there` are the tensors to compare with, by the plan's names, and `files` the files that they lie in.

    They have to have the plan's shapes, and its dtypes, or be quantised where the plan has float32; whoever
    calls has seen to it. Of tensors in `by_value`, whose values were computed, the two zeros are equal, and
    so are all NaNs; of others, bits are. `unused` are elements that may hold anything, by tensor, `stored`
    the port's factors of rows. Writes nothing. After the run `differing` holds the tensors that differ, and
    `lost` those some of whose values are out of the range of the dtype: how many, and the first one. These
    differ, whatever stands there.
    """

    def __init__(
        self,
        there: Mapping[str, StoredTensor],
        files: OpenFiles,
        *,
        by_value: Container[str] = (),
        unused: Mapping[str, Ranges] | None = None,
        stored: Mapping[str, StoredTensor] | None = None,
    ) -> None:
        super().__init__()
        self._there, self._files = there, files
        # What is far is read ahead, which two threads in one tensor would do twice.
        self.ordered = not files.source.near
        self._by_value, self._unused, self._stored = by_value, unused or {}, stored or {}
        self._found: dict[str, Differing] = {}
        self._lock = threading.Lock()
        self._buffers = threading.local()
        self.differing: dict[str, Differing] = {}
        self.lost: dict[str, Differing] = {}

    def writer(self, file: OutputFile) -> Writer:
        for tensor in file.tensors:
            other = self._there.get(tensor.name)
            same = other is not None and other.shape == tensor.shape
            if same and other is not None and other.dtype.quantised:
                same = tensor.dtype.name == "F32"
            elif other is not None:
                same = same and other.dtype == tensor.dtype
            if not same:
                raise PorterError(f"{tensor.name!r} has no counterpart of its dtype and shape")
        return CompareWriter(file, self)

    def compare(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        found = self._buffer()[: len(data)]
        there = self._there[tensor.name]
        read_row_major(there, start, found, self._near(there), self._stored)
        # Bytes compare as memory; memoryviews of them item by item.
        if np.array_equal(np.frombuffer(found, np.uint8), np.frombuffer(data, np.uint8)):
            return
        item = max(1, tensor.dtype.block_bytes)
        part = _unequal(tensor, item, start, data, found, by_value=tensor.name in self._by_value)
        first = start // item
        for low, high in self._unused.get(tensor.name, ()):
            part[max(0, low - first) : max(0, high - first)] = False
        elements = np.flatnonzero(part)
        if not len(elements):
            return
        made = Differing(len(elements), first + int(elements[0]), *_apart(tensor, data, found, part))
        with self._lock:
            _add(self._found, tensor.name, made)

    def lose(self, tensor: StoredTensor, count: int, first: int) -> None:
        """Notes values that are out of range."""
        with self._lock:
            _add(self.lost, tensor.name, Differing(count, first))

    def _near(self, there: StoredTensor) -> Mapping[str, SourceFile]:
        """The port's files; a far one is read ahead, as this thread goes through a tensor front to back."""
        file = self._files[there.file]
        if not isinstance(file, FarFile):
            return self._files
        held: tuple[str, ReadAhead] | None = getattr(self._buffers, "ahead", None)
        if held is None or held[0] != there.name:
            if held is not None:
                held[1].close()
            end = there.offset + there.dtype.nbytes(there.span)
            held = self._buffers.ahead = there.name, ReadAhead(file, there.offset, end)
        return {there.file: held[1], **{name: self._files[name] for name in self._scales(there)}}

    def _scales(self, there: StoredTensor) -> list[str]:
        return [] if there.scales is None else [self._stored[there.scales].file]

    def _buffer(self) -> memoryview:
        """Memory of this thread; fresh memory costs as much time as what is done in it."""
        held: memoryview | None = getattr(self._buffers, "held", None)
        if held is None:
            held = self._buffers.held = memoryview(bytearray(PIECE))
        return held

    def commit(self) -> None:
        self.differing = {**self.lost, **self._found}


def _add(found: dict[str, Differing], name: str, made: Differing) -> None:
    before = found.get(name)
    found[name] = made if before is None else before.joined(made)


def _unequal(
    tensor: StoredTensor, item: int, start: int, data: memoryview, found: memoryview, *, by_value: bool
) -> NDArray[np.bool_]:
    """Which elements differ, from the one on that byte `start` lies in."""
    whole = start % item == 0 and len(data) % item == 0
    if whole and item in _WORDS:
        ours, theirs = (np.frombuffer(view, f"<u{item}") for view in (data, found))
        unlike: NDArray[np.bool_] = ours != theirs
        if by_value:
            expected, values = numbers(ours, tensor.dtype), numbers(theirs, tensor.dtype)
            unlike = (expected != values) & ~(np.isnan(expected) & np.isnan(values))
        return unlike
    unequal = np.frombuffer(found, np.uint8) != np.frombuffer(data, np.uint8)
    part = np.zeros(-(-(start % item + len(data)) // item), np.bool_)
    part[(np.flatnonzero(unequal) + start % item) // item] = True
    return part


def _apart(
    tensor: StoredTensor, data: memoryview, found: memoryview, part: NDArray[np.bool_]
) -> tuple[float, float]:
    """The largest difference of elements of a piece, and the largest value that should be in it."""
    item = tensor.dtype.block_bytes
    if tensor.dtype.block != 1 or item not in _WORDS or len(part) * item != len(data):
        return 0.0, 0.0
    expected, values = (numbers(np.frombuffer(view, f"<u{item}"), tensor.dtype) for view in (data, found))
    with np.errstate(all="ignore"):
        apart = np.abs(values.astype(np.float64) - expected)[part]
    return _most(apart), _most(np.abs(expected))


def _most(values: NDArray[Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else 0.0
