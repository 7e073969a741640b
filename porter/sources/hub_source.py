"""A repository on the Hub as a source that is read by ranges, at one commit."""

from __future__ import annotations

from dataclasses import dataclass

from porter.errors import MalformedError
from porter.sources.aliases import HubReference
from porter.sources.hub_files import RepoFile, RepoListing
from porter.sources.hub_remote import read_range


@dataclass(frozen=True)
class HubSource:
    """Files of `listing`, read by ranges and never stored."""

    ref: HubReference
    listing: RepoListing
    token: str | None = None

    @property
    def version(self) -> str:
        return f"{self.listing.repo}@{self.listing.commit}"

    def read(self, file: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file. Raises PorterError and its kinds."""
        return read_range(self.ref, self.listing, self._file(file), start, stop, self.token)

    def sha256(self, file: str) -> str | None:
        """The digest that the Hub states for a large file, in hex."""
        return self._file(file).sha256

    def _file(self, name: str) -> RepoFile:
        found = self.listing.file(name)
        if found is None:
            raise MalformedError(f"{self.ref.label} has no file {name}")
        return found
