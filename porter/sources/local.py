"""Local checkpoints: a path becomes a directory to read in, the weight file asked for, and a label.

The label is what a person would call the model: the Hub repository's name for a snapshot in the Hub's
cache, owner and variation in Kaggle's, else the directory's name. It is used for display and for config
fields that hold a name, never to decide what a checkpoint is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from porter.errors import UsageError


@dataclass(frozen=True)
class Location:
    """A checkpoint on this machine: its directory, one weight file in it if that was named, its label."""

    root: Path
    file: str | None
    label: str


def locate(source: str | Path) -> Location:
    """Find a local checkpoint. Raises UsageError if there is nothing at that path."""
    path = Path(source).expanduser()
    if path.is_dir():
        return Location(path, None, label_of(path))
    if path.is_file():
        label = path.stem
        real = path.resolve()
        if not _in_snapshot(path):
            # Whoever names a link means the file behind it. (The Hub's links lead to blobs beside a snapshot,
            # which holds the config.)
            path = real
        return Location(path.parent, path.name, label)
    raise UsageError(
        f"there is no checkpoint at {source}",
        cause="no such file or directory",
        hint="give a directory, a .safetensors file or a .gguf file",
    )


def _in_snapshot(path: Path) -> bool:
    """Whether a file lies in a snapshot in the Hub's cache."""
    return any(
        folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
        for folder in path.absolute().parents
    )


def label_of(directory: Path) -> str:
    """The name of the model in a directory: `google/gemma-2b` for a Hub snapshot of it."""
    resolved = directory.resolve()
    repo = resolved.parent.parent
    if resolved.parent.name == "snapshots" and repo.name.startswith("models--"):
        return repo.name.removeprefix("models--").replace("--", "/")
    # Kaggle's cache: models/owner/model/framework/variation/version.
    places = resolved.parts[-6:]
    if len(places) == 6 and places[0] == "models" and places[5].isdigit():
        return f"{places[1]}/{places[4]}"
    return resolved.name
