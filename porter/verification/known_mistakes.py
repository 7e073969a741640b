"""The table of known mistakes: read from `_mistakes.toml`, porter's and those of a user's own folders.

A mistake is a small change to what a right port holds: of which tensor, in which order, or of what values. An
entry has one kind of change and says it in words; `of` limits it to some canonical tensors.

    alias       a tensor holds another one of the same axes: only named here, found by looking samples up
    exchange    two axes have changed places, in either direction
    reshaped    the original's order of elements under the port's shape
    reverse     the stored dims in another order, where the shape allows it or it was only reshaped
    ours layout the blocks of a fused tensor lie as another layout says
    interleave  rows of several tensors alternate that should follow one another, or the other way
    hold        one step of an axis is repeated
    add multiply divide through cut bits swapped steps    what was done to values
    index       steps of an index variable are in another order, by the names of `named`

`[[config]]` entries say what it means that a hyperparameter is another one, and `[published.FAMILY]` what all
published models of a family have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from porter.dtypes import DTYPES
from porter.errors import PorterError
from porter.layout import Expression, Layout, parse_layout
from porter.tables.catalogue import mappings_root
from porter.tables.model import TableError, Where
from porter.tables.table_parts import expression_at, require_known_keys
from porter.tables.toml_source import MISTAKES_FILE, read_source

# Kinds of changes to values, in the order in which an entry that has several does them.
VALUES = ("bits", "swapped", "add", "multiply", "divide", "through", "cut")

# Those of them that a number belongs to.
_NUMBERS = ("add", "multiply", "divide")

_STRUCTURES = ("alias", "exchange", "reshaped", "reverse", "layout", "interleave", "hold", "index")
_KEYS = {"says", "of", "ours", "named", "steps", *_STRUCTURES, *VALUES}
_CONFIG_KEYS = {"of", "says", "found", "expected"}

# A step: its kind, and a number, an expression over the hyperparameters, or a dtype's name.
Step = tuple[str, Any]


@dataclass(frozen=True)
class KnownMistake:
    """One entry. `says` is its name as well. Of the kinds one is set; `steps` are changes to values."""

    says: str
    where: Where
    of: tuple[str, ...] = ("*",)
    alias: tuple[tuple[str, str], ...] = ()
    exchange: tuple[str, str] | None = None
    reshaped: bool = False
    reverse: bool = False
    ours: tuple[str, ...] = ()
    layout: Layout | None = None
    interleave: tuple[str, ...] = ()
    hold: tuple[tuple[str, int], ...] = ()
    steps: tuple[Step, ...] = ()
    index: str | None = None
    named: tuple[tuple[str, Expression], ...] = ()

    def concerns(self, canonical: str) -> bool:
        return any(fnmatchcase(canonical, pattern) for pattern in self.of)

    @property
    def structural(self) -> bool:
        """Whether it says where elements come from."""
        return bool(
            self.exchange or self.reshaped or self.reverse or self.layout or self.interleave or self.hold
        )


@dataclass(frozen=True)
class ConfigMistake:
    """What it means that a hyperparameter is `found` and not `expected`; either may be any."""

    of: str
    says: str
    found: Any = None
    expected: Any = None


@dataclass(frozen=True)
class KnownMistakes:
    """`published` gives, by family and hyperparameter, the values that published models have."""

    mistakes: tuple[KnownMistake, ...]
    configs: tuple[ConfigMistake, ...] = ()
    published: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)


@cache
def known_mistakes(folders: Sequence[Path] = ()) -> KnownMistakes:
    """Those of the user's folders, which come first, and porter's own. Raises TableError."""
    mistakes: list[KnownMistake] = []
    configs: list[ConfigMistake] = []
    published: dict[str, dict[str, tuple[Any, ...]]] = {}
    for folder in (*folders, mappings_root()):
        path = folder / MISTAKES_FILE
        if not path.is_file():
            continue
        source = read_source(path)
        require_known_keys(source.data, {"mistake", "config", "published"}, source.where())
        for family, values in source.data.get("published", {}).items():
            told = {name: tuple(v) if isinstance(v, list) else (v,) for name, v in values.items()}
            published[family] = {**told, **published.get(family, {})}
        for number, raw in enumerate(source.data.get("mistake", [])):
            mistakes.append(_mistake(raw, source.where("mistake", number)))
        for number, raw in enumerate(source.data.get("config", [])):
            where = source.where("config", number)
            require_known_keys(raw, _CONFIG_KEYS, where)
            if "of" not in raw or "says" not in raw:
                raise TableError(where, "a config's mistake needs `of` and `says`")
            configs.append(ConfigMistake(raw["of"], raw["says"], raw.get("found"), raw.get("expected")))
    return KnownMistakes(tuple(mistakes), tuple(configs), published)


def _mistake(raw: Mapping[str, Any], where: Where) -> KnownMistake:
    require_known_keys(raw, _KEYS, where)
    if "says" not in raw:
        raise TableError(where, "a mistake needs `says`", hint='says = "gate and up are swapped"')
    if any(len(pair) != 2 for pair in raw.get("named", ())):
        raise TableError(where, "`named` has pairs of words and an expression")
    steps = [step for item in raw.get("steps", [raw]) for step in _steps(item, where)]
    kinds = [key for key in _STRUCTURES if key in raw]
    if len(kinds) + bool(steps) != 1:
        raise TableError(
            where,
            "a mistake has one kind of change",
            cause=f"found {', '.join([*kinds, *(kind for kind, _ in steps)]) or 'none'}",
            hint=f"one of {', '.join((*_STRUCTURES, *VALUES, 'steps'))}",
        )
    exchange = raw.get("exchange")
    if exchange is not None and len(exchange) != 2:
        raise TableError(where, "`exchange` names two axes", hint='exchange = ["n_kv_head", "q_per_kv"]')
    return KnownMistake(
        says=raw["says"],
        where=where,
        of=tuple(raw.get("of", ("*",))),
        alias=tuple(raw.get("alias", {}).items()),
        exchange=None if exchange is None else (exchange[0], exchange[1]),
        reshaped=bool(raw.get("reshaped", False)),
        reverse=bool(raw.get("reverse", False)),
        ours=tuple(raw.get("ours", ())),
        layout=_layout(raw["layout"], where) if "layout" in raw else None,
        interleave=tuple(raw.get("interleave", ())),
        hold=tuple(raw.get("hold", {}).items()),
        steps=tuple(steps),
        index=raw.get("index"),
        named=tuple((said, expression_at(text, where)) for said, text in raw.get("named", ())),
    )


def _layout(text: str, where: Where) -> Layout:
    try:
        return parse_layout(text)
    except PorterError as error:
        raise TableError(where, error.message, cause=error.cause, hint=error.hint) from None


def _steps(raw: Mapping[str, Any], where: Where) -> list[Step]:
    found: list[Step] = []
    for kind in VALUES:
        if kind not in raw:
            continue
        operand = raw[kind]
        if kind in ("through", "cut") and operand not in DTYPES:
            raise TableError(where, f"`{kind}` needs a dtype", cause=f"found {operand!r}", hint='"BF16"')
        if kind in _NUMBERS and isinstance(operand, str):
            operand = expression_at(operand, where)
        found.append((kind, operand))
    return found


def operand_value(operand: Any, hyperparameters: Mapping[str, Any]) -> float:
    """What a step adds, multiplies or divides by."""
    if isinstance(operand, Expression):
        operand = operand.evaluate(hyperparameters.__getitem__, {"sqrt": math.sqrt})
    return float(operand)


def has_numbers(known: KnownMistake, hyperparameters: Mapping[str, Any]) -> bool:
    """Whether what is added and multiplied by has a value for these hyperparameters."""
    try:
        for kind, operand in known.steps:
            if kind in _NUMBERS:
                operand_value(operand, hyperparameters)
    except (PorterError, TypeError, ValueError):
        return False
    return True
