"""One task of a cluster: its slice of the plan, which it runs anywhere and as often as it must.

A task needs nothing but itself and the `Job`: it reads ranges of the source, makes one part of one output
file in memory, writes it to its place, and returns a record of some hundred bytes. Done twice, it writes the
same bytes to the same place.
"""

from __future__ import annotations

import hashlib
import os
import platform
import threading
import time
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from porter.containers.base import StoredTensor
from porter.errors import PorterError
from porter.execution.buffers import Buffers
from porter.execution.checks import check_zeros, compare
from porter.execution.open_files import OpenFiles
from porter.execution.run_unit import run_unit
from porter.execution.sinks.multipart import Upload, send
from porter.execution.units import Unit
from porter.execution.writers import MemoryRange
from porter.planning.plan import Check, ZeroCheck
from porter.sources.base import Source
from porter.wording import typed

# Bytes of the kernels' buffers; a transposed unit is turned in tiles of a quarter of it.
BUFFERS = 96 << 20


class Place(Protocol):
    """Where parts of one output file are written, from any machine."""

    def write(self, number: int, start: int, data: bytearray, crc: int) -> str:
        """Writes a part, durably; what the store calls it."""
        ...

    def read(self, start: int, view: memoryview) -> None:
        """Fills `view` with what stands from byte `start` on."""
        ...


@dataclass(frozen=True)
class UploadPlace:
    upload: Upload

    def write(self, number: int, start: int, data: bytearray, crc: int) -> str:
        return send(self.upload, number, start, data, crc).etag

    def read(self, start: int, view: memoryview) -> None:
        raise PorterError(f"{self.upload.name}: what was sent cannot be read again")


@dataclass(frozen=True)
class SharedFile:
    """A file of its full size on a file system that all machines see."""

    path: str

    def write(self, number: int, start: int, data: bytearray, crc: int) -> str:
        fd = self._open(os.O_WRONLY)
        try:
            view, done = memoryview(data), 0
            while done < len(view):
                done += os.pwrite(fd, view[done:], start + done)
            os.fsync(fd)
        finally:
            os.close(fd)
        return ""

    def read(self, start: int, view: memoryview) -> None:
        fd = self._open(os.O_RDONLY)
        try:
            done = 0
            while done < len(view):
                count = os.preadv(fd, [view[done:]], start + done)
                if not count:
                    raise PorterError(f"{self.path} was cut short while it was written")
                done += count
        finally:
            os.close(fd)

    def _open(self, mode: int) -> int:
        try:
            return os.open(self.path, mode | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise PorterError(
                f"{self.path} is not to be seen on {platform.node()}",
                cause="an output directory has to lie on a file system that all machines share",
                hint="choose an output there, or in a bucket",
            ) from None


@dataclass(frozen=True)
class Job:
    """What all tasks of a run have in common. `version` is porter's, which has to be the same everywhere.
    `typed` says that errors are read at a command line."""

    run: str
    version: str
    source: Source
    sizes: dict[str, int]
    typed: bool = False


@dataclass(frozen=True)
class Task:
    """Bytes `start` to `end` of `file`, its part `number` (from 1). `frames` are bytes between the tensors.

    `kept` is the CRC-32 that an earlier run noted of the part. Without a `place` its units are summed alone.
    """

    file: str
    number: int
    start: int
    end: int
    units: tuple[Unit, ...]
    frames: tuple[tuple[int, bytes], ...] = ()
    place: Place | None = None
    kept: int | None = None

    @property
    def nbytes(self) -> int:
        return self.end - self.start


class Record(NamedTuple):
    """What a task has made: its part as the store has it, and where and for how long it ran."""

    file: str
    number: int
    start: int
    end: int
    etag: str
    crc: int
    digest: str
    node: str
    seconds: float
    sums: tuple[tuple[int, int, int], ...] = ()


def run_task(job: Job, task: Task) -> Record:
    """Runs a task, wherever it is. Raises PorterError and its kinds."""
    with typed() if job.typed else nullcontext():
        return _run_task(job, task)


def _run_task(job: Job, task: Task) -> Record:
    began = time.monotonic()
    sources = _sources(job)
    if task.kept is not None and task.place is not None:
        # An earlier run says that it is done.
        there = bytearray(task.nbytes)
        task.place.read(task.start, memoryview(there))
        if zlib.crc32(there) == task.kept:
            return _record(task, there, "", began)
    content = bytearray(task.end - task.start)
    part = MemoryRange(task.file, task.start, content)
    buffers, sums = Buffers(BUFFERS), []
    for unit in task.units:
        done = run_unit(unit, sources, part, buffers, summed=task.place is None)
        if done.crc is not None:
            sums.append((done.start, done.end, done.crc))
    for offset, data in task.frames:
        part.write(offset, data)
    if task.place is None:
        return _record(task, bytearray(), "", began)._replace(sums=tuple(sums))
    written = sum(unit.nbytes for unit in task.units) + sum(len(data) for _, data in task.frames)
    if written != task.nbytes:
        raise PorterError(f"{task.file}: the plan does not write each byte of part {task.number} once")
    etag = task.place.write(task.number, task.start, content, zlib.crc32(content))
    return _record(task, content, etag, began)


def run_check(job: Job, check: Check, tensors: dict[str, StoredTensor]) -> None:
    """Runs one check of a plan, wherever it is. Raises DifferenceError."""
    with typed() if job.typed else nullcontext():
        sources = _sources(job)
        if isinstance(check, ZeroCheck):
            check_zeros(check, tensors[check.tensor], sources)
        else:
            compare(check, tensors, sources)


def _record(task: Task, content: bytearray, etag: str, began: float) -> Record:
    return Record(
        task.file,
        task.number,
        task.start,
        task.end,
        etag,
        zlib.crc32(content),
        hashlib.sha256(content).hexdigest(),
        platform.node(),
        time.monotonic() - began,
    )


# The files of the last job that this process worked for: opening them anew for each task would cost requests.
_last: tuple[str, OpenFiles] | None = None
_opening = threading.Lock()


def _sources(job: Job) -> OpenFiles:
    global _last
    from porter import __version__

    if job.version != __version__:
        raise PorterError(
            f"porter is another one on {platform.node()}",
            cause=f"the plan is of {job.version}, there it is {__version__}",
            hint="install the same version on all machines",
        )
    with _opening:
        if _last is None or _last[0] != job.run:
            if _last is not None:
                _last[1].__exit__(None, None, None)
            _last = job.run, OpenFiles(job.source, job.sizes)
        return _last[1]
