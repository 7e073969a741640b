"""A folder in a bucket as a sink: uploads in parts, none of which can be read before the commit.

Memory holds the few parts that are under way. The commit completes the uploads: weights, then side files,
then indexes and configs, the receipt last; whoever looks meanwhile finds no checkpoint that could be loaded.
A run that fails gives its uploads up; one that is interrupted leaves them, with a claim that says which parts
are done, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any, Self

from porter.containers.base import OutputFile
from porter.errors import PorterError, UnsupportedError, UsageError
from porter.execution.cluster.tasks import Record, UploadPlace
from porter.execution.leftovers import RECEIPT
from porter.execution.run_options import RunOptions
from porter.execution.sinks import multipart
from porter.execution.sinks.base import Range, Ranges
from porter.execution.sinks.bucket_leftovers import settle_bucket, uploads_of
from porter.execution.sinks.bucket_writer import PART, BucketWriter
from porter.execution.sinks.claim import PREFIX, SUFFIX, Claim, Claimed, claimed_around, in_use, read_claim
from porter.execution.sinks.directory import Interrupted
from porter.execution.sinks.multipart import SentPart, Upload
from porter.execution.units import Unit
from porter.execution.watch import Watch
from porter.execution.writers import Stopped, Writer
from porter.sources.buckets.bucket_address import BucketAddress
from porter.sources.weight_files import INDEX
from porter.wording import command, flag

# Parts that are being sent while the next one is made.
_UPLOADS = 2

# Seconds that a user who interrupts waits for parts that are being sent; then they are given up.
_PATIENCE = 5.0

# Read by whoever loads the checkpoint first: without them it is none.
_CONFIGS = ("config.json", "model_config.yaml", "params.json", "metadata.json", "_METADATA")


class BucketSink:
    """`out` is the folder to fill. Only S3 takes parts from several writers, and conditions on a write."""

    frames = True
    ordered = True
    # Bytes; see `PartSink`.
    unit_bytes: int | None = PART

    def __init__(
        self,
        out: BucketAddress,
        *,
        force: bool = False,
        options: RunOptions | None = None,
        watch: Watch | None = None,
    ) -> None:
        check_address(out)
        self._out, self._force = out, force
        self._options, self._watch = options or RunOptions(), watch or Watch()
        self._claim: Claim | None = None
        self._writers: dict[str, BucketWriter] = {}
        self._made: dict[str, BucketWriter] = {}
        self._weights: list[str] = []
        self._flying: set[Future[None]] = set()
        self._room = threading.Semaphore(_UPLOADS)
        self._kept: dict[str, tuple[Upload, dict[int, SentPart]]] = {}
        self._committed = False

    @property
    def resumable(self) -> bool:
        """Parts are noted, not ranges: nothing has to be summed for it."""
        return False

    @property
    def claim(self) -> Claim:
        assert self._claim is not None, "a sink is begun before it is used"
        return self._claim

    def __enter__(self) -> Self:
        return self

    def begin(self, key: Mapping[str, Any]) -> Mapping[str, Ranges]:
        before = read_claim(self._out)
        if before is not None and before.in_use:
            raise in_use(self._out)
        if before is not None:
            settle_bucket(self._out, before)
        check_bucket(self._out, force=self._force)
        # A cluster says itself how it divides files.
        claim = Claim(self._out, {"parts": self.unit_bytes, **key})
        if before is not None:
            self._take_over(before, claim)
        claim.take(before)
        self._claim = claim
        # Another run may have ended between the first look and the claim, or have begun around this output.
        check_bucket(self._out, force=self._force)
        if (around := claimed_around(self._out)) is not None:
            raise in_use(around)
        if before is not None:
            kept = {upload.id for upload, _ in self._kept.values()}
            for upload in uploads_of(self._out):
                if upload.id not in kept:
                    multipart.give_up(upload)
        return {}

    def _take_over(self, before: Claimed, claim: Claim) -> None:
        """Goes on with what an earlier run of the same key has sent, as far as the store has it still."""
        same = before.content.get("key") == claim.key
        if self._options.resume and same:
            for name, (upload, parts) in before.uploads(self._out).items():
                there = multipart.sent(upload)
                right = {
                    number: part
                    for number, part in parts.items()
                    if there.get(number) == (part.etag, part.end - part.start)
                }
                if right:
                    self._kept[name] = claim.files[name] = upload, right
            kept = sum(p.end - p.start for _, parts in self._kept.values() for p in parts.values())
            if kept:
                self._watch.notice(f"going on where an earlier run was stopped, {kept / 1e9:.2f} GB into it")
                return
        if before.content.get("files"):
            why = "another plan" if not same else "as asked for" if not self._options.resume else "too early"
            self._watch.notice(f"an unfinished conversion to {self._out.url} is started anew: {why}")

    def finished(self, file: str, units: Sequence[Unit]) -> dict[Range, int | None]:
        """The units of a file all of whose bytes an earlier run has sent."""
        _, parts = self._kept.get(file, (None, {}))
        return {
            (unit.start, unit.end): None
            for unit in units
            if unit.tensor is not None and _covers(parts.values(), unit.start, unit.end)
        }

    def create(self, file: OutputFile) -> BucketWriter:
        if file.name not in self._writers:
            self._weights.append(file.name)
            self._writers[file.name] = self._begin(file.name, file.size)
        return self._writers[file.name]

    def _begin(self, name: str, size: int) -> BucketWriter:
        upload, done = self._kept.get(name) or (multipart.begin(self._out, name), {})
        self.claim.note(upload)
        writer = BucketWriter(self.send_soon, upload, size, done)
        self._made[name] = writer
        return writer

    def send_soon(self, writer: BucketWriter, number: int, data: bytearray) -> Future[None]:
        """Sends a part in the background; waits while as many are under way as memory has room for."""
        self.claim.check()
        self._room.acquire()
        sending: Future[None] = Future()
        self._flying.add(sending)

        def work() -> None:
            try:
                self._send(writer, number, data)
                sending.set_result(None)
            except BaseException as error:
                sending.set_exception(error)
            finally:
                self._flying.discard(sending)
                self._room.release()

        # A pool's threads would be waited for at Python's exit, whatever a store lets them wait for.
        threading.Thread(target=work, name="porter-send", daemon=True).start()
        return sending

    def _send(self, writer: BucketWriter, number: int, data: bytearray) -> None:
        if writer.stopped.is_set():
            raise Stopped
        start, _ = writer.part_range(number)
        part = multipart.send(writer.upload, number, start, data, zlib.crc32(data), writer.stopped.wait)
        writer.parts[number] = part
        self.claim.note(writer.upload, part)

    def place(self, file: OutputFile) -> UploadPlace:
        return UploadPlace(self.create(file).upload)

    def sent(self, file: OutputFile) -> dict[int, Record]:
        parts = self.create(file).parts
        return {n: Record(file.name, *part, node="", seconds=0.0) for n, part in parts.items()}

    def add(self, file: OutputFile, record: Record) -> None:
        writer = self.create(file)
        part = SentPart(record.number, record.start, record.end, record.etag, record.crc, record.digest)
        writer.parts[part.number] = part
        self.claim.note(writer.upload, part)
        self.claim.check()

    def end(self, file: OutputFile, *, hashed: bool) -> str | None:
        """Nothing can be read before the commit."""
        self.create(file).finish()
        return None

    def reserve(self, writer: Writer) -> None:
        """A bucket has room."""

    def note(self, writer: Writer, start: int, end: int, crc: int | None) -> None:
        """Parts are noted when they have been sent."""

    def flush(self) -> None:
        self.claim.check()

    def close(self, writer: Writer) -> None:
        self._writers.pop(writer.name, None)
        writer.close()

    def put(self, name: str, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Small files are uploads too, so that nothing is to be seen before the commit."""
        self._kept.pop(name, None)
        upload = multipart.begin(self._out, name)
        self.claim.note(upload)
        digest, size, parts = hashlib.sha256(), 0, {}
        for number, part in enumerate(_of_size(pieces, PART), 1):
            digest.update(part)
            parts[number] = multipart.send(upload, number, size, part, zlib.crc32(part))
            size += len(part)
        self._made[name] = writer = BucketWriter(self.send_soon, upload, size, parts)
        writer.crc = multipart.composed(parts.values())
        return f"sha256:{digest.hexdigest()}", size

    def commit(self) -> None:
        there = check_bucket(self._out, force=self._force)
        self.claim.replaced = tuple(there)
        self.claim.save("publishing")
        # A mixture of two outputs must never look like one: what makes the old one readable goes first.
        for name in sorted(there, key=self._place, reverse=True):
            multipart.remove(self._out, name)
        done: list[str] = []
        try:
            for name in sorted(self._made, key=self._place):
                writer = self._made[name]
                self.claim.check()
                done.append(name)
                multipart.complete(writer.upload, writer.parts, writer.size)
        except BaseException as error:
            self._take_back(done, error)
            raise
        self._committed = True

    def _place(self, name: str) -> tuple[int, str]:
        """Where a file comes in the commit."""
        if name == RECEIPT:
            return 3, name
        if name.endswith(INDEX) or name.rpartition("/")[2] in _CONFIGS:
            return 2, name
        return (0 if name in self._weights else 1), name

    def _take_back(self, done: Sequence[str], error: BaseException) -> None:
        """Removes what this commit has made readable. The last of them may be somebody else's, and so may
        all where another run has taken the claim.
        """
        try:
            self.claim.save()
        except PorterError:
            if self.claim.lost is not None:
                return
        if isinstance(error, PorterError):
            done = done[:-1]
        for name in reversed(done):
            with contextlib.suppress(PorterError):
                multipart.remove(self._out, name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._made.values():
            writer.close()
        # Of an upload that is ended while a part of it arrives, the store may keep the part.
        wait(list(self._flying), _PATIENCE if isinstance(error, KeyboardInterrupt) else None)
        if self._claim is None:
            return
        if error is None or self._committed:
            self._claim.release()
            return
        self._claim.end()
        if self._claim.lost is not None:
            # What there is is the other run's now.
            return
        kept = sum(p.end - p.start for _, parts in self._claim.files.values() for p in parts.values())
        if isinstance(error, KeyboardInterrupt) and self._options.resume and kept:
            self._claim.stop()
            raise Interrupted(kept, self._out.parent()[0].url) from None
        try:
            for upload, _ in self._claim.files.values():
                multipart.give_up(upload)
            self._claim.release()
        except PorterError as left:
            self._watch.notice(
                f"uploads to {self._out.url} are left behind ({left.message}); "
                f"`{command('doctor', self._out.parent()[0].url, clean=True)}` ends them"
            )


def check_address(out: BucketAddress) -> None:
    """Raises for what porter does not write to."""
    if out.scheme != "s3":
        raise UnsupportedError(
            f"porter does not write to {out.scheme}://",
            cause="it writes objects in parts, as S3 takes them",
            hint="s3://, also for stores that speak S3 (AWS_ENDPOINT_URL), or a directory",
        )
    if not out.folder:
        raise UsageError(f"{out.url} is a whole bucket", hint=f"name a folder in it: {out.url}/model")


def check_bucket(out: BucketAddress, *, force: bool) -> list[str]:
    """What lies in the folder. Raises UsageError for what must not be replaced."""
    # The folder itself may be an object, of no bytes, that consoles make.
    there = [name for name in multipart.keys(out, None if force else 2) if name]
    if there and not force:
        raise UsageError(
            f"{out.url} exists and is not empty", hint=f"choose another one, or pass {flag('force')}"
        )
    if there and RECEIPT not in there:
        raise UsageError(
            f"{out.url} was not written by porter",
            cause=f"{flag('force')} replaces only a folder that holds {RECEIPT}",
            hint="choose another output, or remove this one yourself",
        )
    within = next((name for name in there if name != RECEIPT and _of_another_run(name)), None)
    if within is not None:
        raise UsageError(
            f"another output lies in {out.url}",
            cause=f"{within} is not of the run that wrote it",
            hint="choose another output, or move that one away",
        )
    return there


def _of_another_run(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last == RECEIPT or (last.startswith(PREFIX) and last.endswith(SUFFIX))


def _covers(parts: Iterable[SentPart], start: int, end: int) -> bool:
    """Whether parts hold every byte of a range."""
    for part in sorted(parts, key=lambda part: part.start):
        if part.start <= start < part.end:
            start = part.end
    return start >= end


def _of_size(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`, and a last one that may be shorter. Of nothing, one empty piece."""
    held, any_whole = bytearray(), False
    for piece in pieces:
        held += piece
        while len(held) >= size:
            any_whole = True
            yield bytes(held[:size])
            del held[:size]
    if held or not any_whole:
        yield bytes(held)
