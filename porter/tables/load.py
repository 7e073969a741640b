"""From TOML to a table: sections merged with what they extend, every key known, every part parsed.

A child's entry takes the place of its parent's entry of the same name (`theirs` for rules); `false`
removes a canonical tensor, `remove = [...]` removes rules. Unknown keys are errors. The expanded table
is what is checked, by `porter.tables.check`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from porter.tables.check import check_canonical, check_dialect, may_hold
from porter.tables.config_entries import load_config
from porter.tables.model import (
    Canonical,
    CanonicalTensor,
    Dialect,
    Files,
    Hyperparameter,
    TableError,
    Where,
)
from porter.tables.rules import read_rules, renamed_names
from porter.tables.table_parts import (
    expression_at,
    merge,
    pattern_at,
    require_known_keys,
    text_of,
    texts_of,
)
from porter.tables.toml_source import SHORT, TableSource, read_with_ancestors

_CANONICAL_KEYS = {
    "extends",
    "family",
    "version",
    "index",
    "axes",
    "refine",
    "tensors",
    "hyperparameters",
    "normal",
    "example",
}
_DIALECT_KEYS = {
    "extends",
    "family",
    "dialect",
    "title",
    "models",
    "remove",
    "ignore",
    "prefixes",
    "rule",
    "rules",
    "names",
    "config",
    "files",
    "targets",
    "beyond",
    "passed_over",
    "axes",
    "shared",
    "after",
    *SHORT,
    "no_dialect",
    "example",
}
_TENSOR_KEYS = {"axes", "when", "tied"}
_HYPERPARAMETER_KEYS = {"note", "type", "neutral", "optional", "advisory", "when", "idle"}
_TYPES = {"int", "number", "bool", "str", "list", "any"}


def load_canonical(path: Path, roots: Path | Sequence[Path]) -> Canonical:
    """Load and check a family's canonical table."""
    chain = read_with_ancestors(path, roots)
    for source in chain:
        _only(source, _CANONICAL_KEYS)
    own = chain[-1]
    axes, inverses = {}, {}
    for name, (value, where) in merge(chain, "axes").items():
        spec = {"size": value} if not isinstance(value, dict) else value
        require_known_keys(spec, {"size", "inverse"}, where)
        if "size" not in spec:
            raise TableError(where, f"{name} needs a `size`", hint=f'{name} = "<expression>"')
        axes[name] = expression_at(str(spec["size"]), where)
        for whole, text in spec.get("inverse", {}).items():
            inverses[whole] = expression_at(str(text), where)
    index = {name: expression_at(str(value), where) for name, (value, where) in merge(chain, "index").items()}
    refine = {
        name: tuple(str(value).split())
        for name, (value, _) in merge(chain, "refine").items()
        if value is not False
    }
    tensors = {
        name: _canonical_tensor(name, value, where)
        for name, (value, where) in merge(chain, "tensors").items()
        if value is not False
    }
    canonical = Canonical(
        family=text_of(own, "family", path.parent.name),
        version=_version(own),
        index=index,
        axes=axes,
        inverses=inverses,
        refine=refine,
        tensors=tensors,
        hyperparameters={
            name: _hyperparameter(name, value, where)
            for name, (value, where) in merge(chain, "hyperparameters").items()
        },
        normal={
            name: expression_at(str(value), where) for name, (value, where) in merge(chain, "normal").items()
        },
        example=_example(chain),
        path=path,
    )
    check_canonical(canonical)
    return canonical


def load_dialect(
    path: Path,
    roots: Path | Sequence[Path],
    canonical: Canonical,
    known: Mapping[str, Any] | None = None,
) -> Dialect:
    """Load a dialect's table and check it against the canonical table of its family.

    `known` are hyperparameters that all models of the family share, which a shared base leaves open.
    """
    chain = read_with_ancestors(path, roots)
    for source in chain:
        _only(source, _DIALECT_KEYS)
    own = chain[-1]
    if "family" in own.data and text_of(own, "family") != canonical.family:
        raise TableError(
            own.where("family"),
            f"the table is for {text_of(own, 'family')!r}, not for {canonical.family!r}",
            hint="`family` says whose canonical tensors `ours` names",
        )
    dialect = Dialect(
        family=canonical.family,
        name=(name := text_of(own, "dialect", path.stem)),
        title=next((str(s.data["title"]) for s in chain[::-1] if "title" in s.data), name),
        models=text_of(own, "models", ""),
        rules=read_rules(chain, canonical),
        ignore=tuple(pattern_at(text, where) for text, where in renamed_names(chain, "ignore")),
        prefixes=tuple(
            (ours, theirs)
            for ours, (value, _) in merge(chain, "prefixes").items()
            for theirs in ([value] if isinstance(value, str) else value)
        ),
        config=load_config(chain),
        files=files_of(chain),
        targets={
            key: str(value) for key, (value, _) in merge(chain, "targets").items() if value is not False
        },
        path=path,
        digest=hashlib.sha256("".join(source.text for source in chain).encode()).hexdigest(),
        passed_over=tuple(texts_of(own, "passed_over")),
        beyond=tuple(text for source in chain for text in texts_of(source, "beyond")),
        shared=bool(own.data.get("shared", False)),
        after=tuple(texts_of(own, "after")),
        no_dialect=_reasons(chain),
        known=known or {},
        example=_example(chain),
        axes={name: expression_at(str(size), where) for name, (size, where) in merge(chain, "axes").items()},
    )
    check_dialect(dialect, canonical)
    # A base has rules for what its cousins have; those that never hold here would only be in the way.
    held = tuple(
        rule
        for rule in dialect.rules
        if (not dialect.known or may_hold(rule.when, dialect, canonical))
        and all(may_hold(canonical.tensors[name].when, dialect, canonical) for name in rule.weights)
    )
    return replace(dialect, rules=held)


def files_of(chain: list[TableSource]) -> Files:
    """What a directory of a dialect is made of, from its table and ancestors."""
    files = {key: value for key, (value, _) in merge(chain, "files").items()}
    require_known_keys(files, set(Files.__dataclass_fields__), chain[-1].where("files"))
    return Files(**files)


def _canonical_tensor(name: str, value: Any, where: Where) -> CanonicalTensor:
    spec = {"axes": value} if isinstance(value, str) else value
    if not isinstance(spec, dict) or "axes" not in spec:
        raise TableError(where, f"the canonical tensor {name!r} needs `axes`")
    require_known_keys(spec, _TENSOR_KEYS, where)
    pattern_at(name, where)
    axes = str(spec["axes"]).split()
    if len(set(axes)) != len(axes):
        raise TableError(where, f"the canonical tensor {name!r} names an axis twice")
    when = expression_at(spec["when"], where) if "when" in spec else None
    return CanonicalTensor(name, tuple(axes), when, spec.get("tied"), where)


def _hyperparameter(name: str, value: Any, where: Where) -> Hyperparameter:
    spec = {"type": value} if isinstance(value, str) else value
    require_known_keys(spec, _HYPERPARAMETER_KEYS, where)
    if spec.get("type") not in _TYPES:
        raise TableError(where, f"{name}: `type` must be one of {', '.join(sorted(_TYPES))}")
    advisory = bool(spec.get("advisory", False))
    required = not (advisory or spec.get("optional", False) or "neutral" in spec)
    when = expression_at(spec["when"], where) if "when" in spec else None
    idle = bool(spec.get("idle", False))
    if idle and (spec["type"], spec.get("neutral")) != ("bool", False):
        raise TableError(where, f"{name}: what is `idle` is a bool, and neutral where it is false")
    return Hyperparameter(
        name, spec["type"], required, spec.get("neutral"), advisory, where, spec.get("note"), when, idle
    )


def _example(chain: list[TableSource]) -> dict[str, Any]:
    """TOML has no null: an inherited value is taken back by `{ absent = true }`."""
    return {
        name: None if value == {"absent": True} else value
        for name, (value, _) in merge(chain, "example").items()
    }


def _reasons(chain: list[TableSource]) -> dict[str, str]:
    """`[no_dialect]`: frameworks and why the family is in none of their dialects; `false` takes one back."""
    reasons: dict[str, str] = {}
    for name, (value, where) in merge(chain, "no_dialect").items():
        if value is False:
            continue
        if not isinstance(value, str) or not value.strip():
            raise TableError(where, f"{name}: the reason must be a text", hint=f'{name} = "<why not>"')
        reasons[name] = value
    return reasons


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
