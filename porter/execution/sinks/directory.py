"""A directory as a sink: staged beside its place, durable, and published by one rename.

A run that is killed or interrupted leaves what the same run can go on with; so does one from afar whose
network broke. Any other failure leaves nothing.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from porter.containers.base import OutputFile
from porter.errors import PorterError
from porter.execution.cluster.tasks import Record, SharedFile
from porter.execution.digests import Digest
from porter.execution.journal import Journal, read_journal
from porter.execution.run_options import ALWAYS, RunOptions
from porter.execution.sinks.base import Ranges
from porter.execution.staging import Stage, publish, staging
from porter.execution.watch import Watch
from porter.execution.writers import WRITE, Stopped, Writer
from porter.system import read_into, reserve, start_writeback, sync_file


class Interrupted(KeyboardInterrupt):
    """The user interrupted a run; the same run will not have to move `kept` bytes again. They are kept beside
    the output, in `place`, until it is run again or `porter doctor --clean` drops them.
    """

    def __init__(self, kept: int, place: str) -> None:
        super().__init__(kept)
        self.kept, self.place = kept, place


class FileWriter:
    """A file of exactly `size` bytes, written at any offsets in any order.

    A file that is already there is taken over if it has that size; `resumed` says so.
    """

    readable = True

    def __init__(self, path: Path, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.stopped = threading.Event()
        self._writing = threading.Lock()
        # 0666 lets the umask decide, as it does for files that a user makes.
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        self.resumed = size > 0 and os.fstat(self.fd).st_size == size
        if not self.resumed:
            os.ftruncate(self.fd, 0)
            os.ftruncate(self.fd, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        if offset < 0 or offset + len(view) > self.size:
            raise PorterError(f"{self.name}: the plan writes outside the file", cause=f"at byte {offset}")
        done = 0
        while done < len(view):
            if self.stopped.is_set():
                raise Stopped
            # The system lets one thread write to a file at a time, and the others burn their time waiting.
            with self._writing:
                done += os.pwrite(self.fd, view[done : done + WRITE], offset + done)

    def read(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            count = read_into(self.fd, [view[done:]], offset + done)
            if count == 0:
                raise PorterError(f"{self.name} was cut short while it was written")
            done += count

    def begin_writeback(self, offset: int, length: int) -> None:
        start_writeback(self.fd, offset, length)

    def finish(self) -> None:
        sync_file(self.fd)

    def close(self) -> None:
        os.close(self.fd)


class DirectorySink:
    """`out` is where the directory goes; it has been looked at by `check_output`. `far` says that the source
    is far away, so that what has come is kept when the network breaks.
    """

    frames = True
    ordered = False
    unit_bytes: int | None = None

    def __init__(
        self,
        out: Path,
        plan_hash: str,
        *,
        force: bool = False,
        far: bool = False,
        options: RunOptions | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._out, self._hash = out, plan_hash
        self._force, self._far = force, far
        self._options, self._watch = options or RunOptions(), watch or Watch()
        self._stack = ExitStack()
        self._writers: dict[str, FileWriter] = {}
        self._journal: Journal | None = None
        self._stage: Stage | None = None
        self._reserved: set[str] = set()
        self._made: set[str] = set()
        self._finished: os.stat_result | None = None

    @property
    def resumable(self) -> bool:
        return self._options.resume

    @property
    def stage(self) -> Stage:
        assert self._stage is not None, "a sink is used as a context"
        return self._stage

    def __enter__(self) -> Self:
        self._stage = self._stack.enter_context(
            staging(self._out, self._hash, self._watch.notice, force=self._force)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            try:
                if self._journal is not None:
                    self._journal.close()
            except OSError as failure:
                # What was noted is all that counts; a run that failed has an error of its own.
                if error is None:
                    raise PorterError(
                        f"the conversion to {self._out} failed", cause=str(failure)
                    ) from failure
            finally:
                for writer in self._writers.values():
                    writer.close()
                self._writers = {}
            if error is not None:
                self._keep(error)

    def _keep(self, error: BaseException) -> None:
        """Leaves the staging directory where there is cause to, and says so in the error."""
        if self._published():
            if isinstance(error, KeyboardInterrupt):
                self._watch.notice(f"{self._out} is complete")
            return
        noted = self._journal.noted if self._journal is not None else 0
        if not noted:
            return
        if isinstance(error, KeyboardInterrupt):
            self.stage.keep = True
            raise Interrupted(noted, str(self._out.parent)) from None
        if self._far and isinstance(error, PorterError) and error.exit_code == PorterError.exit_code:
            # What has come is right, or the digest at the end will say so. Bad bytes are not kept.
            self.stage.keep = True
            error.hint = f"{error.hint}; the same command goes on" if error.hint else "run it again to go on"

    def begin(self, key: Mapping[str, Any]) -> Mapping[str, Ranges]:
        kept = read_journal(self.stage.journal, key) if self._options.resume else None
        if kept is None:
            if self.stage.journal.exists():
                why = "a source file has changed since" if self._options.resume else "as asked for"
                self._watch.notice(f"an unfinished conversion is started anew: {why}")
            self.stage.clear()
            kept = {}
        elif kept:
            done = sum(end - start for ranges in kept.values() for start, end in ranges)
            self._watch.notice(
                f"going on where an earlier run was stopped, {done / 1e9:.2f} GB into the work"
            )
        if self._options.resume:
            self._journal = Journal(self.stage.journal, key, kept)
        return kept

    def create(self, file: OutputFile) -> FileWriter:
        self._made.add(file.name)
        if file.name not in self._writers:
            self._writers[file.name] = FileWriter(self._place(file.name), file.name, file.size)
        return self._writers[file.name]

    def place(self, file: OutputFile) -> SharedFile:
        self.reserve(self.create(file))
        return SharedFile(str(self.stage.path / file.name))

    def sent(self, file: OutputFile) -> dict[int, Record]:
        """What a journal notes is read again before it is believed."""
        return {}

    def add(self, file: OutputFile, record: Record) -> None:
        self.note(self.create(file), record.start, record.end, record.crc)

    def end(self, file: OutputFile, *, hashed: bool) -> str | None:
        writer = self.create(file)
        try:
            writer.finish()
            self.flush()
            return Digest(writer, [(0, file.size)], ALWAYS).result() if hashed else None
        finally:
            self.close(writer)

    def scratch(self, name: str, size: int) -> FileWriter:
        """A sparse file that is no part of the output and goes with the run; resumed as output files are."""
        writer = self.create(OutputFile(name, "", size, ()))
        self._made.discard(name)
        return writer

    def scratch_path(self, name: str) -> Path:
        return self.stage.path / name

    def drop_scratch(self, name: str) -> None:
        self.close(self._writers[name])
        self.scratch_path(name).unlink()

    def reserve(self, writer: Writer) -> None:
        """Reserves the file's room on disk, once. Raises OSError if there is too little."""
        if isinstance(writer, FileWriter) and writer.name not in self._reserved:
            self._reserved.add(writer.name)
            reserve(writer.fd, writer.size)

    def note(self, writer: Writer, start: int, end: int, crc: int | None) -> None:
        if self._journal is not None and isinstance(writer, FileWriter):
            self._journal.note(writer, start, end, crc)

    def flush(self) -> None:
        if self._journal is not None:
            self._journal.flush()

    def close(self, writer: Writer) -> None:
        try:
            self.flush()
        finally:
            self._writers.pop(writer.name, None)
            writer.close()

    def put(self, name: str, pieces: Iterable[bytes]) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        self._made.add(name)
        path = self._place(name)
        path.unlink(missing_ok=True)
        with path.open("xb") as stream:
            for piece in pieces:
                stream.write(piece)
                digest.update(piece)
                size += len(piece)
            stream.flush()
            sync_file(stream.fileno())
        return f"sha256:{digest.hexdigest()}", size

    def commit(self) -> None:
        if self._journal is not None:
            self._journal.close()
        self._finished = self.stage.path.lstat()
        publish(self.stage, self._out, force=self._force, files=self._made)

    def _published(self) -> bool:
        """Whether the output stands, however the run ended. An interrupt may come between any two steps."""
        if self._finished is None:
            return False
        try:
            return os.path.samestat(self._out.lstat(), self._finished)
        except FileNotFoundError:
            return False

    def _place(self, name: str) -> Path:
        path = self.stage.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
