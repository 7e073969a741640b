"""The contract of a sink: it makes a writer for each output file, and takes small files whole.

A sink is used as a context for one run. Until `commit` nothing that it has made can be taken for a result;
leaving the context without it undoes the work, or keeps what the same run can go on with.

`frames` says whether the bytes around the tensors are wanted (headers, directories), which only files have.
With `ordered` the units of a file come one at a time, in the file's order. `unit_bytes` is the most that one
may have; None leaves it to the plan. Every implementation passes `tests/execution/test_sinks.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from porter.containers.base import OutputFile
from porter.execution.units import Unit
from porter.execution.writers import Writer

# Ranges of an output file, each with the CRC-32 of its bytes, or None where the digest of the source file
# that they come from will tell.
Range = tuple[int, int]
Ranges = Mapping[Range, int | None]


class Sink(Protocol):
    frames: bool
    ordered: bool
    unit_bytes: int | None

    @property
    def resumable(self) -> bool:
        """Whether notes are kept, so that ranges have to be summed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, key: Mapping[str, Any]) -> Mapping[str, Ranges]:
        """What an earlier run of the same `key` has left that can be trusted once it is verified."""
        ...

    def create(self, file: OutputFile) -> Writer:
        """The writer of a file: the same one each time it is asked for, until it is closed."""
        ...

    def note(self, writer: Writer, start: int, end: int, crc: int | None) -> None:
        """A range is finished. Raises OSError if earlier ones could not be made durable."""
        ...

    def flush(self) -> None:
        """Makes what was noted durable; its files must still be open. Raises OSError."""
        ...

    def reserve(self, writer: Writer) -> None:
        """Room for the whole file, where that has a meaning. Raises OSError if there is too little."""
        ...

    def close(self, writer: Writer) -> None:
        """Nothing more is written to the file. Raises OSError if its notes cannot be made durable."""
        ...

    def put(self, name: str, pieces: Iterable[bytes]) -> tuple[str, int]:
        """A small file, whole: its `sha256:<hex>` and its size in bytes."""
        ...

    def commit(self) -> None:
        """All is there: publishes it. Raises what stands in the way; then nothing is published."""
        ...


class SummedWriter(Writer, Protocol):
    """A writer that sums what passes: the file's `sha256:<hex>`, where it came in order, and its CRC-32."""

    digest: str | None
    crc: int | None


@runtime_checkable
class PartSink(Sink, Protocol):
    """A sink that sends files away in parts: no byte can be written twice or read again, and what comes first
    in a file is wanted first.
    """

    def finished(self, file: str, units: Sequence[Unit]) -> dict[Range, int | None]:
        """The units of a file that an earlier run has sent, whole."""
        ...
