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
from porter.tables.schema import CANONICAL, DIALECT, MISTAKES, wrong_entries
from porter.untrusted import quoted, shortened

# Characters of a line that is looked at for its key: matching takes time that grows with their square.
_LONGEST_LINE = 1_000

# Each part of a dotted key is a table of its own, and the parser's time grows with the square.
_MANY_PARTS = re.compile(r"(?<![\w.-])(?:[\w-]++[ \t]*+\.[ \t]*+){32}")

# Alone on its line, or it is an item of a list that runs over several.
_SECTION = re.compile(r"\s*\[(\[)?\s*([^\[\],]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_.\-]+))\s*=""")


# Files that are no dialect's, by name.
MISTAKES_FILE = "_mistakes.toml"
_SCHEMAS = {"canonical.toml": CANONICAL, MISTAKES_FILE: MISTAKES}

# What stands at the top of a table for something further down.
SHORT = ("match", "model_type", "architecture")


@dataclass(frozen=True)
class TableSource:
    """One TOML file."""

    path: Path
    text: str

    @property
    def data(self) -> dict[str, Any]:
        """What it says. Raises TableError where it is no TOML, or not of the schema."""
        return _data(self)

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        lines: dict[tuple[str, ...], int] = {}
        section: tuple[str, ...] = ()
        counts: dict[str, int] = {}
        for number, line in enumerate(self.text.splitlines(), start=1):
            line = line[:_LONGEST_LINE]
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


@cache
def _data(source: TableSource) -> dict[str, Any]:
    # Bases are read once for each table that extends them; nobody changes what was read.
    if _MANY_PARTS.search(source.text):
        raise TableError(Where(source.path, 1), "not valid TOML", cause="a key of more than 32 parts")
    try:
        data = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        where = Where(source.path, int(line[1]) if line else 1)
        raise TableError(where, "not valid TOML", cause=str(error)) from None
    except (ValueError, RecursionError) as error:
        # Numbers that are too long, lists that are nested too deep.
        raise TableError(Where(source.path, 1), "not valid TOML", cause=str(error)) from None
    for place, must, found in wrong_entries(data, _SCHEMAS.get(source.path.name, DIALECT)):
        named = next((key for key in place[::-1] if isinstance(key, str)), "the table")
        # A rule that is written out is found by where it begins.
        where = source.where(*(place[:2] if place[:1] == ("rule",) else place))
        raise TableError(
            where,
            f"`{shortened(named, 80)}` must be {must}",
            cause=f"found {quoted(found)} at {_spelled(place)}",
        )
    return _written_out(data)


# Bytes. The longest shipped table has 20 kB.
_LARGEST = 1 << 20


def _spelled(place: Sequence[str | int]) -> str:
    """A place in a table as a person would write it."""
    return ".".join(shortened(str(key), 80) for key in place) or "the table"


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
    chain: dict[Path, TableSource] = {}
    _collect(path, [roots] if isinstance(roots, Path) else list(roots), chain, [])
    return list(chain.values())


def _collect(path: Path, roots: Sequence[Path], chain: dict[Path, TableSource], below: list[Path]) -> None:
    """Adds the table to those that were read, by where they really lie."""
    place = path.resolve()
    if place in chain:
        return
    source = read_source(path)
    for base in _bases(source, roots):
        if base.resolve() in (*below, place):
            raise TableError(source.where("extends"), "a table extends itself", hint="break the circle")
        _collect(base, roots, chain, [*below, place])
    chain[place] = source


def _bases(source: TableSource, roots: Sequence[Path]) -> list[Path]:
    named = source.data.get("extends", [])
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TableError(
            source.where("extends"), "`extends` must be a string, or a list of them", cause=f"found {named!r}"
        )
    found = []
    for name in names:
        beside = name.endswith(".toml")
        places = [source.path.parent / name] if beside else _under(roots, name)
        base = next((place for place in places if place.exists()), None)
        if base is None:
            raise TableError(
                source.where("extends"),
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


def _written_out(parsed: dict[str, Any]) -> dict[str, Any]:
    """With what tables say shortly, at their top, in its long form: how a config is known, and called.

    `match = { key = "word" }` is `[config.match]`; `model_type` and `architecture`, of Hugging Face's
    configs, are what is matched and written there.
    """
    found = {key: value for key, value in parsed.items() if key not in SHORT}
    short = {key: parsed[key] for key in SHORT if key in parsed}
    if not short:
        return parsed
    matched, written = {}, {}
    for name, word in short.get("match", {}).items():
        matched[name] = word if isinstance(word, list) else [word]
    if "model_type" in short:
        matched["model_type"] = [short["model_type"]]
        written["model_type"] = short["model_type"]
    if "architecture" in short:
        written["architectures"] = [short["architecture"]]
    config = dict(found.get("config", {}))
    for part, values in (("match", matched), ("write", written)):
        if values:
            config[part] = {**values, **config.get(part, {})}
    return {**found, "config": config}
