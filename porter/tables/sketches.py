"""What of a table says whether it could be a checkpoint's, before the table is loaded and checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from porter.tables.config_entries import Recognition, recognition
from porter.tables.load import files_of
from porter.tables.model import Dialect
from porter.tables.toml_source import read_with_ancestors


class Sketch(NamedTuple):
    """Of a dialect that has a config, in the file `file`.

    `matches` are its own `match` and those of the dialects whose configs it borrows, each enough; `optional`
    says that there may be no config. `shared` and `after` are as in `Dialect`.
    """

    dialect: str
    file: str
    matches: tuple[Mapping[str, Any], ...]
    containers: tuple[str, ...]
    optional: bool
    shared: bool
    after: tuple[str, ...]


def of_tables(paths: Iterable[Path], root: Path) -> tuple[Sketch, ...]:
    """Of tables that are called as their dialects are."""
    chains = {path.stem: read_with_ancestors(path, root) for path in paths}
    told = {dialect: recognition(chain) for dialect, chain in chains.items()}
    own = {dialect: chain[-1].data for dialect, chain in chains.items()}
    return tuple(
        Sketch(
            dialect,
            file,
            matches,
            files_of(chains[dialect]).readable,
            told[dialect].optional,
            bool(own[dialect].get("shared")),
            tuple(own[dialect].get("after", ())),
        )
        for dialect, file, matches in _recognised(told)
    )


def of_dialects(dialects: Mapping[str, Dialect]) -> tuple[Sketch, ...]:
    """Of tables that have been loaded."""
    told = {
        name: Recognition(config.file, dict(config.match), config.optional, config.borrow)
        for name, dialect in dialects.items()
        for config in (dialect.config,)
    }
    return tuple(
        Sketch(name, file, matches, found.files.readable, found.config.optional, found.shared, found.after)
        for name, file, matches in _recognised(told)
        for found in (dialects[name],)
    )


def _recognised(told: Mapping[str, Recognition]) -> Iterator[tuple[str, str, tuple[Mapping[str, Any], ...]]]:
    for dialect, found in told.items():
        if found.file is not None:
            lenders = [known for known in (dialect, *found.borrow) if known in told]
            yield dialect, found.file, tuple(told[known].match for known in lenders)
