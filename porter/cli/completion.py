"""What TAB offers: dialects, dtypes, families, short names of models, paths.

Only to say where a model that lies here can go are its headers read. Nothing is asked of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

Complete = Callable[[str], list[str]]

# In a list of several, such as `model.safetensors.index.json`, the file that stands for all.
_INDEXES = (".safetensors.index.json", ".bin.index.json")


def words(*choices: str) -> Complete:
    """The words of a closed set."""
    return lambda incomplete: _beginning(choices, incomplete)


def dialects(incomplete: str) -> list[str]:
    """Every dialect that porter ships a table for."""
    from porter.tables.catalogue import shipped_dialects

    return _beginning(sorted(shipped_dialects()), incomplete)


def dialects_of(context: typer.Context, incomplete: str) -> list[str]:
    """The dialects of the family that was typed before, or every one."""
    from porter.tables.catalogue import family_names, load_families

    family = context.params.get("family")
    return (
        dialects(incomplete)
        if family not in family_names()
        else _beginning(sorted(load_families()[family].dialects), incomplete)
    )


def targets(context: typer.Context, incomplete: str) -> list[str]:
    """The dialects that can be made of the source that was typed before, or of any."""
    from porter.tables.catalogue import load_families

    source = context.params.get("source")
    found = None if source is None else _reached(source)
    if found is None:
        families = load_families().values()
        found = sorted({name for family in families for name in family.written})
    return _beginning(found, incomplete)


def families(incomplete: str) -> list[str]:
    from porter.tables.catalogue import family_names

    return _beginning(family_names(), incomplete)


def sources(incomplete: str) -> list[str]:
    """Short names, and what lies here: directories, and files that may hold weights."""
    from porter.sources.weight_files import container_by_suffix

    return [
        *models(incomplete),
        *_paths(incomplete, lambda name: container_by_suffix(name) is not None or name.endswith(_INDEXES)),
    ]


def models(incomplete: str) -> list[str]:
    """Short names alone."""
    from porter.sources.names import ALIASES

    return _beginning(ALIASES, incomplete)


def folders(incomplete: str) -> list[str]:
    """Directories."""
    return _paths(incomplete, lambda name: False)


def files(*suffixes: str) -> Complete:
    """Directories, and files whose names end so."""
    return lambda incomplete: _paths(incomplete, lambda name: name.endswith(suffixes))


def everything(incomplete: str) -> list[str]:
    """Directories and files."""
    return _paths(incomplete, lambda name: True)


def _paths(incomplete: str, wanted: Callable[[str], bool]) -> list[str]:
    head, slash, name = incomplete.rpartition("/")
    typed = head + slash
    try:
        there = sorted(Path(typed or ".").expanduser().iterdir())
    except (OSError, RuntimeError):
        # Not there, not to be read, or the home of nobody.
        return []
    found = []
    for path in there:
        hidden = path.name.startswith(".") and not name.startswith(".")
        # A line is a name, to all shells.
        if hidden or not path.name.startswith(name) or "\n" in path.name:
            continue
        if path.is_dir():
            found.append(f"{typed}{path.name}/")
        elif wanted(path.name):
            found.append(typed + path.name)
    return found


def _reached(source: str) -> list[str] | None:
    """Where a source can go; None if that cannot be said without the network."""
    from porter.errors import PorterError
    from porter.sources.names import ALIASES
    from porter.tables.catalogue import load_families

    path = Path(source).expanduser()
    if not path.exists():
        alias = ALIASES.get(source)
        return None if alias is None else load_families()[alias.family].written
    from porter.api.targets import list_targets

    try:
        return [target.name for target in list_targets(path)]
    except (PorterError, OSError):
        return None


def _beginning(choices: Iterable[Any], incomplete: str) -> list[str]:
    return [choice for choice in choices if choice.startswith(incomplete)]
