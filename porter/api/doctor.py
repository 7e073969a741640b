"""`porter doctor`: what this machine offers porter: versions, extras, caches, a token or none, a file system.

Nothing secret is read out: of a token only whether there is one is told.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from porter.api.leftovers import LeftBehind, clean_bucket, clean_directory, left_behind, left_in_bucket
from porter.execution.preflight import shares_blocks
from porter.sources.buckets.bucket_address import parse_address
from porter.system.extras import extras

_PACKAGES = (
    "torch",
    "safetensors",
    "huggingface_hub",
    "typer",
    "rich",
    "sentencepiece",
    "numpy",
    "protobuf",
    "pyyaml",
)
_PEERS = ("litgpt", "transformers", "keras-hub")


@dataclass(frozen=True)
class FileSystem:
    """What the file system at a path can do; `free` in bytes."""

    path: Path
    free: int
    block: int
    shares_blocks: bool
    writable: bool


@dataclass(frozen=True)
class Health:
    """The whole report. Versions are None for what is not installed."""

    porter: str
    python: str
    system: str
    packages: Mapping[str, str | None]
    extras: Mapping[str, bool]
    peers: Mapping[str, str | None]
    hub_cache: Path
    hub_endpoint: str
    token: bool
    offline: bool
    file_system: FileSystem
    left_behind: tuple[LeftBehind, ...] = ()
    cleaned: tuple[str, ...] = ()


def doctor(path: str | Path = ".", *, clean: bool = False) -> Health:
    """Look around; `path` is where outputs would be written: a directory, or a folder at `s3://…`.

    `left_behind` is what killed runs have left there. With `clean` what is in no use of it is removed first,
    and `cleaned` says what was done and what was not.

    >>> health = porter.doctor()
    >>> health.packages["numpy"] is not None, health.file_system.writable
    (True, True)
    """
    from huggingface_hub import constants, get_token

    from porter import __version__

    folder = parse_address(path) if isinstance(path, str) else None
    file_system = _file_system(Path(path) if folder is None else Path())
    if folder is None:
        cleaned = clean_directory(file_system.path) if clean else ()
        left = left_behind(file_system.path)
    else:
        cleaned = clean_bucket(folder) if clean else ()
        left = left_in_bucket(folder)
    return Health(
        porter=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages={name: _version(name) for name in _PACKAGES},
        extras=_extras(),
        peers={name: _version(name) for name in _PEERS},
        hub_cache=Path(constants.HF_HUB_CACHE),
        hub_endpoint=constants.ENDPOINT,
        token=get_token() is not None,
        offline=bool(constants.HF_HUB_OFFLINE),
        file_system=file_system,
        left_behind=left,
        cleaned=cleaned,
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _extras() -> dict[str, bool]:
    """Porter's own extras, and whether all that each asks for is installed."""
    return {
        extra: all(_version(package) is not None for package, _ in wanted)
        for extra, wanted in extras().items()
    }


def _file_system(path: Path) -> FileSystem:
    there = path.resolve()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        there = there.parent
    writable = os.access(there, os.W_OK)
    return FileSystem(
        path=there,
        free=shutil.disk_usage(there).free,
        block=os.statvfs(there).f_bsize,
        shares_blocks=writable and shares_blocks(there),
        writable=writable,
    )
