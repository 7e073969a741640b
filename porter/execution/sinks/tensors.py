"""What sinks that look at tensors share: no frames, no small files, ranges of one tensor at a time."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from porter.containers.base import OutputFile, StoredTensor
from porter.errors import PorterError
from porter.execution.sinks.base import Ranges
from porter.execution.writers import Volatile, Writer


class TensorPlaces:
    """The tensors of an output file by their place. Of tied ones, at one place, the first stands for all."""

    def __init__(self, file: OutputFile) -> None:
        self._name = file.name
        places: dict[int, StoredTensor] = {}
        for tensor in file.tensors:
            if tensor.nbytes:
                places.setdefault(tensor.offset, tensor)
        self._tensors = [places[start] for start in sorted(places)]
        self._starts = sorted(places)

    def at(self, offset: int, length: int) -> tuple[StoredTensor, int]:
        """The tensor that holds these bytes, and where in it they begin. Raises PorterError for others."""
        index = bisect_right(self._starts, offset) - 1
        if index >= 0:
            tensor = self._tensors[index]
            if offset + length <= tensor.offset + tensor.nbytes:
                return tensor, offset - tensor.offset
        raise PorterError(f"{self._name}: the plan writes outside a tensor", cause=f"at byte {offset}")


class TensorWriter(Volatile):
    """A writer that hands what it is given to `take`, with the tensor that it belongs to."""

    readable = False

    def __init__(self, file: OutputFile) -> None:
        self.name, self.size = file.name, file.size
        self.stopped = threading.Event()
        self.places = TensorPlaces(file)

    def take(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        raise NotImplementedError

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        tensor, start = self.places.at(offset, len(view))
        self.take(tensor, start, view)

    def read(self, view: memoryview, offset: int) -> None:
        raise PorterError(f"{self.name}: what was written cannot be read again")


class TensorSink:
    """Base of sinks that keep nothing of a run but what they find out. `writer` makes a file's writer."""

    frames = False
    ordered = False
    unit_bytes: int | None = None
    resumable = False

    def __init__(self) -> None:
        self._writers: dict[str, Any] = {}

    def writer(self, file: OutputFile) -> Writer:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writers = {}

    def begin(self, key: Mapping[str, Any]) -> Mapping[str, Ranges]:
        return {}

    def create(self, file: OutputFile) -> Writer:
        if file.name not in self._writers:
            self._writers[file.name] = self.writer(file)
        found: Writer = self._writers[file.name]
        return found

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
        return f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)

    def commit(self) -> None:
        pass
