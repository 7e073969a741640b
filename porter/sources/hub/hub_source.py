"""A repository on the Hub as a source that is read by ranges, at one commit."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property

from porter.errors import MalformedError
from porter.sources.hub.hub_ranges import RangeReader
from porter.sources.hub.listing import RepoFile, RepoListing
from porter.sources.names import HubReference


@dataclass(frozen=True)
class HubSource:
    """Files of `listing`, read by ranges and never stored."""

    ref: HubReference
    listing: RepoListing
    token: str | None = None

    @property
    def version(self) -> str:
        return f"{self.listing.repo}@{self.listing.commit}"

    def read(self, file: str, start: int, view: memoryview, stopped: threading.Event) -> None:
        """Fills `view` with a file's bytes from `start` on, unless stopped. Raises PorterError."""
        self._reader.read(self._file(file), start, view, stopped)

    @cached_property
    def _reader(self) -> RangeReader:
        return RangeReader(self.ref, self.listing, self.token)

    def sha256(self, file: str) -> str | None:
        """The digest that the Hub states for a large file, in hex."""
        return self._file(file).sha256

    def _file(self, name: str) -> RepoFile:
        found = self.listing.file(name)
        if found is None:
            raise MalformedError(f"{self.ref.label} has no file {name}")
        return found
