"""An output's files against its receipt: sizes, digests, and the tensors that the headers name.

Files are only read. What cannot be known is a state of its own, never taken for right: a file whose blocks
were shared has no digest in the receipt until one is recorded.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from porter.containers.checkpoint import open_checkpoint
from porter.errors import ChangedError, PorterError
from porter.execution.receipts import Receipt, Recorded, names_in, tensors_digest, unlisted
from porter.execution.watch import Watch
from porter.facts import Facts
from porter.sources import local
from porter.sources.paths import locate

# `unverified`: of the right size as far as that is known, and no digest was compared.
State = Literal["verified", "recorded", "unverified", "changed", "missing", "added"]
DIFFERENT: tuple[State, ...] = ("changed", "missing", "added")

# Bytes read at a time; small enough for the processor's cache.
_PIECE = 256 << 10


@dataclass(frozen=True)
class FileState:
    """A file of an output: its bytes and digest as found (None where it was not read), and why in words."""

    name: str
    state: State
    size: int | None = None
    sha256: str | None = None
    detail: str | None = None


@dataclass(frozen=True, repr=False)
class OutputCheck(Facts):
    """What `check` found in `out`, text for a bucket. `plan` is the hash of the plan that made the output.

    `tensors` says why the headers do not hold the planned tensors; None where they do, and where files
    differ. `lacks` are what the receipt does not say and one of today would; `recorded` what was added to it
    now. `quick` says that sizes and headers alone were asked for. `fingerprint` is what the receipt states.
    `signature` is None where none was asked for, or where files differ already; `signature_detail` says why
    it does not hold.
    """

    out: Path | str
    plan: str
    source_dialect: str
    target_dialect: str
    files: tuple[FileState, ...]
    tensors: str | None
    lacks: tuple[str, ...]
    recorded: tuple[str, ...]
    quick: bool
    fingerprint: str | None = None
    signature: Literal["verified", "differs"] | None = None
    signature_detail: str | None = None

    @property
    def verdict(self) -> Literal["verified", "unverified", "differs"]:
        """`verified` only where every file has the digest that the receipt states."""
        if self.tensors is not None or any(file.state in DIFFERENT for file in self.files):
            return "differs"
        if self.signature is not None:
            # It is over what every file holds, whatever the receipt says of it.
            return self.signature
        return "unverified" if any(file.state == "unverified" for file in self.files) else "verified"

    @property
    def exit_code(self) -> int:
        """0 where all that was asked for is right, 1 where something has no digest, 3 for differences."""
        if self.verdict == "differs":
            return 3
        return 0 if self.verdict == "verified" or self.quick else 1

    def _facts(self) -> list[tuple[str, str]]:
        states = Counter(file.state for file in self.files)
        told = ", ".join(f"{number} {state}" for state, number in states.items())
        return [
            ("output", f"{self.out}, {self.source_dialect} → {self.target_dialect}"),
            ("verdict", f"{self.verdict}; files: {told}"),
            *((file.state, f"{file.name}: {file.detail}") for file in self.files if file.state in DIFFERENT),
            *([("tensors", self.tensors)] if self.tensors else []),
            *([("signature", self.signature_detail or self.signature)] if self.signature else []),
        ]


class Sums(NamedTuple):
    """A file's `sha256:<hex>`, CRC-32 and bytes, as read just now."""

    sha256: str
    crc32: int
    size: int


class Output(Protocol):
    """Where the files of an output lie: a directory, a folder in a bucket."""

    def names(self) -> Iterable[str]:
        """Every file, by its path within."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a plain file; None for nothing. Raises PorterError for what is none."""
        ...

    def sums(self, name: str, watch: Watch) -> Sums:
        """Raises ChangedError for a file that changes meanwhile."""
        ...

    def tensors(self) -> str | None:
        """The digest of the tensors that the headers name, for `Receipt.tensors`; None where that cannot be
        looked into from afar."""
        ...


@dataclass(frozen=True)
class Directory:
    root: Path

    def names(self) -> Iterable[str]:
        return names_in(self.root)

    def size(self, name: str) -> int | None:
        path = find_file(self.root, name)
        if path is None and os.path.lexists(self.root / name):
            raise PorterError("no plain file")
        return None if path is None else path.stat().st_size

    def sums(self, name: str, watch: Watch) -> Sums:
        return digest_file(locate(self.root, name), name, watch)

    def tensors(self) -> str:
        return tensors_in(self.root)


def check_files(
    output: Output, receipt: Receipt, watch: Watch, *, quick: bool = False
) -> Iterator[FileState]:
    """Every file that the receipt names or the output holds; with `quick` no content is read.

    Raises ChangedError for a file that changes meanwhile.
    """
    with_digest = [
        item for item in receipt.files.values() if item.sha256 is not None or item.crc32 is not None
    ]
    watch.expect(0 if quick else sum(item.size or 0 for item in with_digest))
    for name, recorded in receipt.files.items():
        yield _check_file(output, name, recorded, watch, quick)
    for name in unlisted(receipt, output.names()):
        yield FileState(name, "added", detail="the receipt does not name it")


def digest_file(path: Path, name: str, watch: Watch) -> Sums:
    """Reads a file once. Raises ChangedError where it changes while it is read."""
    with path.open("rb", buffering=0) as stream:
        before = os.fstat(stream.fileno())
        hashed, crc, buffer = hashlib.sha256(), 0, memoryview(bytearray(_PIECE))
        watch.moving(name)
        while count := stream.readinto(buffer):
            hashed.update(buffer[:count])
            crc = zlib.crc32(buffer[:count], crc)
            if watch.progress is not None:
                watch.progress(name, count)
        after = os.fstat(stream.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ChangedError(f"{name} changed while it was read", hint="wait until nothing writes to it")
    return Sums(f"sha256:{hashed.hexdigest()}", crc, before.st_size)


def find_file(root: Path, name: str) -> Path | None:
    """The real path of a plain file of an output, or None. Links must not leave it (or the Hub's cache)."""
    path = locate(root, name)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return path if stat.S_ISREG(found.st_mode) else None


def tensors_in(root: Path) -> str:
    """The digest of the tensors that the headers in a directory name, for `Receipt.tensors`."""
    return tensors_digest(open_checkpoint(local.locate(root)).tensors.values())


def tensors_problem(output: Output, receipt: Receipt) -> str | None:
    """Why the headers do not hold the planned tensors; None where they do, or that cannot be told."""
    if receipt.tensors is None:
        return None
    try:
        found = output.tensors()
    except PorterError as error:
        return f"the headers cannot be read: {error.message}" + (f" ({error.cause})" if error.cause else "")
    return None if found in (None, receipt.tensors) else "the headers name other tensors than were planned"


def _check_file(output: Output, name: str, recorded: Recorded, watch: Watch, quick: bool) -> FileState:
    try:
        size = output.size(name)
    except PorterError as error:
        return FileState(name, "changed", detail=error.cause or error.message)
    if size is None:
        return FileState(name, "missing")
    if recorded.size is not None and size != recorded.size:
        return FileState(
            name, "changed", size, detail=f"{recorded.size} bytes were written, {size} are there"
        )
    if recorded.sha256 is None and recorded.crc32 is None:
        why = "no digest in the receipt: its blocks were shared with the source, or it was not hashed"
        return FileState(name, "unverified", size, detail=why)
    if quick:
        return FileState(name, "unverified", size, detail="not read")
    found = output.sums(name, watch)
    if recorded.sha256 is not None and found.sha256 != recorded.sha256:
        detail = f"{recorded.sha256} then, {found.sha256} now"
        return FileState(name, "changed", found.size, found.sha256, detail)
    if recorded.crc32 is not None and found.crc32 != recorded.crc32:
        detail = f"CRC-32 {recorded.crc32:08x} then, {found.crc32:08x} now"
        return FileState(name, "changed", found.size, found.sha256, detail)
    # Machines that made it part by part have summed it, none has hashed all of it.
    by = "by its CRC-32, no sha256 in the receipt" if recorded.sha256 is None else None
    return FileState(name, "verified", found.size, found.sha256, by)
