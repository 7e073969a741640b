"""Where mapping tables are: those that porter ships, and those that a user adds.

A folder is a family, and each of its files a dialect. What decoder-only transformers share is in `decoder`:
its canonical tensors are those of every family without a `canonical.toml` of its own, and its `shared`
dialects, frameworks that are one model with switches, are dialects of all of these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from porter.errors import PorterError, UnsupportedError, UsageError
from porter.tables.check import settled
from porter.tables.dialect_names import dialect_named, unknown_dialect
from porter.tables.load import load_canonical, load_dialect
from porter.tables.model import Canonical, Dialect
from porter.tables.sketches import Sketch, of_dialects, of_tables
from porter.tables.toml_source import read_source, read_with_ancestors
from porter.wording import option

DECODER = "decoder"
_CANONICAL = "canonical.toml"


@cache
def mappings_root() -> Path:
    """The folder of shipped tables: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "mappings", package.parent / "mappings"):
        if (candidate / DECODER).is_dir():
            return candidate
    raise UsageError("porter's mapping tables are missing", hint="reinstall weight-porter")


class Dialects(Mapping[str, Dialect]):
    """The dialects of a family by name. Each table is loaded, and checked, when its dialect is asked for."""

    def __init__(self, loaders: Mapping[str, Callable[[], Dialect]] | None = None) -> None:
        self._loaders = loaders or {}

    @classmethod
    def of(cls, loaded: Iterable[Dialect]) -> Dialects:
        return cls({dialect.name: partial(_itself, dialect) for dialect in loaded})

    def __getitem__(self, name: str) -> Dialect:
        return self._loaders[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._loaders

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)

    def __or__(self, other: Dialects) -> Dialects:
        return Dialects({**self._loaders, **other._loaders})

    def without(self, names: Collection[str]) -> Dialects:
        return Dialects({name: load for name, load in self._loaders.items() if name not in names})


_T = TypeVar("_T")


def _itself(value: _T) -> _T:
    return value


@dataclass(frozen=True)
class Family:
    """One architecture: its canonical tensors, and every dialect that has a table.

    `missing` says why a checkpoint is of no family that Hugging Face has, `no_dialect` why a framework has no
    dialect of the family (`litgpt` stands for `litgpt-legacy` as well).
    """

    canonical: Canonical
    dialects: Dialects
    missing: str | None = None
    no_dialect: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.canonical.family

    def dialect(self, name: str, *, to_write: bool = False) -> Dialect:
        """A dialect by its name, or by what people call it. UsageError for a word that no table has.

        Errors offer all dialects, or those that can be written.
        """
        named = dialect_named(name, self.dialects)
        if named is None:
            offered = self.written if to_write else self.dialects
            everywhere = {*self.dialects, *shipped_dialects()}
            name = dialect_named(name, everywhere) or name
            if self.dialects and name not in everywhere:
                raise unknown_dialect(name, offered)
            raise UnsupportedError(
                f"there is no table for {self.name} in the dialect {name!r}",
                cause=self.refusal(name) or self.missing,
                hint=f"there are: {', '.join(sorted(offered))}; add your own with "
                f"{option('map', 'FILE.toml')}"
                if self.dialects
                else "mend the table; `porter mappings check FILE.toml` says what is wrong with it",
            )
        return self.dialects[named]

    @property
    def written(self) -> list[str]:
        """The dialects that can be written, the most used first."""
        order = ("hf", "litgpt", "keras", "flax")
        names = [name for name, dialect in self.dialects.items() if dialect.written]
        return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))

    def refusal(self, dialect: str) -> str | None:
        """Why there cannot be a dialect of that name, where the family's table says so."""
        return self.no_dialect.get(dialect, self.no_dialect.get(dialect.partition("-")[0]))


def family_names() -> list[str]:
    """The families that porter ships tables for."""
    return _families_in(mappings_root())


@cache
def shipped_dialects() -> frozenset[str]:
    """The dialects that porter ships tables for, of whatever family."""
    return frozenset(path.stem for path in mappings_root().glob("*/*.toml") if path.name != _CANONICAL)


def _families_in(root: Path) -> list[str]:
    return sorted(
        folder.name
        for folder in root.iterdir()
        if folder.name != DECODER and not folder.name.startswith((".", "_")) and any(folder.glob("*.toml"))
    )


@cache
def decoder() -> Family:
    """The vocabulary of decoder-only transformers, with the dialects that all of its families share."""
    canonical = load_canonical(mappings_root() / DECODER / _CANONICAL, mappings_root())
    return Family(canonical, _when_asked_for(_decoder_tables(), (mappings_root(),), canonical))


def _decoder_tables() -> list[Path]:
    """Those that are dialects; the others are there to be extended."""
    return [path for path in _tables(mappings_root() / DECODER) if read_source(path).data.get("shared")]


def _tables(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.toml")) if path.name != _CANONICAL]


def _when_asked_for(tables: Iterable[Path], roots: tuple[Path, ...], canonical: Canonical) -> Dialects:
    """Dialects of porter's own tables, which are called as their files are."""
    return Dialects({path.stem: cache(partial(load_dialect, path, roots, canonical)) for path in tables})


def _at_once(tables: Iterable[Path], roots: tuple[Path, ...], canonical: Canonical) -> Dialects:
    return Dialects.of(load_dialect(path, roots, canonical) for path in tables)


@cache
def _shipped(name: str) -> Family:
    if name not in family_names():
        raise UnsupportedError(f"unknown family {name!r}", hint=f"known: {', '.join(family_names())}")
    return _load(mappings_root() / name, (mappings_root(),), _when_asked_for)


def _load(
    folder: Path,
    roots: tuple[Path, ...],
    load: Callable[[Iterable[Path], tuple[Path, ...], Canonical], Dialects],
    base: Family | None = None,
) -> Family:
    """A family of one folder; `base` is the shipped one that it adds dialects to."""
    own = folder / _CANONICAL
    if base is not None:
        canonical, inherited = base.canonical, base.dialects
    elif own.is_file():
        canonical, inherited = load_canonical(own, roots), Dialects()
    else:
        canonical, inherited = replace(decoder().canonical, family=folder.name), decoder().dialects
    added = load(_tables(folder), roots, canonical)
    family = Family(canonical, inherited | added)
    if "hf" not in family.dialects:
        return family
    hf = family.dialects["hf"]
    if base is None:
        # An example need not say again what the family's code fixes.
        example = {**canonical.example, **settled(hf, canonical), **hf.example}
        canonical = replace(canonical, example=example)
    family = replace(family, canonical=canonical, no_dialect=hf.no_dialect)
    # What the family's own folder or a user has a table for is there all the same.
    refused = {name for name in decoder().dialects if family.refusal(name) is not None}
    return replace(family, dialects=inherited.without(refused) | added)


class Families(Mapping[str, Family]):
    """Families by name, in the order that they are tried in. Tables are loaded when a family is asked for.

    Most checkpoints are of one family, and their config says which: `sketches` tell by a few lines of its
    tables whether a family is worth loading.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], Family]], shipped: Iterable[str]) -> None:
        self._loaders = loaders
        self._shipped = frozenset(shipped)

    def __getitem__(self, name: str) -> Family:
        return self._loaders[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)

    def named(self, name: str) -> Family:
        """The family of that name. Raises UsageError where there is none."""
        if name not in self._loaders:
            near = get_close_matches(name.lower(), self._loaders, n=3)
            raise UsageError(
                f"unknown family {name!r}",
                hint=f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(sorted(self))}",
            )
        return self[name]

    def only(self, name: str) -> Families:
        """One of the families, alone."""
        return Families({name: self._loaders[name]}, self._shipped)

    def sketches(self, name: str) -> tuple[Sketch, ...]:
        """What tells the family's dialects. Of porter's own those that are the family's alone, not loaded."""
        return _sketches(name) if name in self._shipped else of_dialects(self[name].dialects)

    def common(self, name: str) -> bool:
        """Whether the family's canonical tensors are those of `decoder`."""
        if name in self._shipped:
            return not (mappings_root() / name / _CANONICAL).is_file()
        return self[name].canonical.tensors is decoder().canonical.tensors


@cache
def _sketches(name: str) -> tuple[Sketch, ...]:
    tables = _decoder_tables() if name == DECODER else _tables(mappings_root() / name)
    return of_tables(tables, mappings_root())


def load_families(extra: Iterable[Path] = ()) -> Families:
    """All families, with the user's tables added to theirs (a table of the same name takes its place).

    `extra` are tables, and folders of families; `PORTER_MAPPINGS` may name more folders. Families without a
    framework of their own stand last, under `decoder`. Shipped tables are loaded when they are asked for.
    """
    shipped = family_names()
    loaders: dict[str, Callable[[], Family]] = {name: partial(_shipped, name) for name in shipped}
    added: dict[str, Family] = {}
    named = os.environ.get("PORTER_MAPPINGS", "").split(os.pathsep)
    for path in (*(Path(name) for name in named if name), *extra):
        if path.is_dir():
            for name in _families_in(path):
                base = added.get(name) or (_shipped(name) if name in shipped else None)
                added[name] = _users_family(path, name, base)
        else:
            dialect = load_user_table(path)
            family = added.get(dialect.family) or _shipped(dialect.family)
            added[dialect.family] = replace(family, dialects=family.dialects | Dialects.of([dialect]))
    for name, family in added.items():
        loaders[name] = partial(_itself, family)
    return Families({**loaders, DECODER: decoder}, {*shipped, DECODER} - added.keys())


def load_users_family(path: Path) -> Dialect | None:
    """The dialect of a family of the user's own, if the table is one: its name is that of its base's dialect.

    None for a table that adds a dialect to a family that there is. Raises TableError.
    """
    base = read_source(path).data.get("extends")
    if (
        not isinstance(base, str)
        or base.rpartition("/")[2] != path.stem
        or path.parent.name in family_names()
    ):
        return None
    root = path.resolve().parent.parent
    return _load(path.resolve().parent, (root, mappings_root()), _at_once).dialects.get(path.stem)


def _users_family(root: Path, name: str, base: Family | None) -> Family:
    """A family in a folder of the user's own. A broken one has no dialects, and stops no other.

    That holds for one that porter ships, too: its own tables would be used in the place of the user's.
    """
    try:
        return _load(root / name, (root, mappings_root()), _at_once, base)
    except PorterError as error:
        said = error.message + (f" ({error.cause})" if error.cause else "")
        canonical = base.canonical if base else replace(decoder().canonical, family=name)
        return Family(canonical, Dialects(), said)


def load_user_table(path: Path) -> Dialect:
    """A dialect table of the user's own, checked against the shipped canonical table of its family."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="name one of its tables")
    chain = read_with_ancestors(path, mappings_root())
    for source in chain[::-1]:
        base = source.data.get("extends", "")
        first = str(base[0] if isinstance(base, list) and base else base)
        name = source.data.get("family", first.rpartition("/")[0] or None)
        if name is not None and name != DECODER:
            family = _shipped(str(name))
            shared = any(other.data.get("shared") for other in chain)
            known = settled(family.dialects["hf"], family.canonical) if shared else None
            return load_dialect(path, mappings_root(), family.canonical, known)
    raise UsageError(f"{path}: the table names no `family`", hint=f"one of {', '.join(family_names())}")
