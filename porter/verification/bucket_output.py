"""A folder in a bucket as an output to be checked: each object pinned by its etag, read once."""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from porter.containers.from_source import open_from
from porter.errors import UnsupportedError
from porter.execution.receipts import tensors_digest
from porter.execution.sinks.multipart import ask
from porter.execution.watch import Watch
from porter.sources.buckets.bucket_source import REQUEST, BucketSource
from porter.sources.read_ahead import read_ahead
from porter.verification.integrity import Sums


class BucketOutput:
    def __init__(self, source: BucketSource) -> None:
        self._source = source

    def names(self) -> Iterable[str]:
        return self._source.files()

    def size(self, name: str) -> int | None:
        found = self._source.files().get(name)
        return None if found is None else found.size

    def content(self, name: str, most: int) -> bytes | None:
        """At most so many bytes of a file; None for nothing."""
        if name not in self._source.files():
            return None
        file = self._source.open(name)
        data = bytearray(min(most, file.size))
        file.read([memoryview(data)], 0)
        return bytes(data)

    def sums(self, name: str, watch: Watch) -> Sums:
        watch.moving(name)
        hashed, crc = hashlib.sha256(), 0
        opened = self._source.open(name)
        buffer = memoryview(bytearray(min(REQUEST, opened.size)))
        with read_ahead(opened, 0, opened.size) as file:
            for start in range(0, opened.size, REQUEST):
                piece = buffer[: min(REQUEST, opened.size - start)]
                file.read([piece], start)
                hashed.update(piece)
                crc = zlib.crc32(piece, crc)
                if watch.progress is not None:
                    watch.progress(name, len(piece))
        return Sums(f"sha256:{hashed.hexdigest()}", crc, opened.size)

    def tensors(self) -> str | None:
        with tempfile.TemporaryDirectory(prefix="porter-small-") as small:
            try:
                return tensors_digest(open_from(self._source, Path(small)).tensors.values())
            except UnsupportedError:
                return None

    def replace(self, name: str, content: bytes) -> None:
        """Puts other content in the place of what was listed. Raises Occupied where it is no longer that."""
        etag = self._source.files()[name].version
        ask("put_object", self._source.address, name, Body=content, IfMatch=etag)
