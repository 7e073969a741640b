"""A comparison as a sink: each tensor that a plan makes, against the one that is already there."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from porter.containers.base import OutputFile, StoredTensor
from porter.errors import PorterError
from porter.execution.open_files import OpenFiles
from porter.execution.sinks.tensors import TensorSink, TensorWriter
from porter.execution.writers import Writer

# Bytes of the other side that are read at a time.
PIECE = 1 << 20


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

    They have to have the plan's dtypes and shapes, row-major; whoever calls has seen to it. Writes nothing.
    After the run `differing` holds the tensors whose bytes are not the same.
    """

    def __init__(self, there: Mapping[str, StoredTensor], files: OpenFiles) -> None:
        super().__init__()
        self._there, self._files = there, files
        self._found: dict[str, Differing] = {}
        self._lock = threading.Lock()
        self.differing: dict[str, Differing] = {}

    def writer(self, file: OutputFile) -> Writer:
        for tensor in file.tensors:
            other = self._there.get(tensor.name)
            if other is None or (other.dtype, other.shape) != (tensor.dtype, tensor.shape):
                raise PorterError(f"{tensor.name!r} has no counterpart of its dtype and shape")
        return CompareWriter(file, self)

    def compare(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        other = self._there[tensor.name]
        found = bytearray(len(data))
        self._files[other.file].read([memoryview(found)], other.offset + start)
        if found == data:
            return
        item = max(1, tensor.dtype.block_bytes)
        unequal = np.frombuffer(found, np.uint8) != np.frombuffer(data, np.uint8)
        first = start // item
        places = np.flatnonzero(unequal) + start % item
        elements = np.unique(places // item)
        with self._lock:
            before = self._found.get(tensor.name)
            count = len(elements) + (before.elements if before else 0)
            low = min(first + int(elements[0]), before.first if before else first + int(elements[0]))
            self._found[tensor.name] = Differing(count, low)

    def commit(self) -> None:
        self.differing = dict(self._found)
