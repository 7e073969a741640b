"""The rules of a dialect: collected from a table and what it extends, renamed, and parsed.

A rule is keyed by the name of the stored tensor, under `[rules]`: a canonical tensor, a table, or a list of
such of which one holds at a time. `[[rule]]` with `theirs` is the same written out. Under `[names]` stand
stems, whole parts of a name, that this table spells in another way than the tables which it extends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from porter.errors import PorterError
from porter.layout import Layout, parse_layout
from porter.layout.expressions import Expression
from porter.tables.model import Canonical, Rule, TableError, Where
from porter.tables.table_parts import expression_at, pattern_at, require_known_keys, texts_of
from porter.tables.toml_source import TableSource
from porter.values.operations import KINDS, leaves_nothing

_FORMS = {
    "theirs": '"the stored tensor\'s name"',
    "ours": '"a canonical tensor", or a list of them',
    "layout": '"a layout"',
    **dict.fromkeys(KINDS, "a number, or an expression in quotes"),
    "when": '"a condition"',
    "tied": '"write" or "omit"',
    "also": "a list of stored names",
    "scale_by": '"the name of the stored factors"',
}

Raw = tuple[Mapping[str, Any], Where]


def read_rules(chain: list[TableSource], canonical: Canonical) -> tuple[Rule, ...]:
    """All rules of an expanded table, eldest first."""
    kept: dict[str, list[Raw]] = {}
    for source in chain:
        renaming = Renaming(source)
        if renaming.stems:
            kept = _renamed(kept, renaming, source)
        for text in texts_of(source, "remove"):
            _remove(kept, text, source, source.where("remove"))
        own = dict(_own_rules(kept, source))
        made = {name for raws in own.values() for raw, _ in raws if "when" not in raw for name in _makes(raw)}
        inherited = {
            name: raws
            for name, raws in kept.items()
            if name not in own and not all(_makes(raw) <= made for raw, _ in raws)
        }
        kept = inherited | own
    return tuple(_rule(raw, where, canonical) for raws in kept.values() for raw, where in raws)


def renamed_names(chain: list[TableSource], key: str) -> list[tuple[str, Where]]:
    """A list of names, such as `ignore`, gathered along the chain; `[names]` renames what is inherited."""
    names: list[tuple[str, Where]] = []
    for source in chain:
        rename = Renaming(source)
        names = [(rename(name), where) for name, where in names]
        names += [(name, source.where(key)) for name in texts_of(source, key)]
    return names


class Renaming:
    """The `[names]` of one table: stems of stored names, and what this table has in their place."""

    def __init__(self, source: TableSource) -> None:
        stems = source.data.get("names", {})
        where = source.where("names")
        if not isinstance(stems, dict) or not all(isinstance(new, str) for new in stems.values()):
            raise TableError(
                where, "`names` must be a table of stems", hint='"self_attn.o_proj" = "attn.proj"'
            )
        self.stems: Mapping[str, str] = stems
        longest = sorted(stems, key=len, reverse=True)
        self._pattern = re.compile(rf"(?<![^./])(?:{'|'.join(map(re.escape, longest))})(?![^./])")

    def __call__(self, name: str) -> str:
        return self._pattern.sub(lambda match: self.stems[match[0]], name) if self.stems else name


def _renamed(kept: dict[str, list[Raw]], rename: Renaming, source: TableSource) -> dict[str, list[Raw]]:
    for stem in rename.stems:
        if not any(_holds(name, stem) for name in kept):
            where = source.where("names", stem)
            raise TableError(
                where,
                f"no rule that is extended has the stem {stem!r} in its name",
                hint="a stem is one or more whole parts of a stored name",
            )
    found: dict[str, list[Raw]] = {}
    for raws in kept.values():
        for raw, where in raws:
            changed = dict(raw) | {key: rename(raw[key]) for key in ("theirs", "scale_by") if key in raw}
            if "also" in raw:
                changed["also"] = [rename(text) for text in raw["also"]]
            found.setdefault(changed["theirs"], []).append((changed, where))
    return found


def _holds(name: str, stem: str) -> bool:
    return re.search(rf"(?<![^./]){re.escape(stem)}(?![^./])", name) is not None


def _remove(kept: dict[str, list[Raw]], name: str, source: TableSource, where: Where) -> None:
    if kept.pop(name, None) is None:
        raise TableError(
            where,
            f"`remove` names no rule of the table that is extended: {name!r}",
            hint="it takes stored names, as `theirs` spells them",
        )


def _makes(raw: Mapping[str, Any]) -> set[str]:
    """The canonical tensors of a rule: what makes them otherwise takes its place."""
    ours = raw["ours"]
    return {ours} if isinstance(ours, str) else {*ours}


def _own_rules(kept: dict[str, list[Raw]], source: TableSource) -> Iterator[tuple[str, list[Raw]]]:
    seen: set[str] = set()
    for number, raw in enumerate(source.data.get("rule", [])):
        where = source.where("rule", number)
        _check_form(raw, where)
        name = raw["theirs"]
        if name in seen:
            raise TableError(
                where, f"two rules for the stored name {name!r}", hint="one rule names all its blocks"
            )
        seen.add(name)
        yield name, [(raw, where)]
    keyed = source.data.get("rules", {})
    if not isinstance(keyed, dict):
        raise TableError(source.where("rules"), "`rules` must be a table of stored names")
    for name, value in keyed.items():
        where = source.where("rules", name)
        if value is False:
            _remove(kept, name, source, where)
            continue
        if name in seen:
            raise TableError(where, f"two rules for the stored name {name!r}")
        choices = value if isinstance(value, list) else [value]
        raws: list[Raw] = [(_written_out(name, choice, where), where) for choice in choices]
        for raw, _ in raws:
            _check_form(raw, where)
        yield name, raws


def _written_out(name: str, choice: Any, where: Where) -> dict[str, Any]:
    if isinstance(choice, str):
        return {"theirs": name, "ours": choice}
    if not isinstance(choice, dict) or "theirs" in choice:
        raise TableError(
            where,
            f"the rule for {name!r} must be a canonical tensor or a table",
            cause=f"found {choice!r}",
            hint='"{layer}.attn.q", or { ours = …, layout = … }',
        )
    return {"theirs": name, **choice}


def _check_form(raw: Any, where: Where) -> None:
    """Every key of a rule known, and those there that it needs."""
    require_known_keys(raw, _FORMS, where)
    for key in ("theirs", "ours"):
        if key not in raw:
            raise TableError(where, f"the rule has no `{key}`", hint=f"{key} = {_FORMS[key]}")
    for key in KINDS:
        if key in raw and leaves_nothing(key, raw[key]):
            raise TableError(
                where, f"`{key} = {raw[key]}` leaves nothing of a weight", hint="it has no inverse"
            )


def _rule(raw: Mapping[str, Any], where: Where, canonical: Canonical) -> Rule:
    ours = (raw["ours"],) if isinstance(raw["ours"], str) else tuple(raw["ours"])
    tied = raw.get("tied", "write")
    if tied not in ("write", "omit"):
        raise TableError(
            where,
            f'`tied` must be "write" or "omit", not {tied!r}',
            hint="it says what the framework does with a tensor that equals another",
        )
    return Rule(
        theirs=pattern_at(raw["theirs"], where),
        ours=ours,
        layout=_layout(raw, ours, where, canonical),
        operations=tuple((kind, _operand(raw[kind], where)) for kind in KINDS if kind in raw),
        when=expression_at(raw["when"], where) if "when" in raw else None,
        when_tied=tied,
        where=where,
        also=tuple(pattern_at(text, where) for text in raw.get("also", ())),
        scale_by=pattern_at(raw["scale_by"], where) if "scale_by" in raw else None,
    )


def _operand(value: Any, where: Where) -> float | Expression:
    return expression_at(value, where) if isinstance(value, str) else float(value)


def _layout(raw: Mapping[str, Any], ours: tuple[str, ...], where: Where, canonical: Canonical) -> Layout:
    if "layout" in raw:
        try:
            return parse_layout(raw["layout"])
        except PorterError as error:
            raise TableError(where, error.message, cause=error.cause, hint=error.hint) from None
    # A rule without a layout stores one canonical tensor in the order of its axes.
    if len(ours) != 1 or ours[0] not in canonical.tensors:
        raise TableError(
            where,
            "the rule has no `layout`",
            hint="only a rule for one known canonical tensor may leave it out",
        )
    return parse_layout(" ".join(canonical.tensors[ours[0]].axes))
