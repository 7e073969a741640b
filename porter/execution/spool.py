"""What several units read from afar, brought near once: a tensor that is transposed is read whole by each.

A spool is a temporary file without a name that holds what one output tensor is made of, and is gone when its
units have run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO

from porter.errors import MalformedError, PorterError
from porter.execution.units import Unit, source_range
from porter.sources.base import FarFile, SourceFile
from porter.sources.read_ahead import read_ahead
from porter.system import read_into

# Units that read this many times what there is, all together, are worth the disk's time.
_REREAD = 1.3

Range = tuple[int, int]


@contextmanager
def spooled(
    units: Sequence[Unit], sources: Mapping[str, SourceFile], notice: Callable[[str], None]
) -> Iterator[Mapping[str, SourceFile]]:
    """The source files for the units of one tensor; what they would read again and again is near.

    Raises PorterError where the temporary file cannot be written.
    """
    again = {
        file: ranges for file, ranges in _read_again(units).items() if isinstance(sources[file], FarFile)
    }
    needed = sum(stop - start for ranges in again.values() for start, stop in ranges)
    if again and shutil.disk_usage(tempfile.gettempdir()).free <= needed:
        notice(
            f"{units[0].tensor}: its {needed / 1e6:.1f} MB are read several times, for want of room in "
            f"{tempfile.gettempdir()} (TMPDIR names another place)"
        )
        again = {}
    with ExitStack() as stack:
        read = (tensor for unit in units for part in unit.parts for tensor in (part.source, part.scales))
        found = {tensor.file: sources[tensor.file] for tensor in read if tensor is not None}
        for name, ranges in again.items():
            file = sources[name]
            assert isinstance(file, FarFile)
            found[name] = Spool(file, ranges, stack.enter_context(tempfile.TemporaryFile()))
        yield found


def _read_again(units: Sequence[Unit]) -> dict[str, list[Range]]:
    """Ranges of source files that units read several times between them."""
    asked: dict[tuple[str, str], tuple[int, int, int]] = {}
    for part in (part for unit in units for part in unit.parts):
        if part.source is not None:
            low, high = source_range(part)
            key = part.source.file, part.source.name
            total, start, stop = asked.get(key, (0, low, high))
            asked[key] = total + high - low, min(start, low), max(stop, high)
    found: dict[str, list[Range]] = {}
    for (file, _), (total, start, stop) in asked.items():
        if total > _REREAD * (stop - start):
            found.setdefault(file, []).append((start, stop))
    return found


class Spool:
    """Ranges of a far file, one after the other in a temporary one; what lies outside is read from afar."""

    def __init__(self, file: FarFile, ranges: Sequence[Range], into: IO[bytes]) -> None:
        self.name, self.size = file.name, file.size
        self._file, self._into = file, into
        self._places: list[tuple[int, int, int]] = []
        try:
            for start, stop in ranges:
                self._places.append((start, stop, into.tell()))
                self._bring(start, stop)
            into.flush()
        except OSError as error:
            raise PorterError(
                f"a tensor of {file.name} cannot be kept in {tempfile.gettempdir()} while it is transposed",
                cause=error.strerror,
                hint="TMPDIR names another place for temporary files",
            ) from error

    def _bring(self, start: int, stop: int) -> None:
        with read_ahead(self._file, start, stop) as reader:
            for low in range(start, stop, self._file.request):
                piece = bytearray(min(self._file.request, stop - low))
                reader.read([memoryview(piece)], low)
                self._into.write(piece)

    def read(self, views: Sequence[memoryview], offset: int) -> None:
        for view in views:
            self._read(view, offset)
            offset += len(view)

    def _read(self, view: memoryview, offset: int) -> None:
        place = next((p for p in self._places if p[0] <= offset and offset + len(view) <= p[1]), None)
        if place is None:
            self._file.read([view], offset)
            return
        at, done = place[2] + offset - place[0], 0
        while done < len(view):
            count = read_into(self._into.fileno(), [view[done:]], at + done)
            if not count:
                raise MalformedError(f"{self.name}: its temporary copy was cut short")
            done += count

    def close(self) -> None:
        """The far file is closed by whoever opened it, the temporary one with the context."""
