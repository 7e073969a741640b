"""TOML tables as they lie on disk: text, parsed data, line numbers, and what they extend.

`tomllib` gives no positions, so lines are found by a small scan of section headers and keys; that is
enough to point a person at the right place, and is used for nothing else.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from porter.errors import MalformedError, UsageError
from porter.reading.regular import read_regular
from porter.tables.model import TableError, Where

# Alone on its line, or it is an item of a list that runs over several.
_SECTION = re.compile(r"\s*\[(\[)?\s*([^\[\],]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_.\-]+))\s*=""")


@dataclass(frozen=True)
class TableSource:
    """One TOML file."""

    path: Path
    text: str

    @cached_property
    def data(self) -> dict[str, Any]:
        try:
            return _parsed(self.text)
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"line (\d+)", str(error))
            where = Where(self.path, int(line[1]) if line else 1)
            raise TableError(where, "not valid TOML", cause=str(error)) from None
        except (ValueError, RecursionError) as error:
            # Numbers that are too long, lists that are nested too deep.
            raise TableError(Where(self.path, 1), "not valid TOML", cause=str(error)) from None

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        lines: dict[tuple[str, ...], int] = {}
        section: tuple[str, ...] = ()
        counts: dict[str, int] = {}
        for number, line in enumerate(self.text.splitlines(), start=1):
            if header := _SECTION.match(line):
                name = header[2]
                if header[1]:
                    counts[name] = counts.get(name, -1) + 1
                    section = (name, str(counts[name]))
                else:
                    section = tuple(name.split("."))
                lines.setdefault(section, number)
            elif key := _KEY.match(line):
                lines.setdefault((*section, key[1] or key[2] or key[3]), number)
        return lines

    def where(self, *keys: str | int) -> Where:
        """The place of a key, or of the nearest enclosing section that was found."""
        path = tuple(str(key) for key in keys)
        while path and path not in self._lines:
            path = path[:-1]
        return Where(self.path, self._lines.get(path, 1))


# Bytes. The longest shipped table has 20 kB.
_LARGEST = 1 << 20


@cache
def _parsed(text: str) -> dict[str, Any]:
    # Bases are read once for each table that extends them; nobody changes what was read.
    return tomllib.loads(text)


def read_source(path: Path) -> TableSource:
    """Read one table file."""
    if not path.exists():
        raise UsageError(f"no mapping table at {path}")
    try:
        return TableSource(path, read_regular(path, str(path), _LARGEST).decode())
    except UnicodeDecodeError as error:
        raise MalformedError(f"cannot read the mapping table {path}", cause=str(error)) from None


def read_with_ancestors(path: Path, roots: Path | Sequence[Path]) -> list[TableSource]:
    """A table and all that it extends, eldest first, each once.

    `extends` names a table under one of the roots (`gemma2/hf`), or a `.toml` file beside this one; or it is
    a list of such bases, of which later ones take the place of earlier ones where they differ.
    """
    chain: list[TableSource] = []
    _collect(path, [roots] if isinstance(roots, Path) else list(roots), chain, [])
    return chain


def _collect(path: Path, roots: Sequence[Path], chain: list[TableSource], below: list[Path]) -> None:
    source = read_source(path)
    place = path.resolve()
    if any(place == seen.path.resolve() for seen in chain):
        return
    for base in _bases(source, roots):
        if base.resolve() in (*below, place):
            raise TableError(source.where("extends"), "a table extends itself", hint="break the circle")
        _collect(base, roots, chain, [*below, place])
    chain.append(source)


def _bases(source: TableSource, roots: Sequence[Path]) -> list[Path]:
    named = source.data.get("extends", [])
    names = [named] if isinstance(named, str) else named
    where = source.where("extends")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TableError(where, "`extends` must be a string, or a list of them", cause=f"found {named!r}")
    found = []
    for name in names:
        beside = name.endswith(".toml")
        places = [source.path.parent / name] if beside else _under(roots, name)
        base = next((place for place in places if place.is_file()), None)
        if base is None:
            raise TableError(
                where,
                f"`extends` names no table: {name!r}",
                hint="write FAMILY/DIALECT for a table that porter ships, or a file name ending in .toml",
            )
        found.append(base)
    return found


def _under(roots: Sequence[Path], name: str) -> list[Path]:
    """Where a table of that name may be; `gemma/litgpt` is what all families share, and lies in `decoder`."""
    family, _, dialect = name.rpartition("/")
    places = [root / f"{name}.toml" for root in roots]
    return places + [root / "decoder" / f"{dialect}.toml" for root in roots if (root / family).is_dir()]
