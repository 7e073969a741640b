"""Digests as a sink: of each tensor that a plan makes, over its bytes in row-major order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from porter.containers.base import OutputFile, StoredTensor
from porter.errors import PorterError
from porter.execution.sinks.tensors import TensorSink, TensorWriter
from porter.execution.writers import Writer


class DigestWriter(TensorWriter):
    """Hashes tensors as they come, one at a time and in order."""

    def __init__(self, file: OutputFile, new: Callable[[], Any]) -> None:
        super().__init__(file)
        self._new = new
        self._hashes: dict[int, Any] = {}
        self._done: dict[int, int] = {}

    def take(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        if start != self._done.get(tensor.offset, 0):
            raise PorterError(f"{tensor.name!r} does not come in order", cause=f"at byte {start}")
        if tensor.offset not in self._hashes:
            self._hashes[tensor.offset] = self._new()
        self._hashes[tensor.offset].update(data)
        self._done[tensor.offset] = start + len(data)

    def digest(self, tensor: StoredTensor) -> str:
        found: str = (self._hashes[tensor.offset] if tensor.nbytes else self._new()).hexdigest()
        return found


class DigestSink(TensorSink):
    """`digests` are there after `commit`: hex by name. `new` makes a hash object, by default sha256."""

    ordered = True

    def __init__(self, new: Callable[[], Any] = hashlib.sha256) -> None:
        super().__init__()
        self._new = new
        self._made: list[tuple[OutputFile, DigestWriter]] = []
        self.digests: dict[str, str] = {}

    def writer(self, file: OutputFile) -> Writer:
        writer = DigestWriter(file, self._new)
        self._made.append((file, writer))
        return writer

    def commit(self) -> None:
        self.digests = {
            tensor.name: writer.digest(tensor) for file, writer in self._made for tensor in file.tensors
        }
