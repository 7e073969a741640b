"""Writing one weight file of a plan: blocks that can be shared, then all other units of work, then the rest.

What an earlier run noted as done is read again and, if its checksum is right, left as it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from porter.containers.base import OutputFile
from porter.containers.keras import hdf5, hdf5_writer
from porter.containers.orbax import orbax_tree as orbax
from porter.containers.orbax import orbax_writer
from porter.containers.safetensors import safetensors_header, safetensors_writer
from porter.containers.torch import torch_zip, torch_zip_writer
from porter.errors import UnsupportedError
from porter.execution.buffers import Buffers
from porter.execution.classes import run_move
from porter.execution.crc import joined
from porter.execution.digests import LAG, Digest
from porter.execution.journal import Journal, Range
from porter.execution.kernels.move import Move
from porter.execution.open_files import RangeWriter, SourceFile, WeightFile, range_crc, write_zeros
from porter.execution.run_options import ALWAYS, NEVER, ExecutionOptions
from porter.execution.shared import share
from porter.execution.units import Unit, divide, trailing
from porter.planning.plan import Copy, Plan

# What surrounds the data, by container.
_LITERALS: dict[str, Callable[[OutputFile], list[tuple[int, bytes]]]] = {
    safetensors_header.CONTAINER: safetensors_writer.literals,
    torch_zip.CONTAINER: torch_zip_writer.literals,
    hdf5.CONTAINER: hdf5_writer.literals,
    orbax.CONTAINER: orbax_writer.literals,
}

# More threads than this wait for memory and for the disk.
_MOST_WORKERS = 4

# Where the disk limits: while one thread writes, the other reads and sums.
_WRITERS = 2


@dataclass(frozen=True)
class Callbacks:
    """Whom to tell of bytes written (file, bytes since the last call), of tensors begun, of what to know."""

    progress: Callable[[str, int], None] | None = None
    moving: Callable[[str], None] = lambda name: None
    notice: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Written:
    """A finished file's `sha256:<hex>` where known, and how many of its bytes share blocks with a source."""

    digest: str | None
    shared: int


def write_weights(
    plan: Plan,
    file: OutputFile,
    path: Path,
    sources: Mapping[str, SourceFile],
    options: ExecutionOptions,
    callbacks: Callbacks,
    journal: Journal | None,
    kept: Mapping[Range, int],
) -> Written:
    """Writes `file` at `path`, durably. `kept` are the checksums of ranges that an earlier run noted."""
    copies: dict[str, list[Copy]] = {}
    own = {tensor.name for tensor in file.tensors}
    for copy in plan.copies:
        if copy.target in own:
            copies.setdefault(copy.target, []).append(copy)
    literals = literals_of(file)
    with WeightFile(path, file.name, file.size, callbacks.progress) as writer:
        shared = share(plan, file, copies, sources, writer, options.reflink)
        if not shared.nbytes:
            writer.reserve()
        padding = {part.target: trailing(part, plan.target_by_name[part.target]) for part in plan.zeros}
        units = divide(file, copies, shared.copies, padding)
        # Blocks that are shared are not read, and a torch file's own checksums, which stand before its
        # data, are known last: such files are hashed only by reading them once more.
        late = bool(shared.nbytes) or file.container == torch_zip.CONTAINER
        # Where the work takes every processor, a hash takes from the work.
        limits = file.size > LAG and _heavy(units) and _workers(units) >= (os.cpu_count() or 1)
        mode = NEVER if (late or limits) and options.digest != ALWAYS else options.digest
        parts = [(0, file.size)] if late else _parts(units, literals)
        digest = Digest(writer, parts, mode)
        crcs: dict[Range, int] = {}
        try:
            if not late:
                _writeliterals_of(writer, literals, digest)
            left = _verified(units, writer, kept, crcs, digest, callbacks)
            job = _Job(plan, sources, writer, journal, digest, crcs, callbacks, file.container)
            _run_all(left, job, options)
            if late:
                _writeliterals_of(writer, literals_of(file, _tensor_crcs(file, units, crcs)), None)
            writer.finish()
            if journal is not None:
                journal.flush()
            if late:
                digest.finished(0, file.size)
            return Written(digest.result(), shared.nbytes)
        finally:
            if journal is not None:
                # Its thread must not touch a file that is closed.
                journal.flush()
            digest.stop()


@dataclass(frozen=True)
class _Job:
    plan: Plan
    sources: Mapping[str, SourceFile]
    writer: WeightFile
    journal: Journal | None
    digest: Digest
    crcs: dict[Range, int]
    callbacks: Callbacks
    container: str

    def run(self, unit: Unit, buffers: Buffers) -> None:
        self.callbacks.moving(unit.tensor)
        summed = self.journal is not None or self.container == torch_zip.CONTAINER
        into = RangeWriter(self.writer, unit.start, unit.end, unit.expected, summed=summed)
        for copy, part in unit.parts:
            source, target = self.plan.source_by_name[copy.source], self.plan.target_by_name[copy.target]
            scales = self.plan.source_by_name[source.scales] if source.scales else None
            factors = (scales, self.sources[scales.file]) if scales else None
            run_move(Move(copy, source, target, self.sources[source.file], into, buffers, part, factors))
        if unit.zeros:
            write_zeros(into, unit.start, unit.end)
        crc = into.finish()
        if crc is not None:
            self.crcs[unit.start, unit.end] = crc
            if self.journal is not None:
                self.journal.note(self.writer, unit.start, unit.end, crc)
        self.digest.finished(unit.start, unit.end)


def _run_all(units: Sequence[Unit], job: _Job, options: ExecutionOptions) -> None:
    """Runs the units in order, several at once."""
    workers = _workers(units)
    if workers <= 1:
        buffers = Buffers(options.max_memory)
        for unit in units:
            job.run(unit, buffers)
        return
    waiting = iter(units)
    lock = threading.Lock()

    def work() -> None:
        buffers = Buffers(options.max_memory // workers)
        while not job.writer.stopped.is_set():
            with lock:
                unit = next(waiting, None)
            if unit is None:
                return
            job.run(unit, buffers)

    with ThreadPoolExecutor(workers, thread_name_prefix="porter") as pool:
        futures = [pool.submit(work) for _ in range(workers)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            job.writer.stopped.set()
            raise


def _workers(units: Sequence[Unit]) -> int:
    most = min(os.cpu_count() or 1, _MOST_WORKERS) if _heavy(units) else _WRITERS
    return min(most, len(units))


def _heavy(units: Iterable[Unit]) -> bool:
    return any(unit.heavy for unit in units)


def _verified(
    units: Iterable[Unit],
    writer: WeightFile,
    kept: Mapping[Range, int],
    crcs: dict[Range, int],
    digest: Digest,
    callbacks: Callbacks,
) -> list[Unit]:
    """The units that are still to be run; those that were noted and hold what was noted are counted."""
    left, wrong = [], 0
    for unit in units:
        range_ = (unit.start, unit.end)
        if not writer.resumed or range_ not in kept:
            left.append(unit)
        elif range_crc(writer, *range_) != kept[range_]:
            wrong += 1
            left.append(unit)
        else:
            crcs[range_] = kept[range_]
            writer.count(unit.expected)
            digest.finished(*range_)
    if wrong:
        callbacks.notice(f"{writer.name}: {wrong} ranges do not hold what was noted; they are moved again")
    return left


def literals_of(file: OutputFile, crcs: Mapping[str, int] | None = None) -> list[tuple[int, bytes]]:
    if file.container == torch_zip.CONTAINER:
        return sorted(torch_zip_writer.literals(file, crcs))
    found = _LITERALS.get(file.container)
    if found is None:
        raise UnsupportedError(f"{file.name}: cannot write the container {file.container}")
    return sorted(found(file))


def _writeliterals_of(
    writer: WeightFile, literals: Iterable[tuple[int, bytes]], digest: Digest | None
) -> None:
    for offset, data in literals:
        writer.write(offset, data)
        if digest is not None:
            digest.finished(offset, offset + len(data))


def _parts(units: Iterable[Unit], literals: Iterable[tuple[int, bytes]]) -> list[Range]:
    return [(unit.start, unit.end) for unit in units] + [(at, at + len(data)) for at, data in literals]


def _tensor_crcs(file: OutputFile, units: Iterable[Unit], crcs: Mapping[Range, int]) -> dict[str, int]:
    """The CRC-32 of each tensor all of whose units were summed."""
    found: dict[str, tuple[int, int]] = {}
    for unit in units:
        crc = crcs.get((unit.start, unit.end))
        before = found.get(unit.tensor, (0, 0))
        if crc is not None:
            length = unit.end - unit.start
            found[unit.tensor] = joined(before[0], crc, length), before[1] + length
    return {t.name: found[t.name][0] for t in file.tensors if found.get(t.name, (0, 0))[1] == t.nbytes > 0}
