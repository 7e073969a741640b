"""Where in a directory an Orbax checkpoint lies, and what is stored in it.

Orbax writes a tree of arrays into a folder that has `_METADATA`. A step that a trainer saved is a folder of
such items (`default`, `state`, `params`), and a CheckpointManager's root a folder of steps. What can be
meant by one only is taken; of several the user has to name one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from porter.containers.orbax.orbax_database import DATABASE as DATABASE
from porter.containers.orbax.orbax_database import database_keys
from porter.errors import MalformedError, UsageError
from porter.sources.paths import locate

TREE = "_METADATA"

# Levels of folders. A step's item has two, a name with slashes a few more.
_DEEPEST = 64

# What is said of a long list: the first and the last few.
_SHOWN = 12


def holds_orbax(root: Path) -> bool:
    """Whether a directory is an Orbax checkpoint, a step that holds some, or a folder of such steps."""
    return bool(_items(root) or _steps(root))


def find_folder(root: Path) -> str:
    """The checkpoint's place in a directory: "" for the directory itself, else a path in it.

    Raises UsageError where there are several, MalformedError where there is none.
    """
    items = _items(root)
    if len(items) == 1:
        return items[0]
    if items:
        raise UsageError(
            f"{root} holds {len(items)} Orbax checkpoints",
            cause=f"found {', '.join(items[:_SHOWN])}",
            hint=f"name the one that holds the weights: {root / items[0]}",
        )
    steps = _steps(root)
    if len(steps) == 1:
        (step,) = steps
        return f"{step}/{find_folder(root / step)}"
    if steps:
        shown = steps if len(steps) <= _SHOWN else [*steps[: _SHOWN // 2], "…", *steps[-_SHOWN // 2 :]]
        raise UsageError(
            f"{root} holds {len(steps)} steps of a training run",
            cause=f"found the steps {', '.join(shown)}",
            hint=f"name the one that you mean: {root / steps[-1]}",
        )
    raise MalformedError(f"{root} holds no Orbax checkpoint")


def array_folder(root: Path, name: str) -> tuple[str, str]:
    """The checkpoint's folder within `root`, and the name in it, of an array that is called by its path."""
    parts = name.split("/")
    for depth in range(len(parts)):
        folder = "/".join(parts[:depth])
        if _is_checkpoint(root / folder):
            return folder, "/".join(parts[depth:])
    return "", name


def stored_keys(root: Path, folder: str) -> Mapping[str, Path | bytes]:
    """What a checkpoint stores, by key: the file that holds it, or the content of metadata from a database.

    Raises MalformedError for a link that leads out of the checkpoint, and for a folder that is a link.
    """
    files = check_links(root, folder)
    if DATABASE not in files:
        return files
    return database_keys(root / folder)


def check_links(root: Path, folder: str) -> dict[str, Path]:
    """All files of a folder by their path in it, each known to lie inside the checkpoint `root`."""
    base = locate(root, folder) if folder else root
    found = {}
    for here, folders, files in os.walk(base):
        if len(Path(here).relative_to(base).parts) > _DEEPEST:
            raise MalformedError(
                f"{base.name} holds folders in folders without end",
                cause=f"expected at most {_DEEPEST} levels",
            )
        for name in folders:
            if Path(here, name).is_symlink():
                raise MalformedError(
                    f"{Path(here, name).relative_to(base)} is a link to a folder",
                    cause="expected an Orbax checkpoint's own folders",
                    hint="copy the folder to its place",
                )
        for name in files:
            path = Path(here, name)
            key = path.relative_to(base).as_posix()
            if path.is_symlink():
                locate(root, f"{folder}/{key}" if folder else key)
            if not path.is_file():
                # tensorstore would wait for a pipe.
                raise MalformedError(f"{key} is no regular file", cause="expected a file or a folder")
            found[key] = path
    return found


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (TREE, DATABASE))


def _items(root: Path) -> list[str]:
    if _is_checkpoint(root):
        return [""]
    return [path.name for path in sorted(root.iterdir()) if path.is_dir() and _is_checkpoint(path)]


def _steps(root: Path) -> list[str]:
    """Folders that hold items, in order of their numbers: `100`, `step_200`, …."""
    found = [path.name for path in root.iterdir() if path.is_dir() and _is_step(path)]
    return sorted(found, key=lambda name: (int("".join(filter(str.isdecimal, name)) or 0), name))


def _is_step(folder: Path) -> bool:
    return folder.name[-1:].isdecimal() and bool(_items(folder))
