"""File names that come out of a checkpoint: which may be opened, and where they really lie."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from porter.errors import MalformedError

# Control characters, and halves of surrogate pairs: in no name that a person gave.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def unsafe_path(name: str) -> str | None:
    """Why a file name from a checkpoint must not be opened, or None if it is a plain relative path."""
    if CONTROL.search(name):
        return "has control characters"
    if "\\" in name:
        return "has a backslash"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "is absolute"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has '..', '.' or an empty part"
    return None


def locate(directory: Path, file: str) -> Path:
    """The real path of `file` in a checkpoint directory.

    A link must lead to a place inside the directory or, in a Hub cache snapshot
    (`models--*/snapshots/<revision>`), inside the same repository's blobs; else MalformedError.
    """
    if reason := unsafe_path(file):
        raise MalformedError(f"unsafe file name {file!r}", cause=f"it {reason}")
    root = directory.resolve()
    try:
        path = (root / file).resolve()
    except (OSError, RuntimeError) as error:
        raise MalformedError(f"{file} is a link that leads nowhere", cause=str(error)) from error
    allowed = [root]
    for snapshot in (root, *root.parents):
        if snapshot.parent.name == "snapshots" and snapshot.parent.parent.name.startswith("models--"):
            allowed.append(snapshot.parent.parent / "blobs")
            break
    if not any(path.is_relative_to(place) for place in allowed):
        raise MalformedError(
            f"{file} is a link that leads out of the checkpoint",
            cause=f"expected a file in {' or '.join(map(str, allowed))}, found {path}",
            hint="copy the file to its place, or pass the directory that really holds it",
        )
    return path
