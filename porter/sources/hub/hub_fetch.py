"""One file from the Hub to its place in the Hub's cache or in a directory, proved by its digest.

A file counts as present if its size is right and its content is the one that the cache or the directory's own
records name; what is present is neither fetched nor hashed again. Large files come as `hub_transfer` brings
them, small ones by the Hub's client. What has been fetched is hashed; a file that differs is removed, so that
the next run fetches it anew. A run that was stopped before the digest was compared leaves a mark, and the
next run compares it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from porter.errors import PorterError
from porter.sources.hub.hub_errors import translated
from porter.sources.hub.hub_ranges import RangeReader
from porter.sources.hub.hub_retry import asked_again
from porter.sources.hub.hub_transfer import partials, remove_partials, transfer, wrong_digest
from porter.sources.hub.listing import RepoFile, RepoListing
from porter.sources.hub.repository import UNVERIFIED, cache_folder
from porter.sources.names import HubReference

# Bytes, per step of hashing: large enough that Python's share of the time is nothing.
_CHUNK = 1 << 20

# Seconds. The client allows this much between a file's modification and its record of it.
_RECORD_SLACK = 1.0


@dataclass(frozen=True)
class Place:
    """Where the files of one listing go: the Hub's cache, or the directory `to`."""

    listing: RepoListing
    to: Path | None = None

    @property
    def root(self) -> Path:
        """The directory in which the files have their names."""
        return self.to or cache_folder(self.listing.repo) / "snapshots" / self.listing.commit

    def path(self, file: RepoFile) -> Path:
        return self.root / file.name

    def present(self, file: RepoFile) -> bool:
        """Whether the file is at its place and complete."""
        if not _sized(self.path(file), file.size):
            return False
        if self.to is None or self._recorded(file):
            return True
        return file.etag is not None and _digest_fits(self.path(file), file)

    def foreign(self, file: RepoFile) -> bool:
        """Whether something that did not come from the Hub lies where an absent file is to go."""
        return self.to is not None and self.path(file).exists() and not self.record(file).is_file()

    def cached(self, file: RepoFile) -> list[Path]:
        """Where in the Hub's cache the content may lie already, from which it is linked or copied."""
        folder = cache_folder(self.listing.repo)
        snapshot = folder / "snapshots" / self.listing.commit / file.name
        return [snapshot, folder / "blobs" / file.etag] if file.etag else [snapshot]

    def at_hand(self, file: RepoFile) -> bool:
        """Whether an absent file can be had from the Hub's cache."""
        return any(_sized(path, file.size) for path in self.cached(file))

    def record(self, file: RepoFile) -> Path:
        """The client's note of what it put into a directory: commit, etag, time."""
        return self.root / ".cache" / "huggingface" / "download" / f"{file.name}.metadata"

    def store(self, file: RepoFile) -> tuple[Path, Path, Path]:
        """Where a file's bytes lie, where they lie until they are whole, and what is locked meanwhile:
        all as the Hub's client has it.
        """
        if self.to is None:
            folder = cache_folder(self.listing.repo)
            blob = folder / "blobs" / str(file.etag)
            lock = folder.parent / ".locks" / folder.name / f"{file.etag}.lock"
            return blob, blob.with_name(f"{blob.name}.incomplete"), lock
        record = self.record(file)
        partial = record.with_name(f"{self.path(file).name}.{file.etag}.incomplete")
        return self.path(file), partial, record.with_suffix(".lock")

    def begun(self, file: RepoFile) -> int:
        """Bytes of an absent file that an earlier run has left."""
        left = partials(self.store(file)[1]) if file.sha256 is not None else []
        return min(file.size, left[0].stat().st_size) if left else 0

    def mark(self, file: RepoFile) -> Path:
        """The mark of a file whose digest has not been compared yet."""
        name = file.name.replace("/", "--")
        if self.to is None:
            return cache_folder(self.listing.repo) / UNVERIFIED / (file.etag or name)
        return self.to / ".cache" / UNVERIFIED.lstrip(".") / name

    def _recorded(self, file: RepoFile) -> bool:
        try:
            commit, etag, written = self.record(file).read_text().split()
            untouched = self.path(file).stat().st_mtime - _RECORD_SLACK <= float(written)
        except (OSError, ValueError):
            return False
        return untouched and (commit == self.listing.commit or etag == file.etag)


def fetch(
    place: Place,
    file: RepoFile,
    ref: HubReference,
    *,
    token: str | None = None,
    tick: Callable[[str, int], None] | None = None,
) -> Path:
    """Bring one file to its place and prove it. `tick` is told the file's name and each arriving byte count.

    Raises DifferenceError if the digest differs, else PorterError and its kinds.
    """
    mark, path = place.mark(file), place.path(file)
    with translated(ref, token):
        if place.present(file):
            if mark.is_file():
                _prove(place, file)
                _unmark(mark)
            return path
        for cached in place.cached(file):
            if cached.exists() and not _sized(cached, file.size):
                _unlink_chain(cached)
        if place.to is not None:
            # The client believes its record without looking at the file.
            place.record(file).unlink(missing_ok=True)
        _set_mark(mark)
        proved = False
        if file.sha256 is not None and not place.at_hand(file):
            reader = RangeReader(ref, place.listing, token)
            proved = transfer(reader, file, *place.store(file), tick)
            if place.to is not None:
                place.record(file).write_text(f"{place.listing.commit}\n{file.etag}\n{time.time()}\n")
        if file.sha256 is None and file.etag is not None:
            _, partial, lock = place.store(file)
            remove_partials(partial, lock)
        if not (proved and place.to is not None):
            _by_client(place, file, ref, token, tick)
        if not proved:
            _prove(place, file)
        _unmark(mark)
    return path


def _by_client(
    place: Place,
    file: RepoFile,
    ref: HubReference,
    token: str | None,
    tick: Callable[[str, int], None] | None,
) -> None:
    """A small file, or the name of a large one in the cache."""
    from huggingface_hub import hf_hub_download

    asked_again(
        lambda: hf_hub_download(
            ref.repo,
            file.name,
            revision=place.listing.commit,
            local_dir=place.to,
            token=token,
            tqdm_class=_bar(file.name, tick),
        ),
        connections=False,
    )


def _prove(place: Place, file: RepoFile) -> None:
    path = place.path(file)
    if not _sized(path, file.size):
        found = path.stat().st_size if path.is_file() else 0
        _discard(place, file)
        raise PorterError(
            f"{file.name} came incomplete",
            cause=f"expected {file.size} bytes, found {found}",
            hint="run it again; the file has been removed",
        )
    if not _digest_fits(path, file):
        _discard(place, file)
        raise wrong_digest(file, place.listing.repo)


def _digest_fits(path: Path, file: RepoFile) -> bool:
    """Whether the content has the digest of the listing; True where the listing has none."""
    if file.sha256 is not None:
        return _digest(path, hashlib.sha256()) == file.sha256
    if file.blob_id is not None:
        git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        return _digest(path, git) == file.blob_id
    return True


def _digest(path: Path, state: Any) -> str:
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            state.update(buffer[:count])
    return str(state.hexdigest())


def _sized(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _discard(place: Place, file: RepoFile) -> None:
    if place.to is not None:
        place.record(file).unlink(missing_ok=True)
    for path in (place.path(file), *place.cached(file)):
        _unlink_chain(path)
    _unmark(place.mark(file))


def _unlink_chain(path: Path) -> None:
    """Remove a file and, where it is a link, what it leads to within the Hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE).resolve()
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
        if not path.parent.resolve().is_relative_to(cache):
            return
    path.unlink(missing_ok=True)


def _set_mark(mark: Path) -> None:
    while True:
        mark.parent.mkdir(parents=True, exist_ok=True)
        try:
            mark.touch()
            return
        except FileNotFoundError:
            # Another run has just removed the directory that had become empty.
            continue


def _unmark(mark: Path) -> None:
    mark.unlink(missing_ok=True)
    # Fails while other files are marked, which is what is wanted.
    try:
        mark.parent.rmdir()
    except OSError:
        return


def _bar(name: str, tick: Callable[[str, int], None] | None) -> Any:
    """A progress bar class for the client that draws nothing and reports arriving bytes to `tick`."""
    from tqdm.std import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if tick is not None and n:
                tick(name, int(n))

        # Without these two, a xet download opens a second bar and every byte is told twice.
        def update_transfer(self, n: float | None = 1) -> None:
            pass

        def set_transfer_postfix_str(self, *args: Any, **options: Any) -> None:
            pass

    return Bar
