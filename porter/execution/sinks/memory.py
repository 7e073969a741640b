"""Memory as a sink: every tensor's bytes, row-major, by name."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from porter.containers.base import OutputFile, StoredTensor
from porter.errors import PorterError
from porter.execution.buffers import LARGE
from porter.execution.sinks.base import Ranges
from porter.execution.writers import Writer
from porter.system import anonymous_memory


class MemoryWriter:
    """The tensors of an output file; nothing of what would surround them. Zeros until they are written."""

    readable = True

    def __init__(self, name: str, size: int, tensors: Iterable[StoredTensor]) -> None:
        self.name, self.size = name, size
        self.stopped = threading.Event()
        self._starts: list[int] = []
        self._held: list[memoryview] = []
        places = {tensor.offset: tensor.nbytes for tensor in tensors if tensor.nbytes}
        for start, nbytes in sorted(places.items()):
            self._starts.append(start)
            room = anonymous_memory(nbytes) if nbytes >= LARGE else memoryview(bytearray(nbytes))
            self._held.append(room)

    def at(self, offset: int, length: int) -> memoryview:
        """The bytes from `offset` on, which have to be of one tensor, else PorterError."""
        index = bisect_right(self._starts, offset) - 1
        start = offset - self._starts[index] if index >= 0 else -1
        if start < 0 or start + length > len(self._held[index]):
            raise PorterError(f"{self.name}: the plan writes outside a tensor", cause=f"at byte {offset}")
        return self._held[index][start : start + length]

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.at(offset, len(data))[:] = data

    def read(self, view: memoryview, offset: int) -> None:
        view[:] = self.at(offset, len(view))

    def begin_writeback(self, offset: int, length: int) -> None:
        pass

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


class MemorySink:
    """`tensors` are there after `commit`: bytes by name. Small files are in `files`."""

    frames = False
    ordered = False
    resumable = False

    def __init__(self) -> None:
        self.tensors: dict[str, memoryview] = {}
        self.files: dict[str, bytes] = {}
        self._writers: dict[str, tuple[OutputFile, MemoryWriter]] = {}
        self._files: dict[str, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writers, self._files = {}, {}

    def begin(self, key: Mapping[str, Any]) -> Mapping[str, Ranges]:
        return {}

    def create(self, file: OutputFile) -> MemoryWriter:
        if file.name not in self._writers:
            self._writers[file.name] = file, MemoryWriter(file.name, file.size, file.tensors)
        return self._writers[file.name][1]

    def reserve(self, writer: Writer) -> None:
        pass

    def note(self, writer: Writer, start: int, end: int, crc: int | None) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self, writer: Writer) -> None:
        pass

    def put(self, name: str, pieces: Iterable[bytes]) -> tuple[str, int]:
        content = b"".join(pieces)
        self._files[name] = content
        return f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)

    def commit(self) -> None:
        for file, writer in self._writers.values():
            for tensor in file.tensors:
                held = writer.at(tensor.offset, tensor.nbytes) if tensor.nbytes else memoryview(b"")
                self.tensors[tensor.name] = held
        self.files = dict(self._files)
