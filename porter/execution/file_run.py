"""Running the units of one output file: what is left of it, several at once, and its frame.

What an earlier run noted as done is read again and, if its checksum is right, left as it is. What another
pass of this run has finished (shared blocks, a stream) is believed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from porter.containers.base import OutputFile, StoredTensor
from porter.execution.buffers import Buffers
from porter.execution.crc import joined
from porter.execution.digests import LAG, Digest
from porter.execution.driver import Written
from porter.execution.frames import frame, frame_bytes, wants_sums
from porter.execution.run_options import ALWAYS, NEVER, RunOptions
from porter.execution.run_unit import run_unit
from porter.execution.shared import share
from porter.execution.sinks.base import PartSink, Range, Ranges, Sink, SummedWriter
from porter.execution.sinks.tensors import TensorWriter
from porter.execution.spool import spooled
from porter.execution.units import Unit
from porter.execution.watch import Watch
from porter.execution.writers import Tally, Writer, range_crc
from porter.sources.base import SourceFile

# More threads than this wait for memory and for the disk.
_MOST_WORKERS = 4

# Where the disk limits: while one thread writes, the other reads and sums.
_WRITERS = 2


class _Nowhere(TensorWriter):
    """Takes everything and keeps nothing."""

    def take(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        pass


@dataclass
class FileRun:
    """One output file in the making. `tally` counts its bytes; `finished` are ranges done already."""

    file: OutputFile
    units: Sequence[Unit]
    sources: Mapping[str, SourceFile]
    sink: Sink
    writer: Writer
    tally: Tally
    options: RunOptions
    watch: Watch
    finished: dict[Range, int | None] = field(default_factory=dict)

    def run(self, kept: Ranges) -> Written:
        """Does all that is left and makes the file durable. `kept` are ranges that an earlier run noted."""
        data = [unit for unit in self.units if unit.tensor is not None]
        if isinstance(self.sink, PartSink):
            return self._send(data)
        before = set(self.finished)
        shared = share(
            [unit for unit in data if (unit.start, unit.end) not in before],
            self.sources,
            self.writer,
            self.options.reflink,
            self.tally.add,
        )
        if not shared.nbytes:
            self.sink.reserve(self.writer)
        self.finished.update(dict.fromkeys(shared.ranges))
        # Blocks that are shared are not read, and a torch file's own checksums, which stand before its
        # data, are known last: such files are hashed only by reading them once more.
        late = bool(shared.nbytes) or wants_sums(self.file)
        digest = self._digest(data, late)
        try:
            if not late:
                self._frame(digest, None)
            left = self._left(data, kept, before, digest)
            self._run_all(left, digest)
            if late:
                sums = self._tensor_sums(data, self.finished, before) if wants_sums(self.file) else None
                self._frame(None, sums)
            self.tally.finish()
            self.writer.finish()
            self.sink.flush()
            if late:
                digest.finished(0, self.file.size)
            return Written(digest.result(), shared.nbytes)
        finally:
            digest.stop()

    def _send(self, data: Sequence[Unit]) -> Written:
        """A file that goes away in parts, front to back. Sums that its frame holds are made beforehand."""
        writer: Any = self.writer
        sums = self._sums_beforehand(data) if wants_sums(self.file) else None
        # Units are no larger than the sink wants them: larger buffers would only fill memory.
        memory = min(self.options.max_memory, 4 * (self.sink.unit_bytes or self.options.max_memory))
        pieces, buffers = frame(self.file, sums), Buffers(memory)
        for tensor, group in groupby(self.units, lambda unit: unit.tensor):
            units = list(group)
            if tensor is None:
                for unit in units:
                    writer.write(unit.start, frame_bytes(pieces, unit.start, unit.end, self.file.name))
                    self.tally.add(unit.nbytes)
                continue
            left = [unit for unit in units if (unit.start, unit.end) not in self.finished]
            self.tally.add(sum(unit.nbytes for unit in units) - sum(unit.nbytes for unit in left))
            self.watch.moving(tensor)
            with spooled(left, self.sources, self.watch.notice) as sources:
                for unit in left:
                    run_unit(unit, sources, writer, buffers, count=self.tally.add)
        self.tally.finish()
        writer.finish()
        self.sink.flush()
        sent: SummedWriter = writer
        return Written(sent.digest, 0, sent.crc)

    def _sums_beforehand(self, data: Sequence[Unit]) -> dict[str, int]:
        """The CRC-32 of each tensor, made by a run that writes nothing: what is read is read twice."""
        buffers = Buffers(self.options.max_memory)
        found: dict[Range, int | None] = {}
        nowhere = _Nowhere(self.file)
        for _, group in groupby(data, lambda unit: unit.tensor):
            units = list(group)
            with spooled(units, self.sources, self.watch.notice) as sources:
                for unit in units:
                    done = run_unit(unit, sources, nowhere, buffers, summed=True)
                    found[done.start, done.end] = done.crc
        return self._tensor_sums(data, found, set())

    def _digest(self, data: Sequence[Unit], late: bool) -> Digest:
        # Where the work takes every processor, a hash takes from the work.
        limits = self.file.size > LAG and _heavy(data) and _workers(data) >= (os.cpu_count() or 1)
        mode = self.options.digest
        if not self.sink.frames or ((late or limits) and mode != ALWAYS):
            mode = NEVER
        parts = [(0, self.file.size)] if late else [(unit.start, unit.end) for unit in self.units]
        return Digest(self.writer, parts, mode)

    def _frame(self, digest: Digest | None, sums: Mapping[str, int] | None) -> None:
        frames = [unit for unit in self.units if unit.tensor is None]
        if not frames:
            return
        pieces = frame(self.file, sums) if self.sink.frames else []
        for unit in frames:
            if self.sink.frames:
                self.writer.write(unit.start, frame_bytes(pieces, unit.start, unit.end, self.file.name))
            self.tally.add(unit.nbytes)
            if digest is not None:
                digest.finished(unit.start, unit.end)

    def _left(self, data: Iterable[Unit], kept: Ranges, before: set[Range], digest: Digest) -> list[Unit]:
        """The units still to be run; those that were noted and hold what was noted are counted."""
        left, wrong = [], 0
        for unit in data:
            range_ = (unit.start, unit.end)
            if range_ in self.finished:
                digest.finished(*range_)
                continue
            crc = kept.get(range_)
            if crc is None:
                left.append(unit)
            elif range_crc(self.writer, *range_) != crc:
                wrong += 1
                left.append(unit)
            else:
                self.finished[range_] = crc
                self.tally.add(unit.nbytes)
                digest.finished(*range_)
        if wrong:
            self.watch.notice(
                f"{self.file.name}: {wrong} ranges do not hold what was noted; they are moved again"
            )
        return left

    def _run_all(self, units: Sequence[Unit], digest: Digest) -> None:
        """Runs the units in order, several at once."""
        workers = 1 if self.sink.ordered else _workers(units)
        waiting = iter(units)
        lock = threading.Lock()

        def work() -> None:
            buffers = Buffers(self.options.max_memory // max(1, workers))
            while not self.writer.stopped.is_set():
                with lock:
                    unit = next(waiting, None)
                if unit is None:
                    return
                self._run(unit, buffers, digest)

        if workers <= 1:
            work()
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="porter") as pool:
            futures = [pool.submit(work) for _ in range(workers)]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self.writer.stopped.set()
                raise

    def _run(self, unit: Unit, buffers: Buffers, digest: Digest) -> None:
        self.watch.moving(unit.tensor or "")
        summed = self.sink.resumable or wants_sums(self.file)
        done = run_unit(unit, self.sources, self.writer, buffers, summed=summed, count=self.tally.add)
        self.finished[done.start, done.end] = done.crc
        if done.crc is not None:
            self.sink.note(self.writer, done.start, done.end, done.crc)
        digest.finished(done.start, done.end)

    def _tensor_sums(self, data: Iterable[Unit], crcs: Ranges, before: set[Range]) -> dict[str, int]:
        """The CRC-32 of each tensor all of whose bytes have passed by; shared blocks have not."""
        found: dict[str, tuple[int, int]] = {}
        for unit in data:
            range_ = (unit.start, unit.end)
            crc = crcs.get(range_)
            if crc is None and range_ in before:
                crc = range_crc(self.writer, *range_)
            if crc is not None:
                sum_, length = found.get(unit.tensor or "", (0, 0))
                found[unit.tensor or ""] = joined(sum_, crc, unit.nbytes), length + unit.nbytes
        return {
            t.name: found[t.name][0]
            for t in self.file.tensors
            if found.get(t.name, (0, 0))[1] == t.nbytes > 0
        }


def _workers(units: Sequence[Unit]) -> int:
    most = min(os.cpu_count() or 1, _MOST_WORKERS) if _heavy(units) else _WRITERS
    return min(most, len(units))


def _heavy(units: Iterable[Unit]) -> bool:
    return any(unit.heavy for unit in units)
