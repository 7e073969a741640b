"""Running a plan whose sources are far away: every byte passes by once, straight into its places.

Source files are read front to back in chunks, several in flight. As soon as a chunk has come its ranges are
written to wherever the plan's extents put them, and chunks are hashed in order; nothing of the source is
stored but the tensors that need more than one look (transposed, cast or cropped ones), which wait in a
sparse file until they are whole. So a file's own sha256 is verified although the file never exists here. A
file of which little is wanted is read in part, and then cannot be verified: the caller is told.

What has arrived is noted as it becomes durable. A run that goes on reads those bytes back from its own
output to hash them, so that the digest covers what really stands there.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from porter.containers.base import OutputFile, StoredTensor
from porter.containers.torch import torch_zip
from porter.errors import DifferenceError
from porter.execution.buffers import Buffers
from porter.execution.checks import difference, run_checks
from porter.execution.classes import run_move
from porter.execution.crc import joined
from porter.execution.kernels.move import Move
from porter.execution.open_files import RangeWriter, SourceFile, WeightFile, range_crc
from porter.execution.pieces import Piece, chunks, overlapping, pieces_of, plain_checks, waiting_tensors
from porter.execution.run_options import ExecutionOptions
from porter.execution.stream_journal import Chunks, StreamJournal
from porter.execution.system import start_writeback
from porter.layout.copies import elements
from porter.planning.plan import EXTENT, Copy, Plan

# Bytes per request: large enough that a round trip does not count, small enough to go on from.
CHUNK = 8 << 20

# Requests in flight. The Hub serves one connection at 50 to 200 MB/s; memory is CHUNK times this, and at
# most half of what the run may have.
AHEAD = 8

# Chunks between two points from which a killed run can go on.
NOTED_EVERY = 32

# A file of which at least this share is wanted is read whole, so that its digest can be verified.
WHOLE = 0.9


class RemoteSource(Protocol):
    """Source files that are read by ranges."""

    def read(self, file: str, start: int, view: memoryview, stopped: threading.Event) -> None:
        """Fills `view` with a file's bytes from `start` on; called from several threads.

        Raises PorterError, also when it has been stopped before it was done.
        """
        ...

    def sha256(self, file: str) -> str | None:
        """The file's published digest, in hex, or None."""
        ...

    @property
    def version(self) -> str:
        """What the files' content is known by: the commit."""
        ...


@dataclass
class Stream:
    """One run over all source files of a plan. `writers` are the weight files by name.

    `moving` is told of each source file that is begun.
    """

    plan: Plan
    source: RemoteSource
    writers: Mapping[str, WeightFile]
    stage: Path
    journal: Path
    notice: Callable[[str], None]
    moving: Callable[[str], None]
    options: ExecutionOptions = field(default_factory=ExecutionOptions)
    _journal: StreamJournal | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)
    _crcs: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)
    _watched: dict[str, Any] = field(default_factory=dict)

    def run(self) -> list[str]:
        """Fetch, write, check. The source files whose digest was verified. Raises PorterError."""
        verified = []
        waiting = waiting_tensors(self.plan)
        self._crcs = {file.name: {} for file in self.plan.files if file.container == torch_zip.CONTAINER}
        with ExitStack() as stack:
            spools = {
                name: stack.enter_context(WeightFile(self.stage / f".spool-{number}", name, size))
                for number, (name, size) in enumerate(self.plan.source_sizes.items())
                if any(tensor.file == name for tensor in waiting)
            }
            with self._begun([*self.writers.values(), *spools.values()]) as journal:
                for name, size in self.plan.source_sizes.items():
                    pieces = pieces_of(self.plan, name, self.writers, waiting, spools)
                    if pieces and self._file(name, size, pieces, journal):
                        verified.append(name)
            self._check_equal()
            self._finish_spooled(spools)
        for spool in self.stage.glob(".spool-*"):
            spool.unlink()
        return verified

    def _begun(self, writers: Sequence[WeightFile]) -> StreamJournal:
        key = {"stream": 2, "plan": self.plan.hash, "version": self.source.version, "chunk": self._chunk}
        resumed = all(writer.resumed for writer in writers if writer.size)
        self._journal = StreamJournal(self.journal, key, self._chunk, resumed=resumed)
        if self._journal.stale:
            self.notice(
                "an unfinished conversion is started anew: the source or --max-memory has changed since"
            )
        if self.noted:
            so_far = f"about {self.noted / 1e9:.2f} GB into the work"
            self.notice(f"going on where an earlier run was stopped, {so_far}")
        return self._journal

    @property
    def noted(self) -> int:
        """Bytes that the same run would not have to fetch again."""
        return self._journal.noted if self._journal else 0

    def _file(self, name: str, size: int, pieces: list[Piece], journal: StreamJournal) -> bool:
        self.moving(name)
        done: Chunks = journal.done.get(name, {})
        files = {writer.fd for piece in pieces for writer, _ in piece.places}
        digest = self.source.sha256(name)
        watched = self._watch(name)
        wanted = sum(piece.stop - piece.start for piece in pieces)
        whole = digest is not None and wanted >= WHOLE * size
        if digest is not None and not whole:
            self.notice(f"{name}: only {wanted / size:.0%} is wanted, so its sha256 cannot be verified")
        spans = chunks(size, self._chunk, [] if whole or watched else pieces)
        hashed = hashlib.sha256()
        fresh: list[tuple[int, int | None]] = []
        for (start, stop), content in self._arriving(name, spans, pieces, done):
            if whole:
                hashed.update(content)
            for tensor, state in watched:
                low, high = max(start, tensor.offset), min(stop, tensor.offset + tensor.nbytes)
                if low < high:
                    state.update(content[low - start : high - start])
            if start not in done:
                # Where a digest of the whole file will tell, a checksum of each chunk would tell no more.
                fresh.append((start, None if whole else zlib.crc32(content)))
            if len(fresh) >= NOTED_EVERY:
                journal.note(name, fresh, files)
                fresh = []
        journal.note(name, fresh, files)
        if whole and hashed.hexdigest() != digest:
            raise DifferenceError(
                f"{name} is not what the Hub says it is",
                cause=f"expected sha256 {digest}, found {hashed.hexdigest()}",
                hint="nothing was written; run it again",
            )
        return whole

    def _arriving(
        self,
        name: str,
        spans: Sequence[tuple[int, int]],
        pieces: Sequence[Piece],
        done: Chunks,
    ) -> Iterator[tuple[tuple[int, int], memoryview]]:
        """Chunks in order, each written already, with several of them under way. A chunk is valid until the
        next one is asked for."""
        waiting: deque[tuple[tuple[int, int], memoryview, Future[None]]] = deque()
        ahead = max(1, min(AHEAD, self.options.max_memory // 2 // self._chunk))
        free = [Buffers(self._chunk) for _ in range(ahead)]
        with ThreadPoolExecutor(ahead, thread_name_prefix="porter-fetch") as pool:
            try:
                for number, (start, stop) in enumerate(spans):
                    if len(waiting) == ahead:
                        yield self._first(waiting)
                    view = free[number % ahead].take("chunk", stop - start)
                    bring = partial(self._read_back, done[start]) if start in done else self._fetch
                    waiting.append(((start, stop), view, pool.submit(bring, name, start, view, pieces)))
                while waiting:
                    yield self._first(waiting)
            finally:
                # Nothing may write to a file that is closed.
                self._stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                self._stopped.clear()

    @staticmethod
    def _first(
        waiting: deque[tuple[tuple[int, int], memoryview, Future[None]]],
    ) -> tuple[tuple[int, int], memoryview]:
        span, view, future = waiting.popleft()
        future.result()
        return span, view

    @property
    def _chunk(self) -> int:
        return min(CHUNK, self.options.max_memory // 4)

    def _fetch(self, name: str, start: int, view: memoryview, pieces: Sequence[Piece]) -> None:
        """Fetches a chunk and writes what is wanted of it to its places."""
        self.source.read(name, start, view, self._stopped)
        for piece, low, high in overlapping(pieces, start, start + len(view)):
            for writer, offset in piece.places:
                at, content = offset + low - piece.start, view[low - start : high - start]
                self._sum(writer, at, content)
                writer.write(at, content)
                start_writeback(writer.fd, at, len(content))

    def _read_back(
        self, crc: int | None, name: str, start: int, view: memoryview, pieces: Sequence[Piece]
    ) -> None:
        """A chunk that an earlier run has written: from the output; what is in no place is fetched again.

        A chunk that is not what was noted is fetched anew.
        """
        stop = start + len(view)
        at = start
        for piece, low, high in overlapping(pieces, start, stop):
            if at < low:
                self.source.read(name, at, view[at - start : low - start], self._stopped)
            writer, offset = piece.places[0]
            writer.read(view[low - start : high - start], offset + low - piece.start)
            at = high
        if at < stop:
            self.source.read(name, at, view[at - start :], self._stopped)
        if crc is not None and zlib.crc32(view) != crc:
            self.notice(f"{name}: a chunk does not hold what was noted; it is fetched again")
            self._fetch(name, start, view, pieces)
            return
        for piece, low, high in overlapping(pieces, start, stop):
            for writer, offset in piece.places:
                self._sum(writer, offset + low - piece.start, view[low - start : high - start])
                writer.count(high - low)

    def _sum(self, writer: WeightFile, at: int, content: memoryview) -> None:
        """Sums what is written to a torch file, whose directory holds a CRC-32 for each tensor."""
        if writer.name in self._crcs:
            self._crcs[writer.name][at, at + len(content)] = zlib.crc32(content)

    def tensor_crcs(self, file: OutputFile) -> dict[str, int]:
        """The CRC-32 of each tensor of a torch file; what did not come in pieces is read again."""
        summed = sorted(self._crcs.get(file.name, {}).items())
        found = {}
        for tensor in file.tensors:
            at, end, crc = tensor.offset, tensor.offset + tensor.nbytes, 0
            index = bisect_left(summed, ((at, 0), 0))
            while index < len(summed) and summed[index][0][0] == at < end:
                (start, at), one = summed[index]
                crc, index = joined(crc, one, at - start), index + 1
            if at < end:
                crc = range_crc(self.writers[file.name], tensor.offset, end)
            if tensor.nbytes:
                found[tensor.name] = crc
        return found

    def _watch(self, name: str) -> list[tuple[StoredTensor, Any]]:
        """Tensors of this file that a check compares, each with the hash of what has come of it."""
        named = {tensor for check in plain_checks(self.plan) for tensor in (check.kept, check.dropped)}
        found = []
        for tensor in self.plan.sources:
            if tensor.name in named and tensor.file == name:
                self._watched[tensor.name] = hashlib.sha256()
                found.append((tensor, self._watched[tensor.name]))
        return found

    def _check_equal(self) -> None:
        for check in plain_checks(self.plan):
            one, two = self._watched[check.kept], self._watched[check.dropped]
            if one.digest() != two.digest():
                raise difference(check, "their bytes differ")

    def _finish_spooled(self, spools: Mapping[str, WeightFile]) -> None:
        """Runs what could not be written as it came, from the sparse files."""
        with ExitStack() as stack:
            files = {}
            for name, spool in spools.items():
                path = Path(f"/proc/self/fd/{spool.fd}")
                files[name] = SourceFile(path, name, spool.size)
                stack.callback(files[name].close)
            if spools:
                plain = plain_checks(self.plan)
                left = tuple(check for check in self.plan.checks if check not in plain)
                run_checks(replace(self.plan, checks=left), files)
            for copy in self.plan.copies:
                if copy.copy_class != EXTENT:
                    self._move(copy, files)
        for zeros in self.plan.zeros:
            target = self.plan.target_by_name[zeros.target]
            self.writers[target.file].count(target.dtype.nbytes(elements(zeros.loops)))

    def _move(self, copy: Copy, files: Mapping[str, SourceFile]) -> None:
        source, target = self.plan.source_by_name[copy.source], self.plan.target_by_name[copy.target]
        count = target.dtype.nbytes(elements(copy.loops))
        end = target.offset + target.nbytes
        into = RangeWriter(self.writers[target.file], target.offset, end, count, summed=False)
        factors = None
        if source.scales:
            scales = self.plan.source_by_name[source.scales]
            factors = (scales, files[scales.file])
        buffers = Buffers(self.options.max_memory // 2)
        run_move(Move(copy, source, target, files[source.file], into, buffers, factors=factors))
        into.finish()
