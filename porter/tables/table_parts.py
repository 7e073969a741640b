"""What every part of a table is read with: known keys, texts and lists of the right type, errors in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from porter.errors import PorterError
from porter.layout import Expression, parse_expression
from porter.tables.model import TableError, Where
from porter.tables.patterns import Pattern, parse_pattern
from porter.tables.toml_source import TableSource

Merged = dict[str, tuple[Any, Where]]


def merge(chain: list[TableSource], section: str) -> Merged:
    """A section of a table and of all that it extends; later entries take the place of earlier ones."""
    merged: Merged = {}
    for source in chain:
        part = source.data.get(section, {})
        if not isinstance(part, dict):
            raise TableError(source.where(section), f"`{section}` must be a table")
        for key, value in part.items():
            merged.pop(key, None)
            merged[key] = (value, source.where(*section.split("."), key))
    return merged


def text_of(source: TableSource, key: str, default: str | None = None) -> str:
    """A string of the table's own; without a default it must be there."""
    value = source.data.get(key, default)
    if not isinstance(value, str):
        raise TableError(source.where(key), f"the table needs a `{key}`", hint=f'write {key} = "<name>"')
    return value


def texts_of(source: TableSource, key: str) -> list[str]:
    """A list of strings of the table's own, or an empty one."""
    value = source.data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TableError(source.where(key), f"`{key}` must be a list of names", cause=f"found {value!r}")
    return value


def require_known_keys(spec: Mapping[str, Any], keys: Collection[str], where: Where) -> None:
    for key in spec:
        if key not in keys:
            raise TableError(where, f"unknown key `{key}`", hint=f"known: {', '.join(sorted(keys))}")


def expression_at(text: str, where: Where) -> Expression:
    try:
        return parse_expression(text)
    except PorterError as error:
        raise TableError(where, error.message, cause=error.cause, hint=error.hint) from None


def pattern_at(text: str, where: Where) -> Pattern:
    try:
        return parse_pattern(text)
    except PorterError as error:
        raise TableError(where, error.message, cause=error.cause, hint=error.hint) from None
