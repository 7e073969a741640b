"""A folder in a bucket as a source: files of fixed content, read by ranges, each pinned by its etag.

What was listed is what is read: each request asks for the content that was recorded (`If-Match`), each answer
is held against it once more, and its length is counted, since a store cuts a range that passes the end
without a word. Plain HTTPS has no listing: the names that a checkpoint has are asked for one by one.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from porter.errors import MalformedError, PorterError
from porter.sources.base import FileInfo
from porter.sources.buckets.bucket_address import BucketAddress
from porter.sources.buckets.bucket_errors import Occupied, Unreachable, changed, persistently
from porter.sources.buckets.bucket_store import open_store

# Bytes that one request had better ask for: a round trip of some 30 ms costs as much as 3 MB at 100 MB/s.
REQUEST = 4 << 20

# Bytes of an answer that are handed over at once.
_PIECE = 1 << 20

# Requests for the state of files that are made at once.
_WORKERS = 8


class StoredObject(NamedTuple):
    """What was recorded of an object: `etag` with its quotes, empty where the store has none."""

    key: str
    size: int
    etag: str
    modified: str

    @property
    def version(self) -> str:
        return self.etag or self.modified


def recorded(meta: Any) -> StoredObject:
    """What obstore says of an object. Azure's listings leave out the quotes that its etags have elsewhere."""
    etag = meta["e_tag"] or ""
    if etag and not etag.endswith('"'):
        etag = f'"{etag}"'
    return StoredObject(meta["path"], meta["size"], etag, str(meta["last_modified"]))


class BucketFile:
    """An object, read by ranges. Reads of a few bytes are requests of their own: see `read_ahead`."""

    request = REQUEST

    def __init__(self, source: BucketSource, name: str, found: StoredObject) -> None:
        self.name, self.size = name, found.size
        self._source, self._found = source, found
        self._stopped = threading.Event()

    def read(self, views: Sequence[memoryview], offset: int) -> None:
        length = sum(map(len, views))
        if offset < 0 or offset + length > self.size:
            raise MalformedError(
                f"{self.name} ends too early", cause=f"expected {offset + length} bytes, found {self.size}"
            )
        if not length:
            return
        try:
            persistently(
                lambda: self._read(views, offset, offset + length),
                self._source.address,
                self.name,
                self._stopped.wait,
            )
        except Occupied as error:
            raise changed(self._source.address, self.name, self._found.version, "another") from error

    def _read(self, views: Sequence[memoryview], start: int, stop: int) -> None:
        if self._stopped.is_set():
            raise PorterError("stopped")
        options: dict[str, Any] = {"range": (start, stop)}
        # A weak etag never matches where it is asked for.
        if self._found.etag and not self._found.etag.startswith("W/"):
            options["if_match"] = self._found.etag
        answer = self._source.get(self._found.key, options)
        now = recorded(answer.meta)
        if (now.size, now.version) != (self._found.size, self._found.version):
            raise changed(self._source.address, self.name, self._found.version, now.version)
        if tuple(answer.range) != (start, stop):
            raise Unreachable(
                f"the answer for {self.name} is not what was asked for",
                cause=f"expected bytes {start} to {stop}, found {answer.range}",
            )
        waiting = iter([view for view in views if len(view)])
        view, came = next(waiting, None), 0
        for piece in answer.stream(min_chunk_size=_PIECE):
            data = memoryview(piece)
            if self._stopped.is_set():
                raise PorterError("stopped")
            came += len(data)
            while len(data) and view is not None:
                count = min(len(data), len(view))
                view[:count] = data[:count]
                data, view = data[count:], view[count:]
                if not len(view):
                    view = next(waiting, None)
        if came != stop - start:
            raise Unreachable(
                f"the answer for {self.name} is not what was asked for",
                cause=f"expected {stop - start} bytes, found {came}",
                hint="run it again",
            )

    def close(self) -> None:
        self._stopped.set()


class BucketSource:
    """The files of a folder, as `found` recorded them. It can be pickled; who asks is not in it."""

    near = False

    def __init__(self, address: BucketAddress, found: Mapping[str, StoredObject]) -> None:
        self.address = address
        self.label = address.label
        self._found = dict(found)
        self._store: Any = None
        self._opening = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address, "found": self._found}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["address"], state["found"])  # type: ignore[misc]

    @property
    def version(self) -> str:
        return hashlib.sha256(repr(sorted(self._found.items())).encode()).hexdigest()

    @property
    def store(self) -> Any:
        with self._opening:
            if self._store is None:
                self._store = open_store(self.address)
        return self._store

    def get(self, key: str, options: Mapping[str, Any]) -> Any:
        import obstore

        return obstore.get(self.store, key, options=options)  # type: ignore[arg-type]

    def files(self) -> Mapping[str, FileInfo]:
        return {name: FileInfo(found.size, None, found.version) for name, found in self._found.items()}

    def open(self, file: str) -> BucketFile:
        if file not in self._found:
            raise MalformedError(f"{file} is missing", cause=f"{self.address.url} does not hold it")
        return BucketFile(self, file, self._found[file])

    def check(self, files: Iterable[str]) -> None:
        with ThreadPoolExecutor(_WORKERS) as pool:
            for _ in pool.map(self._check, list(files)):
                pass

    def _check(self, file: str) -> None:
        known = self._found[file]
        now = head(self.store, self.address, file)
        if now is None or (now.size, now.version) != (known.size, known.version):
            raise changed(self.address, file, known.version, now.version if now else "nothing")


def head(store: Any, address: BucketAddress, name: str) -> StoredObject | None:
    """What an address holds under a name; None for nothing."""
    import obstore

    try:
        return persistently(lambda: recorded(obstore.head(store, address.key(name))), address, name)
    except MalformedError:
        return None
