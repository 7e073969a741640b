"""A pass over far source files that finishes units as their bytes come, so that each byte comes once.

Source files are read front to back in chunks, several in flight. As soon as a chunk has come, what is wanted
of it is written to its places, and chunks are hashed in order: a file's published sha256 is verified although
the file never exists here. Units made of extents get their bytes at once. What any other unit, or a check,
reads needs more than one look and is spooled: the tensors wait in a sparse file beside the output, from which
the units are run afterwards as from any near source. A file of which little is wanted is read in part, and
then cannot be verified: the caller is told.

A unit, and a range of a spool, is noted in the sink's journal when all of it has come. Where the digest of
the whole source file will tell, it has no checksum: a run that goes on reads the bytes back from where they
stand, from every place, and hashes those.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from porter.errors import DifferenceError
from porter.execution import units as division
from porter.execution.buffers import Buffers
from porter.execution.open_files import OpenFiles
from porter.execution.run_options import RunOptions
from porter.execution.sinks.base import Range, Ranges, Sink
from porter.execution.units import Unit
from porter.execution.watch import Watch
from porter.execution.writers import Tally, Writer, range_crc
from porter.layout.copies import elements
from porter.planning.plan import Plan, checked
from porter.sources.base import Source, TellingFile
from porter.sources.overlay import OverlaySource

# Bytes per request: large enough that a round trip does not count, small enough to go on from.
CHUNK = 8 << 20

# Requests in flight. The Hub serves one connection at 50 to 200 MB/s; memory is CHUNK times this, and at
# most half of what the run may have.
AHEAD = 8

# A file of which at least this share is wanted is read whole, so that its digest can be verified.
WHOLE = 0.9


@runtime_checkable
class StreamSink(Sink, Protocol):
    """A sink that can keep scratch files beside the output."""

    def scratch(self, name: str, size: int) -> Writer: ...

    def scratch_path(self, name: str) -> Path: ...

    def drop_scratch(self, name: str) -> None: ...


@dataclass
class Delivery:
    """A range of a file that gets `left` bytes more, in pieces. `kept` says that an earlier run has had it,
    `unsummed` that it noted no checksum.
    """

    writer: Writer
    start: int
    end: int
    left: int
    sources: set[str]
    kept: bool = False
    unsummed: bool = False


class Piece(NamedTuple):
    """Bytes `start` to `stop` of a source file, which go to byte `to` of a delivery's file."""

    start: int
    stop: int
    to: int
    delivery: Delivery


@dataclass
class Passed:
    """What the pass has left: files to run the rest from, finished ranges, files whose digest was right."""

    files: OpenFiles
    finished: dict[str, dict[Range, int | None]]
    verified: tuple[str, ...]


@contextmanager
def stream(
    plan: Plan,
    files: OpenFiles,
    sink: StreamSink,
    units: Mapping[str, Sequence[Unit]],
    tallies: Mapping[str, Tally],
    kept: Mapping[str, Ranges],
    *,
    options: RunOptions,
    watch: Watch,
) -> Iterator[Passed]:
    """Passes over all source files of a plan. The spools are there until the context ends.

    Raises DifferenceError for a file that is not what its publisher says, and whatever reading raises.
    """
    run = _Stream(plan, files, sink, tallies, options, watch)
    run.deliver(units, kept)
    names = run.spool(units, kept)
    verified = run.run()
    source: Source = OverlaySource(
        files.source, {name: sink.scratch_path(spool) for name, spool in names.items()}, near=True
    )
    with OpenFiles(source, {}) as near:
        yield Passed(near, run.finished, verified)
    for spool in names.values():
        sink.drop_scratch(spool)


@dataclass
class _Stream:
    plan: Plan
    files: OpenFiles
    sink: StreamSink
    tallies: Mapping[str, Tally]
    options: RunOptions
    watch: Watch
    pieces: dict[str, list[Piece]] = field(default_factory=dict)
    finished: dict[str, dict[Range, int | None]] = field(default_factory=dict)
    _whole: set[str] = field(default_factory=set)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def deliver(self, units: Mapping[str, Sequence[Unit]], kept: Mapping[str, Ranges]) -> None:
        """Units made of extents alone get their bytes where they belong."""
        for file in self.plan.files:
            self.finished[file.name] = {}
            # All of a file's room is wanted soon, and a full disk is better found now.
            self.sink.reserve(self.sink.create(file))
            for unit in units[file.name]:
                if unit.extents:
                    self._unit(unit, self.sink.create(file), kept.get(file.name, {}))

    def _unit(self, unit: Unit, writer: Writer, kept: Ranges) -> None:
        sources = {part.source.file for part in unit.parts if part.source is not None}
        delivery = Delivery(writer, unit.start, unit.end, unit.nbytes, sources)
        self._believe(delivery, kept)
        for part in unit.parts:
            assert part.source is not None
            dtype = part.source.dtype
            start = part.source.offset + dtype.nbytes(part.box.source)
            to = part.target.offset + dtype.nbytes(part.box.target)
            self._add(part.source.file, start, dtype.nbytes(elements(part.box.loops)), to, delivery)

    def spool(self, units: Mapping[str, Sequence[Unit]], kept: Mapping[str, Ranges]) -> dict[str, str]:
        """Tensors that have to be whole before they are read: the spool's name by source file."""
        wanted = {tensor for check in self.plan.checks for tensor in checked(check)}
        for unit in (unit for several in units.values() for unit in several if not unit.extents):
            for part in unit.parts:
                wanted |= {found.name for found in (part.source, part.scales) if found is not None}
        names: dict[str, str] = {}
        for number, (file, size) in enumerate(self.plan.source_sizes.items()):
            tensors = [t for t in self.plan.sources if t.file == file and t.name in wanted and t.nbytes]
            if not tensors:
                continue
            names[file] = f".spool-{number}"
            writer = self.sink.scratch(names[file], size)
            for tensor in tensors:
                end = tensor.offset + tensor.dtype.nbytes(tensor.span)
                for start in range(tensor.offset, end, division.RANGE):
                    stop = min(start + division.RANGE, end)
                    delivery = Delivery(writer, start, stop, stop - start, {file})
                    self._believe(delivery, kept.get(names[file], {}))
                    self._add(file, start, stop - start, start, delivery)
        return names

    def _believe(self, delivery: Delivery, kept: Ranges) -> None:
        """Whether an earlier run has had a range: its checksum is right, or a digest will tell."""
        writer, range_ = delivery.writer, (delivery.start, delivery.end)
        if range_ not in kept or not getattr(writer, "resumed", False):
            return
        crc = kept[range_]
        delivery.unsummed = crc is None
        delivery.kept = crc is None or range_crc(writer, *range_) == crc
        if not delivery.kept:
            self.watch.notice(f"{writer.name}: a range does not hold what was noted; it is fetched again")

    def _add(self, file: str, start: int, nbytes: int, to: int, delivery: Delivery) -> None:
        if nbytes:
            self.pieces.setdefault(file, []).append(Piece(start, start + nbytes, to, delivery))

    def run(self) -> tuple[str, ...]:
        infos = self.files.source.files()
        for name, size in self.plan.source_sizes.items():
            pieces = self.pieces.get(name, [])
            pieces.sort(key=_place)
            digest = infos[name].digest if name in infos else None
            if digest is not None and pieces:
                share = _covered(pieces) / size
                if share >= WHOLE:
                    self._whole.add(name)
                else:
                    self.watch.notice(f"{name}: only {share:.0%} is wanted, so its sha256 cannot be verified")
        self._settle_kept()
        verified = []
        for name, size in self.plan.source_sizes.items():
            if self.pieces.get(name):
                self.watch.moving(name)
                file, arriving = self.files[name], self.watch.arriving
                if arriving is not None and isinstance(file, TellingFile):
                    file.arrived = partial(arriving, name)
                self._file(name, size, infos[name].digest if name in self._whole else None)
                if name in self._whole:
                    verified.append(name)
        return tuple(verified)

    def _settle_kept(self) -> None:
        """Ranges without a checksum are believed only where all of their sources are hashed this time."""
        seen: set[int] = set()
        for delivery in (piece.delivery for pieces in self.pieces.values() for piece in pieces):
            if id(delivery) in seen:
                continue
            seen.add(id(delivery))
            delivery.kept &= not delivery.unsummed or delivery.sources <= self._whole
            if delivery.kept:
                self._finish(delivery, fresh=False)

    def _file(self, name: str, size: int, digest: str | None) -> None:
        chunk = min(CHUNK, self.options.max_memory // 4)
        wanted: dict[int, list[Piece]] = {}
        for piece in self.pieces[name]:
            for number in range(piece.start // chunk, (piece.stop - 1) // chunk + 1):
                wanted.setdefault(number, []).append(piece)
        numbers = range(-(-size // chunk)) if digest is not None else sorted(wanted)
        hashed = hashlib.sha256()
        for content in self._arriving(name, size, chunk, numbers, wanted):
            if digest is not None:
                hashed.update(content)
        if digest is not None and hashed.hexdigest() != digest:
            raise DifferenceError(
                f"{name} is not what its publisher says it is",
                cause=f"expected sha256 {digest}, found {hashed.hexdigest()}",
                hint="nothing was written; run it again",
            )

    def _arriving(
        self, name: str, size: int, chunk: int, numbers: Sequence[int], wanted: Mapping[int, list[Piece]]
    ) -> Iterator[memoryview]:
        """Chunks in order, each written already, with several of them under way. A chunk is valid until the
        next one is asked for."""
        waiting: deque[tuple[memoryview, Future[None]]] = deque()
        ahead = max(1, min(AHEAD, self.options.max_memory // 2 // chunk))
        free = [Buffers(chunk) for _ in range(ahead)]
        with ThreadPoolExecutor(ahead, thread_name_prefix="porter-fetch") as pool:
            try:
                for at, number in enumerate(numbers):
                    if len(waiting) == ahead:
                        yield self._first(waiting)
                    start = number * chunk
                    view = free[at % ahead].take("chunk", min(chunk, size - start))
                    work = partial(self._bring, name, start, view, wanted.get(number, []))
                    waiting.append((view, pool.submit(work)))
                while waiting:
                    yield self._first(waiting)
            except BaseException:
                # Nothing may write to a file that is closed, and nobody waits for what is not wanted.
                self._stopped.set()
                self.files[name].close()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    @staticmethod
    def _first(waiting: deque[tuple[memoryview, Future[None]]]) -> memoryview:
        view, future = waiting.popleft()
        future.result()
        return view

    def _bring(self, name: str, start: int, view: memoryview, pieces: Sequence[Piece]) -> None:
        """One chunk: what an earlier run has written is read back, the rest is fetched and written."""
        if self._stopped.is_set():
            return
        stop = start + len(view)
        kept = [piece for piece in pieces if piece.delivery.kept]
        there = self._read_back(name, start, view, kept)
        fresh = pieces
        if there is not None:
            fresh = [piece for piece in pieces if not piece.delivery.kept]
        wanted = [(start, stop)] if name in self._whole else [_within(piece, start, stop) for piece in pieces]
        for low, high in without(_joined(wanted), there or []):
            self.files[name].read([view[low - start : high - start]], low)
        for piece in fresh:
            low, high = _within(piece, start, stop)
            piece.delivery.writer.write(piece.to + low - piece.start, view[low - start : high - start])
            if not piece.delivery.kept:
                self._count(piece.delivery, high - low)

    def _count(self, delivery: Delivery, nbytes: int) -> None:
        if delivery.writer.name in self.tallies:
            self.tallies[delivery.writer.name].add(nbytes)
        with self._lock:
            delivery.left -= nbytes
            done = delivery.left == 0
        if done:
            delivery.writer.begin_writeback(delivery.start, delivery.end - delivery.start)
            self._finish(delivery, fresh=True)

    def _finish(self, delivery: Delivery, *, fresh: bool) -> None:
        range_ = (delivery.start, delivery.end)
        if delivery.writer.name in self.finished:
            self.finished[delivery.writer.name][range_] = None
        if not fresh:
            if delivery.writer.name in self.tallies:
                self.tallies[delivery.writer.name].add(delivery.end - delivery.start)
            return
        if self.sink.resumable:
            crc = None if delivery.sources <= self._whole else range_crc(delivery.writer, *range_)
            self.sink.note(delivery.writer, *range_, crc)

    def _read_back(
        self, name: str, start: int, view: memoryview, kept: Sequence[Piece]
    ) -> list[tuple[int, int]] | None:
        """Fills a chunk with what stands in the places of its pieces: the ranges of the source file that it
        has then. None where two places do not hold the same.
        """
        have: list[tuple[int, int]] = []
        for piece in kept:
            low, high = _within(piece, start, start + len(view))
            found = memoryview(bytearray(high - low))
            piece.delivery.writer.read(found, piece.to + low - piece.start)
            for first, last in have:
                first, last = max(first, low), min(last, high)
                if first < last and found[first - low : last - low] != view[first - start : last - start]:
                    self.watch.notice(f"{name}: what came does not stand twice alike; it is fetched again")
                    return None
            view[low - start : high - start] = found
            have = _joined([*have, (low, high)])
        return have


def _within(piece: Piece, start: int, stop: int) -> tuple[int, int]:
    return max(start, piece.start), min(stop, piece.stop)


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes as ranges in order that do not touch."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        elif start < stop:
            found.append((start, stop))
    return found


def without(ranges: Sequence[tuple[int, int]], taken: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What is left of `ranges` without `taken`; both are in order and do not touch."""
    for start, stop in ranges:
        for low, high in taken:
            if high <= start or low >= stop:
                continue
            if start < low:
                yield start, low
            start = high
        if start < stop:
            yield start, stop


def _place(piece: Piece) -> tuple[int, int]:
    return piece.start, piece.stop


def _covered(pieces: Sequence[Piece]) -> int:
    """Bytes of a source file that are in some piece."""
    return sum(stop - start for start, stop in _joined([(piece.start, piece.stop) for piece in pieces]))
