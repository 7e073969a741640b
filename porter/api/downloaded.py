"""What a download did, from wherever it came, and what is checked before its files are written."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from porter.errors import PorterError
from porter.wording import option

CACHED, DOWNLOADED, TO_DOWNLOAD = "cached", "downloaded", "to download"

# Bytes that stay free: a disk that is full to the last block makes other programs fail.
DISK_MARGIN = 128 << 20


@dataclass(frozen=True)
class DownloadedFile:
    """One file: `size` in bytes; `status` is cached, downloaded or to download; `sha256` of large files."""

    name: str
    size: int
    status: str
    sha256: str | None


@dataclass(frozen=True)
class Download:
    """What a download did, or with `dry_run` would do. Sizes are in bytes; `path` is the files' directory.

    `revision` is what was asked for, `commit` what it stood for. `bytes_fetched` is 0 in a dry run. `left`
    are other weight files of the repository, where no pattern said what is wanted.
    """

    repo: str
    revision: str
    commit: str
    path: str
    files: tuple[DownloadedFile, ...]
    bytes_total: int
    bytes_to_fetch: int
    bytes_fetched: int
    dry_run: bool
    left: tuple[str, ...] = ()


def check_disk(root: Path, needed: int) -> None:
    """Raise PorterError unless `needed` bytes and the margin are free where `root` is, or will be."""
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed and free < needed + DISK_MARGIN:
        raise PorterError(
            f"not enough space on the disk of {existing}",
            cause=f"needed: {_size(needed)}, and {_size(DISK_MARGIN)} to stay free; free: {_size(free)}",
            hint=f"free some space, or choose another disk with {option('out')} or HF_HOME",
        )


def copy_file(source: Path, target: Path) -> None:
    """Copy a file so that the target's name never holds a part of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Of its own name, since others may be copying the same.
    staged = target.with_name(f".{target.name}.porter-part-{secrets.token_hex(6)}")
    try:
        shutil.copyfile(source, staged)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10**7 else f"{count / 1e6:.2f} MB"
