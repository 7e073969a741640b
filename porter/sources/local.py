"""Local checkpoints: a path becomes a directory to read in, the weight file asked for, and a label.

The label is what a person would call the model: the Hub repository's name for a snapshot in the Hub's
cache, owner and variation in Kaggle's, else the directory's name. It is used for display and for config
fields that hold a name, never to decide what a checkpoint is.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from porter.errors import UsageError
from porter.reading.regular import open_regular
from porter.sources.weight_files import INDEX, container_by_suffix

# Files beside the weights that people name in place of their folder: configs, tokenizers, Orbax' metadata.
_BESIDE = (".json", ".yaml", ".yml", ".model", ".jinja", ".txt", "_METADATA", "manifest.ocdbt")


@dataclass(frozen=True)
class Location:
    """A checkpoint on this machine: its directory, one weight file in it if that was named, its label."""

    root: Path
    file: str | None
    label: str


def locate(source: str | Path) -> Location:
    """Find a local checkpoint: a directory, a weight file, a repository's folder in the Hub's cache, or a
    file beside the weights, which stands for its directory. UsageError if there is nothing at that path.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        path = snapshot_in(path) or path
        return Location(path, None, label_of(path))
    if path.is_file() and _is_beside(path.name):
        folder = (path if _in_snapshot(path) else path.resolve()).parent
        return Location(folder, None, label_of(folder))
    if path.is_file():
        label = path.stem
        real = path.resolve()
        if not _in_snapshot(path):
            # Whoever names a link means the file behind it. (The Hub's links lead to blobs beside a snapshot,
            # which holds the config.)
            path = real
        return Location(path.parent, path.name, label)
    if path.exists():
        # A pipe, a socket or a device: it is refused in the words for one.
        with open_regular(path, str(source)):
            pass
    raise UsageError(
        f"there is no checkpoint at {source}",
        cause="no such file or directory",
        hint=f"did you mean {' or '.join(near)}?"
        if (near := near_names(path))
        else "give a directory, a .safetensors file or a .gguf file",
    )


def near_names(path: Path) -> list[str]:
    """What lies where a path that does not exist should lie, and is called almost so."""
    try:
        names = [there.name for there in path.parent.iterdir() if not there.name.startswith(".")]
    except OSError:
        return []
    lower = {name.lower(): name for name in names}
    near = get_close_matches(path.name.lower(), lower, n=3, cutoff=0.75)
    return [str(path.with_name(lower[name])) for name in near]


def snapshot_in(folder: Path) -> Path | None:
    """The snapshot that a repository's folder in the Hub's cache stands for; None for any other folder.

    That is what its `main` stands for, or the only one there is. Raises UsageError where that is not clear.
    """
    repository = folder.parent if folder.name == "snapshots" else folder
    snapshots = repository / "snapshots"
    if not repository.resolve().name.startswith("models--") or not snapshots.is_dir():
        return None
    there = sorted(path for path in snapshots.iterdir() if path.is_dir())
    main = repository / "refs" / "main"
    commit = main.read_text(errors="replace").strip() if main.is_file() else ""
    if found := [path for path in there if path.name == commit] or (there if len(there) == 1 else []):
        return found[0]
    raise UsageError(
        f"{folder} holds {len(there)} snapshots, and its main is none of them",
        hint="name one: " + ", ".join(map(str, there[:3])) if there else "download the model again",
    )


def _is_beside(name: str) -> bool:
    return name.endswith(_BESIDE) and not name.endswith(INDEX) and container_by_suffix(name) is None


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
