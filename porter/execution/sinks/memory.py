"""Memory as a sink: every tensor's bytes, row-major, by name."""

from __future__ import annotations

from collections.abc import Iterable

from porter.containers.base import OutputFile, StoredTensor
from porter.execution.buffers import LARGE
from porter.execution.sinks.tensors import TensorSink, TensorWriter
from porter.execution.writers import Writer
from porter.system import anonymous_memory


class MemoryWriter(TensorWriter):
    """The tensors of an output file. Zeros until they are written."""

    readable = True

    def __init__(self, file: OutputFile) -> None:
        super().__init__(file)
        self._held: dict[int, memoryview] = {}
        for tensor in file.tensors:
            if tensor.nbytes and tensor.offset not in self._held:
                large = tensor.nbytes >= LARGE
                room = anonymous_memory(tensor.nbytes) if large else memoryview(bytearray(tensor.nbytes))
                self._held[tensor.offset] = room

    def content(self, tensor: StoredTensor) -> memoryview:
        """All bytes of a tensor."""
        return self._held[tensor.offset] if tensor.nbytes else memoryview(b"")

    def take(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        self._held[tensor.offset][start : start + len(data)] = data

    def read(self, view: memoryview, offset: int) -> None:
        tensor, start = self.places.at(offset, len(view))
        view[:] = self._held[tensor.offset][start : start + len(view)]


class MemorySink(TensorSink):
    """`tensors` are there after `commit`: bytes by name. Small files are in `files`."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[str, memoryview] = {}
        self.files: dict[str, bytes] = {}
        self._made: list[tuple[OutputFile, MemoryWriter]] = []
        self._files: dict[str, bytes] = {}

    def writer(self, file: OutputFile) -> Writer:
        writer = MemoryWriter(file)
        self._made.append((file, writer))
        return writer

    def put(self, name: str, pieces: Iterable[bytes]) -> tuple[str, int]:
        self._files[name] = b"".join(pieces)
        return super().put(name, [self._files[name]])

    def commit(self) -> None:
        self.tensors = {
            tensor.name: writer.content(tensor) for file, writer in self._made for tensor in file.tensors
        }
        self.files = dict(self._files)
