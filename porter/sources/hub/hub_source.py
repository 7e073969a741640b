"""A repository on the Hub as a source that is read by ranges, at one commit.

A file's content is known by its digest, or git's name of it, at the commit that was listed. What answers a
request has to say the same: see `porter.sources.hub.hub_ranges`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from porter.errors import MalformedError
from porter.sources.base import FileInfo, SourceFile
from porter.sources.hub.hub_ranges import RangeReader
from porter.sources.hub.listing import RepoFile, RepoListing
from porter.sources.local_files import LocalFile
from porter.sources.names import HubReference


class HubFile:
    """A file of a repository; nothing of it is stored."""

    # Bytes; see `FarFile`.
    request = 4 << 20

    def __init__(self, reader: RangeReader, file: RepoFile) -> None:
        self.name, self.size = file.name, file.size
        self._reader, self._file = reader, file
        self._stopped = threading.Event()
        self.arrived: Callable[[int], None] | None = None

    def read(self, views: Sequence[memoryview], offset: int) -> None:
        for view in views:
            self._reader.read(self._file, offset, view, self._stopped, self._increments())
            offset += len(view)

    def _increments(self) -> Callable[[int], None] | None:
        """What turns how many bytes of a read there are into how many more there are."""
        if (arrived := self.arrived) is None:
            return None
        before = 0

        def reached(done: int) -> None:
            nonlocal before
            more, before = done - before, done
            arrived(more)

        return reached

    def close(self) -> None:
        self._stopped.set()


class HubSource:
    """Files of `listing`. Small files that have been fetched lie under `root` and are read there."""

    near = False

    def __init__(self, ref: HubReference, listing: RepoListing, root: Path, token: str | None = None) -> None:
        self.ref, self.listing, self.root = ref, listing, root
        self.label = ref.repo
        self._token = token

    def __getstate__(self) -> dict[str, Any]:
        """For another process, perhaps on another machine, which has a token of its own or needs none."""
        left_out = {"_token": None}
        return {name: value for name, value in vars(self).items() if name != "_reader"} | left_out

    @property
    def version(self) -> str:
        return f"{self.listing.repo}@{self.listing.commit}"

    @cached_property
    def _reader(self) -> RangeReader:
        return RangeReader(self.ref, self.listing, self._token)

    def files(self) -> Mapping[str, FileInfo]:
        return {
            file.name: FileInfo(file.size, file.sha256, file.etag or self.listing.commit)
            for file in self.listing.files
        }

    def open(self, file: str) -> SourceFile:
        found = self.listing.file(file)
        if found is None:
            raise MalformedError(f"{self.ref.label} has no file {file}")
        place = self.root / file
        if place.is_file() and place.stat().st_size == found.size:
            return LocalFile(place, file)
        return HubFile(self._reader, found)

    def check(self, files: Iterable[str]) -> None:
        """A commit does not change; each answer was held against it."""
