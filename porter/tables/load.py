"""From TOML to a table: sections merged with what they extend, every key known, every part parsed.

A child's entry takes the place of its parent's entry of the same name (`theirs` for rules); `false`
removes a canonical tensor, `remove = [...]` removes rules. Unknown keys are errors. The expanded table
is what is checked, by `porter.tables.check`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from porter.errors import PorterError
from porter.layout import Expression, parse_expression, parse_layout
from porter.tables.check import check_canonical, check_dialect
from porter.tables.config_entries import load_config
from porter.tables.model import (
    Canonical,
    CanonicalTensor,
    Dialect,
    Files,
    Hyperparameter,
    Rule,
    TableError,
    Where,
)
from porter.tables.patterns import Pattern, parse_pattern
from porter.tables.toml_source import TableSource, read_with_ancestors

_CANONICAL_KEYS = {
    "extends",
    "family",
    "version",
    "index",
    "axes",
    "refine",
    "tensors",
    "hyperparameters",
    "example",
}
_DIALECT_KEYS = {
    "extends",
    "family",
    "dialect",
    "title",
    "remove",
    "ignore",
    "prefixes",
    "rule",
    "config",
    "files",
    "targets",
    "beyond",
    "axes",
}
_RULE_KEYS = {
    *("theirs", "ours", "layout", "add", "multiply", "when", "tied"),
    *("also", "scale_by"),
}
_RULE_FORMS = {
    "theirs": '"the stored tensor\'s name"',
    "ours": '"a canonical tensor", or a list of them',
    "layout": '"a layout"',
    "add": "a number",
    "multiply": "a number",
    "when": '"a condition"',
    "tied": '"write" or "omit"',
    "also": "a list of stored names",
    "scale_by": '"the name of the stored factors"',
}
_TENSOR_KEYS = {"axes", "when", "tied"}
_HYPERPARAMETER_KEYS = {"note", "type", "neutral", "optional", "advisory"}
_TYPES = {"int", "number", "bool", "str", "list", "any"}

Merged = dict[str, tuple[Any, Where]]


def load_canonical(path: Path, root: Path) -> Canonical:
    """Load and check a family's canonical table."""
    chain = read_with_ancestors(path, root)
    for source in chain:
        _only(source, _CANONICAL_KEYS)
    own = chain[-1]
    axes, inverses = {}, {}
    for name, (value, where) in _merge(chain, "axes").items():
        spec = {"size": value} if not isinstance(value, dict) else value
        _known(spec, {"size", "inverse"}, where)
        if "size" not in spec:
            raise TableError(where, f"{name} needs a `size`", hint=f'{name} = "<expression>"')
        axes[name] = _expression(str(spec["size"]), where)
        for whole, text in spec.get("inverse", {}).items():
            inverses[whole] = _expression(str(text), where)
    index = {name: _expression(str(value), where) for name, (value, where) in _merge(chain, "index").items()}
    refine = {
        name: tuple(str(value).split())
        for name, (value, _) in _merge(chain, "refine").items()
        if value is not False
    }
    tensors = {
        name: _canonical_tensor(name, value, where, refine)
        for name, (value, where) in _merge(chain, "tensors").items()
        if value is not False
    }
    canonical = Canonical(
        family=_text(own, "family"),
        version=_version(own),
        index=index,
        axes=axes,
        inverses=inverses,
        refine=refine,
        tensors=tensors,
        hyperparameters={
            name: _hyperparameter(name, value, where)
            for name, (value, where) in _merge(chain, "hyperparameters").items()
        },
        # TOML has no null: an inherited value is taken back by `{ absent = true }`.
        example={
            name: value for name, (value, _) in _merge(chain, "example").items() if value != {"absent": True}
        },
        path=path,
    )
    check_canonical(canonical)
    return canonical


def load_dialect(path: Path, root: Path, canonical: Canonical) -> Dialect:
    """Load a dialect's table and check it against the canonical table of its family."""
    chain = read_with_ancestors(path, root)
    for source in chain:
        _only(source, _DIALECT_KEYS)
    own = chain[-1]
    stated = next((source for source in chain[::-1] if "family" in source.data), own)
    family = _text(stated, "family")
    if family != canonical.family:
        raise TableError(
            stated.where("family"),
            f"the table is for {family!r}, not for {canonical.family!r}",
            hint="`family` says whose canonical tensors `ours` names",
        )
    files = {key: value for key, (value, _) in _merge(chain, "files").items()}
    _known(files, set(Files.__dataclass_fields__), own.where("files"))
    dialect = Dialect(
        family=canonical.family,
        name=_text(own, "dialect"),
        title=next((str(s.data["title"]) for s in chain[::-1] if "title" in s.data), _text(own, "dialect")),
        rules=_rules(chain, canonical),
        ignore=tuple(
            _pattern(text, source.where("ignore")) for source in chain for text in _texts(source, "ignore")
        ),
        prefixes=tuple(
            (ours, theirs)
            for ours, (value, _) in _merge(chain, "prefixes").items()
            for theirs in ([value] if isinstance(value, str) else value)
        ),
        config=load_config(chain),
        files=Files(**files),
        targets={
            key: str(value) for key, (value, _) in _merge(chain, "targets").items() if value is not False
        },
        path=path,
        digest=hashlib.sha256("".join(source.text for source in chain).encode()).hexdigest(),
        beyond=tuple(text for source in chain for text in _texts(source, "beyond")),
        axes={name: _expression(str(size), where) for name, (size, where) in _merge(chain, "axes").items()},
    )
    check_dialect(dialect, canonical)
    return dialect


def _rules(chain: list[TableSource], canonical: Canonical) -> tuple[Rule, ...]:
    kept: dict[str, tuple[Mapping[str, Any], Where]] = {}
    for source in chain:
        for text in _texts(source, "remove"):
            if kept.pop(text, None) is None:
                raise TableError(
                    source.where("remove"),
                    f"`remove` names no rule of the table that is extended: {text!r}",
                    hint="it takes stored names, as `theirs` spells them",
                )
        own: set[str] = set()
        for number, raw in enumerate(source.data.get("rule", [])):
            where = source.where("rule", number)
            _check_form(raw, where)
            theirs = raw["theirs"]
            if theirs in own:
                raise TableError(
                    where, f"two rules for the stored name {theirs!r}", hint="one rule names all its blocks"
                )
            own.add(theirs)
            kept.pop(theirs, None)
            kept[theirs] = (raw, where)
    return tuple(_rule(raw, where, canonical) for raw, where in kept.values())


def _check_form(raw: Any, where: Where) -> None:
    """Every key of a rule known, and each of the right type."""
    if not isinstance(raw, dict):
        raise TableError(where, "a rule must be a table", hint="write [[rule]] above it")
    _known(raw, _RULE_KEYS, where)
    for key in ("theirs", "ours"):
        if key not in raw:
            raise TableError(where, f"the rule has no `{key}`", hint=f"{key} = {_RULE_FORMS[key]}")
    for key, value in raw.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
        fits = number if key in ("add", "multiply") else isinstance(value, str) or (key == "ours" and texts)
        if key == "also":
            fits = texts
        if not fits:
            raise TableError(where, f"`{key}` must be {_RULE_FORMS[key]}", cause=f"found {value!r}")
        if key == "multiply" and value == 0:
            raise TableError(
                where, "`multiply = 0` leaves nothing of a weight", hint="what is it multiplied by?"
            )


def _rule(raw: Mapping[str, Any], where: Where, canonical: Canonical) -> Rule:
    ours = (raw["ours"],) if isinstance(raw["ours"], str) else tuple(raw["ours"])
    if "layout" in raw:
        try:
            layout = parse_layout(raw["layout"]).refined(canonical.refine)
        except PorterError as error:
            raise TableError(where, error.message, cause=error.cause, hint=error.hint) from None
    else:
        layout = _same_layout(ours, canonical, where)
    tied = raw.get("tied", "write")
    if tied not in ("write", "omit"):
        raise TableError(
            where,
            f'`tied` must be "write" or "omit", not {tied!r}',
            hint="it says what the framework does with a tensor that equals another",
        )
    return Rule(
        theirs=_pattern(raw["theirs"], where),
        ours=ours,
        layout=layout,
        operations=tuple((kind, float(raw[kind])) for kind in ("add", "multiply") if kind in raw),
        when=_expression(raw["when"], where) if "when" in raw else None,
        when_tied=tied,
        where=where,
        also=tuple(_pattern(text, where) for text in raw.get("also", ())),
        scale_by=_pattern(raw["scale_by"], where) if "scale_by" in raw else None,
    )


def _same_layout(ours: tuple[str, ...], canonical: Canonical, where: Where) -> Any:
    """A rule without a layout stores one canonical tensor in the order of its axes.

    Finer axes that an axis is refined into stand for it as one dim, as they do in a layout that names it.
    """
    if len(ours) != 1 or ours[0] not in canonical.tensors:
        raise TableError(
            where,
            "the rule has no `layout`",
            hint="only a rule for one known canonical tensor may leave it out",
        )
    coarse = parse_layout(" ".join(canonical.tensors[ours[0]].stated or canonical.tensors[ours[0]].axes))
    return coarse.refined(canonical.refine)


def _canonical_tensor(
    name: str, value: Any, where: Where, refine: Mapping[str, tuple[str, ...]]
) -> CanonicalTensor:
    spec = {"axes": value} if isinstance(value, str) else value
    if not isinstance(spec, dict) or "axes" not in spec:
        raise TableError(where, f"the canonical tensor {name!r} needs `axes`")
    _known(spec, _TENSOR_KEYS, where)
    _pattern(name, where)
    axes: list[str] = []
    for axis in str(spec["axes"]).split():
        axes.extend(refine.get(axis, (axis,)))
    if len(set(axes)) != len(axes):
        raise TableError(where, f"the canonical tensor {name!r} names an axis twice")
    when = _expression(spec["when"], where) if "when" in spec else None
    return CanonicalTensor(name, tuple(axes), when, spec.get("tied"), where, tuple(str(spec["axes"]).split()))


def _hyperparameter(name: str, value: Any, where: Where) -> Hyperparameter:
    spec = {"type": value} if isinstance(value, str) else value
    _known(spec, _HYPERPARAMETER_KEYS, where)
    if spec.get("type") not in _TYPES:
        raise TableError(where, f"{name}: `type` must be one of {', '.join(sorted(_TYPES))}")
    advisory = bool(spec.get("advisory", False))
    required = not (advisory or spec.get("optional", False) or "neutral" in spec)
    return Hyperparameter(
        name, spec["type"], required, spec.get("neutral"), advisory, where, spec.get("note")
    )


def _merge(chain: list[TableSource], section: str) -> Merged:
    merged: Merged = {}
    for source in chain:
        part = source.data.get(section, {})
        if not isinstance(part, dict):
            raise TableError(source.where(section), f"`{section}` must be a table")
        for key, value in part.items():
            merged.pop(key, None)
            merged[key] = (value, source.where(*section.split("."), key))
    return merged


def _text(source: TableSource, key: str) -> str:
    value = source.data.get(key)
    if not isinstance(value, str):
        raise TableError(source.where(key), f"the table needs a `{key}`", hint=f'write {key} = "<name>"')
    return value


def _texts(source: TableSource, key: str) -> list[str]:
    value = source.data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TableError(source.where(key), f"`{key}` must be a list of names", cause=f"found {value!r}")
    return value


def _version(source: TableSource) -> int:
    value = source.data.get("version", 1)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TableError(
            source.where("version"), "`version` must be a whole number", cause=f"found {value!r}"
        )
    return value


def _only(source: TableSource, keys: set[str]) -> None:
    for key in source.data:
        if key not in keys:
            raise TableError(
                source.where(key), f"unknown key `{key}`", hint=f"known: {', '.join(sorted(keys))}"
            )


def _known(spec: Mapping[str, Any], keys: set[str], where: Where) -> None:
    for key in spec:
        if key not in keys:
            raise TableError(where, f"unknown key `{key}`", hint=f"known: {', '.join(sorted(keys))}")


def _expression(text: str, where: Where) -> Expression:
    try:
        return parse_expression(text)
    except PorterError as error:
        raise TableError(where, error.message, cause=error.cause, hint=error.hint) from None


def _pattern(text: str, where: Where) -> Pattern:
    try:
        return parse_pattern(text)
    except PorterError as error:
        raise TableError(where, error.message, cause=error.cause, hint=error.hint) from None
