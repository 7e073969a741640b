"""Where mapping tables are: those that porter ships, and those that a user adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from porter.errors import UnsupportedError, UsageError
from porter.tables.load import load_canonical, load_dialect
from porter.tables.model import Canonical, Dialect
from porter.tables.toml_source import read_with_ancestors


@cache
def mappings_root() -> Path:
    """The folder of shipped tables: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "mappings", package.parent / "mappings"):
        if (candidate / "_decoder").is_dir():
            return candidate
    raise UsageError("porter's mapping tables are missing", hint="reinstall weight-porter")


@dataclass(frozen=True)
class Family:
    """One architecture: its canonical tensors, and every dialect that has a table."""

    canonical: Canonical
    dialects: dict[str, Dialect]

    @property
    def name(self) -> str:
        return self.canonical.family

    def dialect(self, name: str) -> Dialect:
        if name not in self.dialects:
            raise UnsupportedError(
                f"there is no table for {self.name} in the dialect {name!r}",
                hint=f"there are: {', '.join(sorted(self.dialects))}; add your own with --map FILE.toml",
            )
        return self.dialects[name]


def family_names() -> list[str]:
    """The families that porter ships tables for."""
    return sorted(
        folder.name
        for folder in mappings_root().iterdir()
        if (folder / "canonical.toml").is_file() and not folder.name.startswith("_")
    )


@cache
def _shipped(name: str) -> Family:
    folder = mappings_root() / name
    if name.startswith("_") or not (folder / "canonical.toml").is_file():
        raise UnsupportedError(f"unknown family {name!r}", hint=f"known: {', '.join(family_names())}")
    canonical = load_canonical(folder / "canonical.toml", mappings_root())
    dialects = {}
    for path in sorted(folder.glob("*.toml")):
        if path.name != "canonical.toml":
            dialect = load_dialect(path, mappings_root(), canonical)
            dialects[dialect.name] = dialect
    return Family(canonical, dialects)


def load_families(extra: Iterable[Path] = ()) -> dict[str, Family]:
    """All families, with the user's tables added to theirs (a table of the same name takes its place)."""
    families = {name: _shipped(name) for name in family_names()}
    for path in extra:
        dialect = load_user_table(path)
        family = families[dialect.family]
        families[dialect.family] = Family(family.canonical, {**family.dialects, dialect.name: dialect})
    return families


def load_user_table(path: Path) -> Dialect:
    """A dialect table of the user's own, checked against the shipped canonical table of its family."""
    chain = read_with_ancestors(path, mappings_root())
    names = [source.data["family"] for source in chain if "family" in source.data]
    if not names:
        raise UsageError(f"{path}: the table names no `family`", hint=f"one of {', '.join(family_names())}")
    return load_dialect(path, mappings_root(), _shipped(str(names[-1])).canonical)
