"""Which chunks of which source file have been written, so that a streamed run goes on where it was stopped.

A chunk is noted only after what was written of it has reached the disk. Where the digest of the whole
source file will tell whether what is read back is right, a note is the chunk's place alone; else it has a
CRC-32 too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from porter.execution import system

# The start of each chunk, and its CRC-32 if it has one.
Chunks = Mapping[int, int | None]


class StreamJournal:
    """The notes of one run, `key` being what it was a run of. Use it as a context.

    `done` are the chunks, by source file, that an earlier run of the same key has noted; `noted` counts the
    bytes that the same run would not have to fetch again, in whole chunks of `chunk` bytes. `stale` says that
    there were notes of another key.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], chunk: int, *, resumed: bool) -> None:
        self._chunk = chunk
        head = json.dumps(key)
        self.done: dict[str, dict[int, int | None]] = {}
        whole = [head]
        lines = path.read_text().splitlines() if path.exists() else []
        self.stale = bool(lines) and lines[0] != head
        if resumed and lines and lines[0] == head:
            for line in lines[1:]:
                try:
                    name, chunks = json.loads(line)
                    self.done.setdefault(name, {}).update((start, crc) for start, crc in chunks)
                except (ValueError, TypeError):
                    # The last line of a run that was killed may be cut.
                    break
                whole.append(line)
        path.write_text("\n".join(whole) + "\n")
        self.noted = sum(map(len, self.done.values())) * chunk
        self._stream = path.open("a")

    def __enter__(self) -> StreamJournal:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stream.close()

    def note(self, name: str, fresh: Sequence[tuple[int, int | None]], files: Iterable[int]) -> None:
        """Notes chunks (start, CRC-32) of a source file, once the open `files` they went to are on disk."""
        if not fresh:
            return
        for fd in files:
            system.sync_data(fd)
        self._stream.write(json.dumps([name, fresh]) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.noted += len(fresh) * self._chunk
