"""A large file from the Hub, by ranges over several connections, front to back, hashed as it comes.

Until it is whole and proved it stands beside its place, under the name that the Hub's client gives to such a
file. Whatever ends a run, what has come stays there, and the next run reads it back and goes on: of several
such files, which killed runs of any version of the client have left, the longest is taken and the others are
removed. What had come of the ranges beyond it is kept too, unless the process is killed (`hub_ahead`). The
client's own lock is held meanwhile, so that two downloads of one file never meet.
"""

from __future__ import annotations

import glob
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from porter import system
from porter.errors import DifferenceError, PorterError
from porter.sources.hub.hub_ahead import Ahead, Piece, keep
from porter.sources.hub.hub_ranges import RangeReader
from porter.sources.hub.listing import RepoFile

# Bytes per request, and requests in flight: as when a conversion streams (porter.execution.streaming).
CHUNK = 8 << 20
AHEAD = 8

# Bytes read back at a time.
_STEP = 1 << 20


def transfer(
    reader: RangeReader,
    file: RepoFile,
    place: Path,
    partial: Path,
    lock: Path,
    tick: Callable[[str, int], None] | None = None,
) -> bool:
    """Brings `file` to `place`, whole and proved; False if another process has brought it meanwhile,
    unproved.

    `partial` is where it stands until then. `tick` is told the file's name and each count of bytes that have
    come, as soon as they have and from the threads that fetch them; those of an earlier run at first. Raises
    DifferenceError for a wrong digest, and as `RangeReader.read`.
    """
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    for needed in (place, partial, lock):
        needed.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if place.is_file() and place.stat().st_size == file.size:
            return False
        ahead = Ahead(partial)
        resumed = _take_up(partial, file.size) or ahead.nbytes > 0
        try:
            found = _fetch(reader, file, partial, tick, ahead)
        finally:
            ahead.close()
        if found != file.sha256 and resumed:
            # What an earlier run has left need not have been this file's.
            partial.unlink()
            found = _fetch(reader, file, partial, None, None)
        if found != file.sha256:
            partial.unlink()
            raise wrong_digest(file, reader.listing.repo)
        partial.replace(place)
        system.sync_directory(place.parent)
    return True


def wrong_digest(file: RepoFile, repo: str) -> DifferenceError:
    return DifferenceError(
        f"{file.name} differs from what {repo} holds",
        cause=f"expected {'sha256' if file.sha256 else 'git blob'} {file.etag}, found another",
        hint="run it again: the file has been removed; if it happens twice, suspect a proxy or a mirror",
    )


def partials(partial: Path) -> list[Path]:
    """What unfinished transfers of one file have left, the longest first."""
    stem = glob.escape(partial.name.removesuffix(".incomplete"))
    found = [
        path
        for path in partial.parent.glob(f"{stem}*.incomplete")
        if path.is_file() and not path.is_symlink()
    ]
    return sorted(found, key=lambda path: -path.stat().st_size)


def remove_partials(partial: Path, lock: Path) -> None:
    """Removes what killed runs of the Hub's client have left of a small file, which it fetches anew."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    if partials(partial):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            for path in partials(partial):
                path.unlink()


def _take_up(partial: Path, size: int) -> bool:
    """Lets the longest of what is left, that is not too long, be `partial`; removes the rest."""
    left = [path for path in partials(partial) if path.stat().st_size <= size]
    if left and left[0] != partial:
        left[0].replace(partial)
    for path in partials(partial):
        if path != partial or not left:
            path.unlink()
    return bool(left)


def _fetch(
    reader: RangeReader,
    file: RepoFile,
    partial: Path,
    tick: Callable[[str, int], None] | None,
    ahead: Ahead | None,
) -> str:
    """Completes `partial` durably; the sha256 of all of it. Nothing that has come is lost by what ends it."""
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        hashed, done = hashlib.sha256(), os.fstat(fd).st_size
        buffer = memoryview(bytearray(_STEP))
        for start in range(0, done, _STEP):
            view = buffer[: min(_STEP, done - start)]
            if system.read_into(fd, [view], start) != len(view):
                raise PorterError(f"{partial} was cut short while it was read")
            hashed.update(view)
        if tick is not None and done:
            tick(file.name, done)
        left: list[Piece] = []
        try:
            with closing(_arriving(reader, file, done, tick, ahead, left)) as arriving:
                for content in arriving:
                    hashed.update(content)
                    view = content
                    while view:
                        count = os.pwrite(fd, view, done)
                        view, done = view[count:], done + count
        except BaseException:
            # The reason is what counts; a disk that is full has no room for this either.
            with suppress(OSError):
                keep(partial, fd, done, left)
            raise
        system.sync_file(fd)
        return hashed.hexdigest()
    finally:
        os.close(fd)


def _arriving(
    reader: RangeReader,
    file: RepoFile,
    start: int,
    tick: Callable[[str, int], None] | None,
    ahead: Ahead | None,
    left: list[Piece],
) -> Generator[memoryview, None, None]:
    """The file's bytes from `start` on, in order, several chunks under way; each is valid until the next.

    What has come of chunks that were not taken is `left`, when it ends.
    """
    stopped = threading.Event()
    waiting: deque[_Chunk] = deque()
    buffers = [memoryview(bytearray(min(CHUNK, max(0, file.size - start)))) for _ in range(AHEAD)]
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="porter-fetch") as pool:
        try:
            for number, place in enumerate(range(start, file.size, CHUNK)):
                if len(waiting) == AHEAD:
                    yield waiting[0].arrived()
                    waiting.popleft()
                view = buffers[number % AHEAD][: min(CHUNK, file.size - place)]
                chunk = _Chunk(place, view)
                waiting.append(chunk)
                chunk.future = pool.submit(chunk.bring, reader, file, ahead, stopped, tick)
            while waiting:
                yield waiting[0].arrived()
                waiting.popleft()
        finally:
            # Nobody waits for what is not wanted any more.
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            left += [(chunk.start, chunk.view[: chunk.come]) for chunk in waiting]


@dataclass
class _Chunk:
    """A range of the file, of which the first `come` bytes are in `view`."""

    start: int
    view: memoryview
    come: int = 0
    future: Future[None] | None = None

    def arrived(self) -> memoryview:
        """All of it, once it is there."""
        assert self.future is not None
        self.future.result()
        return self.view

    def bring(
        self,
        reader: RangeReader,
        file: RepoFile,
        ahead: Ahead | None,
        stopped: threading.Event,
        tick: Callable[[str, int], None] | None,
    ) -> None:
        def reached(place: int) -> None:
            new = place - self.start - self.come
            self.come += new
            if tick is not None and new:
                tick(file.name, new)

        whole = self.start, self.start + len(self.view)
        for low, high in [whole] if ahead is None else ahead.fill(self.start, self.view):
            reached(low)
            part = self.view[low - self.start : high - self.start]
            reader.read(file, low, part, stopped, lambda done, low=low: reached(low + done))  # type: ignore[misc]
        reached(whole[1])
