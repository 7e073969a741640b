"""TOML tables as they lie on disk: text, parsed data, line numbers, and what they extend.

`tomllib` gives no positions, so lines are found by a small scan of section headers and keys; that is
enough to point a person at the right place, and is used for nothing else.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from porter.errors import MalformedError, UsageError
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
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"line (\d+)", str(error))
            where = Where(self.path, int(line[1]) if line else 1)
            raise TableError(where, "not valid TOML", cause=str(error)) from None

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


def read_source(path: Path) -> TableSource:
    """Read one table file."""
    try:
        return TableSource(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no mapping table at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedError(f"cannot read the mapping table {path}", cause=str(error)) from None


def read_with_ancestors(path: Path, root: Path) -> list[TableSource]:
    """A table and what it extends, eldest first.

    `extends` names a table under the mappings root (`gemma2/hf`), or a `.toml` file beside this one.
    """
    chain: list[TableSource] = []
    current: Path | None = path
    while current is not None:
        source = read_source(current)
        if any(source.path.resolve() == seen.path.resolve() for seen in chain):
            raise TableError(source.where("extends"), "a table extends itself", hint="break the circle")
        chain.append(source)
        parent = source.data.get("extends")
        if parent is None:
            break
        if not isinstance(parent, str):
            raise TableError(source.where("extends"), "`extends` must be a string", cause=f"found {parent!r}")
        current = current.parent / parent if parent.endswith(".toml") else root / f"{parent}.toml"
        if not current.is_file():
            raise TableError(
                source.where("extends"),
                f"`extends` names no table: {parent!r}",
                hint="write FAMILY/DIALECT for a table that porter ships, or a file name ending in .toml",
            )
    return chain[::-1]
