"""What TAB offers: dialects, dtypes, families, short names of models, paths. No checkpoint is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

Complete = Callable[[str], list[str]]


def words(*choices: str) -> Complete:
    """The words of a closed set."""
    return lambda incomplete: _beginning(choices, incomplete)


def dialects(incomplete: str) -> list[str]:
    """Every dialect that porter ships a table for."""
    from porter.tables.catalogue import shipped_dialects

    return _beginning(sorted(shipped_dialects()), incomplete)


def targets(incomplete: str) -> list[str]:
    """The dialects that porter writes."""
    from porter.tables.catalogue import load_families

    families = load_families().values()
    return _beginning(sorted({name for family in families for name in family.written}), incomplete)


def families(incomplete: str) -> list[str]:
    from porter.tables.catalogue import family_names

    return _beginning(family_names(), incomplete)


def sources(incomplete: str) -> list[str]:
    """Short names, and what lies here: directories, and files that may hold weights."""
    from porter.sources.names import ALIASES
    from porter.sources.weight_files import container_by_suffix

    found = [] if "/" in incomplete else _beginning(ALIASES, incomplete)
    head, _, _ = incomplete.rpartition("/")
    typed = head + "/" if head or incomplete.startswith("/") else ""
    try:
        there = sorted(Path(typed or ".").expanduser().iterdir())
    except OSError:
        return found
    for path in there:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found.append(f"{typed}{path.name}/")
        elif container_by_suffix(path.name) is not None:
            found.append(typed + path.name)
    return _beginning(found, incomplete)


def _beginning(choices: Iterable[str], incomplete: str) -> list[str]:
    return [choice for choice in choices if choice.startswith(incomplete)]
