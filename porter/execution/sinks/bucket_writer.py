"""One file on its way into a bucket: what is written gathers in parts, and a part that is full is sent."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from porter.errors import PorterError
from porter.execution.sinks import multipart
from porter.execution.sinks.base import Range
from porter.execution.sinks.multipart import MOST_PARTS, SentPart, Upload
from porter.execution.writers import Stopped

# Bytes. Large enough that a request does not count, small enough to hold four in a run of 200 MB that casts
# besides (with 16 MiB it took up to 209); S3 wants at least 5 MiB.
PART = 12 << 20


# Sends a part in the background, once there is room for it.
Send = Callable[["BucketWriter", int, bytearray], Future[None]]


class BucketWriter:
    """A file in the making: bytes gather in parts, and a part that is full is sent. `digest` is the sha256 of
    the whole, where all of it came in order; `crc` its CRC-32. Both are there after `finish`.
    """

    readable = False

    def __init__(self, send: Send, upload: Upload, size: int, done: Mapping[int, SentPart]) -> None:
        self.name, self.size = upload.name, size
        self.upload = upload
        self.stopped = threading.Event()
        self.parts = dict(done)
        self.digest: str | None = None
        self.crc: int | None = None
        self.part_size = part_size(size)
        self._send = send
        self._held: dict[int, tuple[bytearray, list[int]]] = {}
        self._sending: list[Future[None]] = []
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._hashed = 0

    def part_range(self, number: int) -> Range:
        start = (number - 1) * self.part_size
        return start, min(start + self.part_size, self.size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        if offset < 0 or offset + len(view) > self.size:
            raise PorterError(f"{self.name}: the plan writes outside the file", cause=f"at byte {offset}")
        while len(view):
            if self.stopped.is_set():
                raise Stopped
            number = offset // self.part_size + 1
            start, end = self.part_range(number)
            piece = view[: end - offset]
            if number not in self.parts:
                self._gather(number, offset - start, piece, end - start)
            view, offset = view[len(piece) :], offset + len(piece)

    def _gather(self, number: int, at: int, piece: memoryview, length: int) -> None:
        with self._lock:
            held, left = self._held.setdefault(number, (bytearray(length), [length]))
            held[at : at + len(piece)] = piece
            left[0] -= len(piece)
            full = left[0] == 0
            if full:
                del self._held[number]
                self._sum(held, (number - 1) * self.part_size)
        if full:
            self._sending.append(self._send(self, number, held))

    def _sum(self, part: bytearray, start: int) -> None:
        if start == self._hashed:
            self._hash.update(part)
            self._hashed += len(part)

    def read(self, view: memoryview, offset: int) -> None:
        raise PorterError(f"{self.name}: what was sent cannot be read again")

    def begin_writeback(self, offset: int, length: int) -> None:
        for sending in [sending for sending in self._sending if sending.done()]:
            self._sending.remove(sending)
            sending.result()

    def finish(self) -> None:
        for sending in self._sending:
            sending.result()
        self._sending = []
        multipart.check_whole(self.name, self.parts, self.size)
        self.crc = multipart.composed(self.parts.values())
        if self._hashed == self.size:
            self.digest = f"sha256:{self._hash.hexdigest()}"

    def close(self) -> None:
        self.stopped.set()
        self._held = {}


def part_size(size: int) -> int:
    """Bytes of each part of a file but the last: PART, or more where there would be too many."""
    least = -(-size // (MOST_PARTS - 1))
    return max(PART, -(-least // (1 << 20)) << 20)
