"""The sha256 of a weight file, made in a thread that follows behind the work and reads what it has written.

Reading again costs little while the bytes are still in the system's cache, and it does not matter in
which order they came. `auto` gives up as soon as it falls behind: then hashing, at about 2 GB/s, would be
what limits the run, and the file has no digest. Large files whose work takes every processor are not
begun with.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable

from porter.execution.run_options import ALWAYS, NEVER
from porter.execution.writers import Writer

# Bytes by which the hash may be behind. So the end of a run waits for it for a tenth of a second at most.
LAG = 192 << 20

# Bytes read at a time; small enough for the processor's cache.
BUFFER = 256 << 10


class Digest:
    """Hashes a file of which `parts` (start, end) are finished one by one, in any order."""

    def __init__(self, file: Writer, parts: Iterable[tuple[int, int]], mode: str) -> None:
        self._file = file
        self._mode = mode
        self._hash = hashlib.sha256()
        self._left = sorted((part for part in parts if part[1] > part[0]), reverse=True)
        self._finished: set[tuple[int, int]] = set()
        self._ready = 0
        self._hashed = 0
        self._over = mode == NEVER
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def finished(self, start: int, end: int) -> None:
        """Notes that a part is written; with `always`, waits while the hash is too far behind."""
        with self._changed:
            if self._over:
                return
            self._finished.add((start, end))
            while self._left and self._left[-1] in self._finished:
                part = self._left.pop()
                self._finished.discard(part)
                self._ready = max(self._ready, part[1])
            if self._thread is None and self._ready - self._hashed > BUFFER:
                self._thread = threading.Thread(target=self._follow, name="porter-digest", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            if self._mode == ALWAYS:
                self._changed.wait_for(lambda: self._over or self._ready - self._hashed <= 2 * LAG)
            elif self._ready - self._hashed > LAG:
                self._over = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends the thread; there will be no digest."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def result(self) -> str | None:
        """`sha256:<hex>`, or None if it was given up. All parts must be finished."""
        if self._over and self._error is None:
            self.stop()
            return None
        with self._changed:
            self._ready = self._file.size
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        self._read_to(self._file.size)
        return f"sha256:{self._hash.hexdigest()}"

    def _follow(self) -> None:
        try:
            while self._hashed < self._file.size:
                with self._changed:
                    self._changed.wait_for(lambda: self._over or self._ready > self._hashed)
                    if self._over:
                        return
                    ready = self._ready
                self._read_to(ready)
                with self._changed:
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error, self._over = error, True
                self._changed.notify_all()

    def _read_to(self, end: int) -> None:
        buffer = memoryview(bytearray(min(BUFFER, max(end - self._hashed, 0))))
        while self._hashed < end and not self._over:
            piece = buffer[: min(len(buffer), end - self._hashed)]
            self._file.read(piece, self._hashed)
            self._hash.update(piece)
            self._hashed += len(piece)
