"""`porter.list_models`: which models are read and written, in which dialects, in users' words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from porter.planning.arguments import as_paths
from porter.sources.names import ALIASES
from porter.tables.catalogue import DECODER, load_families


@dataclass(frozen=True)
class Support:
    """One family: what its models are called, the dialects that are read and those that are written, and the
    short names of its releases on the Hub."""

    models: str
    family: str
    read: tuple[str, ...]
    written: tuple[str, ...]
    short_names: tuple[str, ...]


def list_models(maps: str | Path | Sequence[str | Path] = ()) -> tuple[Support, ...]:
    """Every family that there is a table for, shipped and (by `maps`) of the user's own.

    >>> import porter
    >>> gemma = next(one for one in porter.list_models() if one.family == "gemma")
    >>> gemma.models, gemma.written[:2], "gguf" in gemma.read
    ('Gemma 1 and CodeGemma', ('hf', 'litgpt'), True)
    """
    found = []
    for name, family in load_families(as_paths(maps, "maps")).items():
        if name == DECODER or not family.dialects:
            continue
        words = next((dialect.models for dialect in family.dialects.values() if dialect.models), name)
        written = tuple(family.written)
        others = (*written, *sorted(family.dialects.keys() - set(written)))
        short = tuple(alias.alias for alias in ALIASES.values() if alias.family == name)
        found.append(Support(words, name, others, written, short))
    return tuple(sorted(found, key=lambda one: (not one.short_names, one.models.lower())))
