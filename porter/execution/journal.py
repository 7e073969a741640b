"""What of an unfinished conversion is durably written: ranges of its weight files, each with a checksum.

A range is noted only after its bytes have reached the disk, and a note is believed only after the range
was read again and its checksum found right. So a journal that is torn, old or damaged costs time, never
bytes. Every line carries its own checksum; reading ends at the first line that is not whole.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from porter.errors import PorterError
from porter.execution.sinks.base import Range
from porter.reading.json_text import JOURNAL_LINE, parse_json
from porter.reading.regular import read_regular
from porter.system import sync_data, sync_file

NAME = ".porter-journal"

# Seconds between two lots of notes, and so the work that a kill may cost. A run shorter than that keeps none.
INTERVAL = 1.0

_VERSION = 2

# Bytes. A million ranges, of 100 bytes each.
_LARGEST = 128 << 20


class NotedFile(Protocol):
    """A file whose ranges are noted: its name in the output, and its descriptor."""

    name: str
    fd: int


def read_journal(path: Path, key: Mapping[str, Any]) -> dict[str, dict[Range, int | None]] | None:
    """What was noted of each range, by file; None unless the journal was kept for the same `key`."""
    found: dict[str, dict[Range, int | None]] = {}
    try:
        lines = _lines(read_regular(path, NAME, _LARGEST))
        if next(lines, None) != {"version": _VERSION, **key}:
            return None
        for line in lines:
            found.setdefault(line["file"], {})[line["start"], line["end"]] = line["crc32"]
    except (PorterError, OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.splitlines(keepends=True):
        checksum, _, text = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or checksum != _checksum(text):
            return
        yield parse_json(text, NAME, JOURNAL_LINE)


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, sort_keys=True).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return f"{zlib.crc32(text):08x}".encode()


class Journal:
    """Notes finished ranges, from any thread; a thread of its own makes them durable, until it is closed.

    `kept` are ranges that an earlier run noted. `noted` is the bytes that the next run will not move again.
    A failure to make something durable is told by whatever is called next, and by everything after it: the
    system tells of it once.
    """

    def __init__(
        self, path: Path, key: Mapping[str, Any], kept: Mapping[str, Mapping[Range, int | None]]
    ) -> None:
        self.noted = sum(end - start for ranges in kept.values() for start, end in ranges)
        self._pending: list[tuple[NotedFile, int, int, int | None]] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._error: OSError | None = None
        self._closed = False
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        lines = [_line({"version": _VERSION, **key})]
        for file, ranges in kept.items():
            lines += [_entry(file, start, end, crc) for (start, end), crc in ranges.items()]
        self._append(lines)
        self._thread = threading.Thread(target=self._run, name="porter-journal", daemon=True)
        self._thread.start()

    def note(self, file: NotedFile, start: int, end: int, crc: int | None) -> None:
        """Notes that a range is finished. Raises OSError if earlier ones could not be made durable."""
        self._check()
        with self._lock:
            self._pending.append((file, start, end, crc))

    def flush(self) -> None:
        """Makes everything noted so far durable; the files must still be open. Raises OSError."""
        with self._writing:
            self._check()
            with self._lock:
                pending, self._pending = self._pending, []
            try:
                for file in {id(file): file for file, *_ in pending}.values():
                    sync_data(file.fd)
                self._append([_entry(file.name, start, end, crc) for file, start, end, crc in pending])
            except OSError as error:
                self._error = error
                raise
            self.noted += sum(end - start for _, start, end, _ in pending)

    def close(self) -> None:
        """Ends the thread, after a last flush. Raises OSError as `flush` does."""
        if self._closed:
            self._check()
            return
        self._closed = True
        self._ended.set()
        self._thread.join()
        try:
            self.flush()
        finally:
            os.close(self._fd)

    def _check(self) -> None:
        if self._error is not None:
            raise OSError(self._error.errno, self._error.strerror) from self._error

    def _append(self, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
        while data:
            data = data[os.write(self._fd, data) :]
        if lines:
            sync_file(self._fd)

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL):
            try:
                self.flush()
            except OSError:
                return


def _entry(file: str, start: int, end: int, crc: int | None) -> bytes:
    return _line({"file": file, "start": start, "end": end, "crc32": crc})
