"""A folder that holds no weights and has one checkpoint in it: that is what was meant, and it is said."""

from __future__ import annotations

from pathlib import Path

from porter.containers.orbax import orbax_tree as orbax
from porter.containers.ungathered import refuse_ungathered
from porter.errors import UsageError
from porter.sources.local import Location, label_of, snapshot_in
from porter.sources.weight_files import some, weight_sets


def checkpoint_inside(location: Location) -> tuple[Location, tuple[str, ...]]:
    """The location of the one checkpoint in a folder, with a remark on it; the location itself otherwise.

    Raises UsageError where there are several.
    """
    if location.file is not None or _holds_weights(location.root):
        return location, ()
    refuse_ungathered(location.root)
    try:
        folders = [path for path in sorted(location.root.iterdir()) if path.name[0] != "." and path.is_dir()]
        found = {path: snapshot_in(path) or path for path in folders}
        found = {path: inside for path, inside in found.items() if _holds_weights(inside)}
    except OSError:
        return location, ()
    if not found:
        return location, ()
    if len(found) > 1:
        names = some([path.name for path in found])
        raise UsageError(
            f"{location.root} holds no weights itself, and {len(found)} checkpoints",
            cause=f"found {names}",
            hint=f"name one: {next(iter(found))}",
        )
    (path, inside), *_ = found.items()
    return Location(inside, None, label_of(inside)), (f"took {path}, the one checkpoint in {location.root}",)


def _holds_weights(folder: Path) -> bool:
    return bool(weight_sets(path.name for path in folder.iterdir())) or orbax.holds_orbax(folder)
