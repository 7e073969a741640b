"""Dicts that a framework makes of several places of its config, made as the framework makes them.

transformers, for one, reads RoPE from `rope_scaling`, `rope_parameters` and single fields. Which of them wins
is a question of whole dicts, and is answered here once; an entry that nobody carries is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from porter.config.raw import get
from porter.errors import MalformedError, UnsupportedError
from porter.tables.model import MergedDict


@dataclass(frozen=True)
class Merged:
    """The entries that the framework computes with, and where each came from (`rope_scaling.factor`).

    `passed_over` are places that say something else than what is read, or that this kind does not read.
    """

    entries: Mapping[str, Any]
    origins: Mapping[str, str]
    passed_over: tuple[str, ...]


def merge_dict(recipe: MergedDict, raw: Mapping[str, Any], file: str) -> Merged:
    """One merged dict. Raises MalformedError for a place that holds no dict, UnsupportedError for an entry
    or a kind that the table does not know."""
    entries: dict[str, Any] = dict(recipe.base)
    origins = dict.fromkeys(entries, "")
    passed_over: list[str] = []
    taken = False
    for path in recipe.first:
        found = _dict_at(raw, path, file)
        if found and not taken:
            entries, origins, taken = dict(found), {key: f"{path}.{key}" for key in found}, True
        elif found and found != entries:
            passed_over.append(path)
    for path in recipe.update:
        for key, value in _dict_at(raw, path, file).items():
            entries[key], origins[key] = value, f"{path}.{key}"
    for key, path in recipe.fill.items():
        there, value = get(raw, path)
        if not there or value is None:
            continue
        if key not in entries:
            entries[key], origins[key] = value, path
        elif entries[key] != value:
            passed_over.append(path)
    entries = {key: value for key, value in entries.items() if value is not None}
    kind = next((entries[key] for key in recipe.kind if key in entries), "default")
    if not isinstance(kind, str) or kind not in recipe.keys:
        where = next((origins[key] for key in recipe.kind if key in entries), "")
        raise UnsupportedError(
            f"{file}: {where} = {kind!r} is not known to porter", cause=f"known: {', '.join(recipe.keys)}"
        )
    for key, path in recipe.over.items():
        there, value = get(raw, path)
        if key in recipe.keys[kind] and there and value is not None:
            if entries.get(key, value) != value:
                passed_over.append(origins[key])
            entries[key], origins[key] = value, path
    read = {*recipe.fill, *recipe.kind, *recipe.keys[kind]}
    elsewhere = {key for keys in recipe.keys.values() for key in keys}
    for key in sorted(entries.keys() - read):
        if key not in elsewhere:
            raise UnsupportedError(
                f"{file}: {origins[key]} = {entries[key]!r} is not known to porter",
                cause="it may change what the model computes, and there is no place to carry it to",
                hint=f"known beside {recipe.kind[0]} = {kind!r}: {', '.join(sorted(read))}",
            )
        passed_over.append(origins[key])
        del entries[key]
    if recipe.kind:
        for key in recipe.kind[1:]:
            if key in entries and entries[key] != kind:
                passed_over.append(origins[key])
            entries.pop(key, None)
        origins.setdefault(recipe.kind[0], recipe.kind[0])
        entries[recipe.kind[0]] = kind
    return Merged(entries, origins, tuple(passed_over))


def _dict_at(raw: Mapping[str, Any], path: str, file: str) -> Mapping[str, Any]:
    value = get(raw, path)[1]
    if value is not None and not isinstance(value, Mapping):
        raise MalformedError(f"{file}: {path} must be a mapping", cause=f"found {value!r}")
    return value or {}
