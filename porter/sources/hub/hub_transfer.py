"""A large file from the Hub, by ranges over several connections, front to back, hashed as it comes.

Until it is whole and proved it stands beside its place, under the name that the Hub's client gives to such a
file. Whatever ends a run, what has come stays there, and the next run reads it back and goes on: of several
such files, which killed runs of any version of the client have left, the longest is taken and the others are
removed. The client's own lock is held meanwhile, so that two downloads of one file never meet.
"""

from __future__ import annotations

import glob
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from porter import system
from porter.errors import DifferenceError, PorterError
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

    `partial` is where it stands until then. `tick` is told the file's name and each count of bytes that are
    there, those of an earlier run at first. Raises DifferenceError for a wrong digest, and as
    `RangeReader.read`.
    """
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    for needed in (place, partial, lock):
        needed.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if place.is_file() and place.stat().st_size == file.size:
            return False
        resumed = _take_up(partial, file.size)
        found = _fetch(reader, file, partial, tick)
        if found != file.sha256 and resumed:
            # What an earlier run has left need not have been this file's.
            partial.unlink()
            found = _fetch(reader, file, partial, None)
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
    reader: RangeReader, file: RepoFile, partial: Path, tick: Callable[[str, int], None] | None
) -> str:
    """Completes `partial` durably; the sha256 of all of it."""
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
        for content in _arriving(reader, file, done):
            hashed.update(content)
            view = content
            while view:
                count = os.pwrite(fd, view, done)
                view, done = view[count:], done + count
            if tick is not None:
                tick(file.name, len(content))
        system.sync_file(fd)
        return hashed.hexdigest()
    finally:
        os.close(fd)


def _arriving(reader: RangeReader, file: RepoFile, start: int) -> Iterator[memoryview]:
    """The file's bytes from `start` on, in order, several chunks under way; each is valid until the next."""
    stopped = threading.Event()
    waiting: deque[tuple[memoryview, Future[None]]] = deque()
    buffers = [memoryview(bytearray(min(CHUNK, max(0, file.size - start)))) for _ in range(AHEAD)]
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="porter-fetch") as pool:
        try:
            for number, place in enumerate(range(start, file.size, CHUNK)):
                if len(waiting) == AHEAD:
                    yield _first(waiting)
                view = buffers[number % AHEAD][: min(CHUNK, file.size - place)]
                waiting.append((view, pool.submit(reader.read, file, place, view, stopped)))
            while waiting:
                yield _first(waiting)
        finally:
            # Nobody waits for what is not wanted any more.
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _first(waiting: deque[tuple[memoryview, Future[Any]]]) -> memoryview:
    view, future = waiting.popleft()
    future.result()
    return view
