"""The contract of a source: named files of fixed content, read by ranges from any thread.

A source knows what it held when its headers were read, and notices when that has changed: opening a file
that is not the recorded one any more is a ChangedError, and so is `check` at the end. Whoever publishes
something asks `check` last.

Near sources (a directory on this machine, memory) may be read as often as one likes and offer a file
descriptor or a map; far ones (the Hub, a bucket) are read by ranges of megabytes and, where that is possible,
once. Every implementation passes `tests/sources/test_contract.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class FileInfo(NamedTuple):
    """A file's size in bytes, its published sha256 in hex where there is one, and what its content is known
    by: an inode with its times, an etag, a commit.
    """

    size: int
    digest: str | None
    version: str


class SourceFile(Protocol):
    """A file that is open for reading; any number of threads may read it at once."""

    name: str
    size: int

    def read(self, views: Sequence[memoryview], offset: int) -> None:
        """Fills `views`, at most 1024 of them, one after the other with what stands from byte `offset` on.

        Raises MalformedError where the file ends before, PorterError where it cannot be reached.
        """
        ...

    def close(self) -> None:
        """Ends reads that are under way in other threads, with an error, and lets the file go."""
        ...


@runtime_checkable
class NearFile(SourceFile, Protocol):
    """A file on this machine: `fd` is its descriptor, for file systems that can share its blocks."""

    fd: int


@runtime_checkable
class FarFile(SourceFile, Protocol):
    """A file each read of which is a request: `request` is how many bytes one had better ask for."""

    request: int


@runtime_checkable
class TellingFile(SourceFile, Protocol):
    """A file that tells of bytes as they come, before a read has all of its own: how many more there are."""

    arrived: Callable[[int], None] | None


@runtime_checkable
class Source(Protocol):
    """See the module's docstring. `version` is what the whole is known by, for those who keep notes of it."""

    label: str
    near: bool

    @property
    def version(self) -> str: ...

    def files(self) -> Mapping[str, FileInfo]:
        """What was recorded of each file when the source was opened."""
        ...

    def open(self, file: str) -> SourceFile:
        """Raises MalformedError for a file that is not there, ChangedError if it is another one by now."""
        ...

    def check(self, files: Iterable[str]) -> None:
        """Raises ChangedError if one of the files is not what was recorded any more."""
        ...
