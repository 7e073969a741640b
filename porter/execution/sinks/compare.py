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

# Bytes of the other side that are read at a time.
PIECE = 1 << 20

# Element ranges of a tensor (from, to) that may hold anything.
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Differing:
    """A tensor that is not as it should be: how many of its elements differ, and the first that does."""

    elements: int
    first: int


class CompareWriter(TensorWriter):
    def __init__(self, file: OutputFile, sink: CompareSink) -> None:
        super().__init__(file)
        self._sink = sink

    def take(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        for begin in range(0, len(data), PIECE):
            self._sink.compare(tensor, start + begin, data[begin : begin + PIECE])


class CompareSink(TensorSink):
    """`there` are the tensors to compare with, by the plan's names, and `files` the files that they lie in.

    They have to have the plan's shapes, and its dtypes, or be quantised where the plan has float32; whoever
    calls has seen to it. Of tensors in `by_value`, whose values were computed, the two zeros are equal, and
    so are all NaNs; of others, bits are. `unused` are elements that may hold anything, by tensor, `stored`
    the port's factors of rows. Writes nothing. After the run `differing` holds the tensors that differ.
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
        self._by_value, self._unused, self._stored = by_value, unused or {}, stored or {}
        self._found: dict[str, Differing] = {}
        self._lock = threading.Lock()
        self._buffers = threading.local()
        self.differing: dict[str, Differing] = {}

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
        read_row_major(self._there[tensor.name], start, found, self._files, self._stored)
        # Bytes compare as memory; memoryviews of them item by item.
        if np.array_equal(np.frombuffer(found, np.uint8), np.frombuffer(data, np.uint8)):
            return
        item = max(1, tensor.dtype.block_bytes)
        first = start // item
        if start % item or len(data) % item or tensor.name not in self._by_value:
            unequal = np.frombuffer(found, np.uint8) != np.frombuffer(data, np.uint8)
            elements = np.unique((np.flatnonzero(unequal) + start % item) // item)
        else:
            elements = np.flatnonzero(_unequal_values(tensor, found, data))
        for low, high in self._unused.get(tensor.name, ()):
            elements = elements[(elements + first < low) | (elements + first >= high)]
        if not len(elements):
            return
        with self._lock:
            before = self._found.get(tensor.name)
            count = len(elements) + (before.elements if before else 0)
            low = min(first + int(elements[0]), before.first if before else first + int(elements[0]))
            self._found[tensor.name] = Differing(count, low)

    def _buffer(self) -> memoryview:
        """Memory of this thread; fresh memory costs as much time as what is done in it."""
        held: memoryview | None = getattr(self._buffers, "held", None)
        if held is None:
            held = self._buffers.held = memoryview(bytearray(PIECE))
        return held

    def commit(self) -> None:
        self.differing = dict(self._found)


def _unequal_values(tensor: StoredTensor, one: memoryview, other: memoryview) -> NDArray[np.bool_]:
    import torch

    dtype: Any = getattr(torch, tensor.dtype.torch or "uint8")
    sides = (torch.frombuffer(view, dtype=dtype).to(torch.float64) for view in (one, other))
    ours, theirs = (side.numpy() for side in sides)
    unequal: NDArray[np.bool_] = (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs))
    return unequal
