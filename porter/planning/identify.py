"""What a checkpoint is: its family and dialect, from its config and from what its tensors show.

A directory's name decides nothing. Every table whose config is there and matches is a candidate; the one
whose rules know the most of the tensors is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from porter.config.raw import get, raw_config
from porter.config.read import ConfigReader
from porter.containers.checkpoint import Checkpoint
from porter.errors import MalformedError, UnsupportedError
from porter.tables.find import Family
from porter.tables.model import Dialect, Rule
from porter.tables.patterns import Pattern, template_of


@dataclass(frozen=True)
class Identity:
    """A checkpoint's family and dialect, its hyperparameters, and its tensors under the table's names."""

    family: Family
    dialect: Dialect
    hyperparameters: Mapping[str, Any]
    raw: Mapping[str, Any]
    names: Mapping[str, str]
    unknown_fields: tuple[str, ...]


class NameMatcher:
    """Finds the rule that a stored name fits, trying the dialect's alternative prefixes last."""

    def __init__(self, dialect: Dialect) -> None:
        self._rules: dict[str, list[Rule]] = {}
        for rule in dialect.rules:
            for form in rule.theirs.spellings:
                self._rules.setdefault(form.template, []).append(rule)
        self._prefixes = dialect.prefixes
        self._ignored: dict[str, list[Pattern]] = {}
        for pattern in dialect.ignore:
            for form in pattern.spellings:
                self._ignored.setdefault(form.template, []).append(pattern)

    def spelled(self, name: str) -> str | None:
        """The name as the table spells it, or None if no rule fits."""
        if self._fits(name):
            return name
        for ours, theirs in self._prefixes:
            if name.startswith(theirs):
                candidate = ours + name[len(theirs) :]
                if self._fits(candidate):
                    return candidate
        return None

    def ignored(self, name: str) -> bool:
        """Whether the dialect stores this tensor but it is no weight (a buffer, say)."""
        patterns = self._ignored.get(template_of(name), ())
        return any(pattern.match(name) is not None for pattern in patterns)

    def _fits(self, name: str) -> bool:
        return any(rule.theirs.match(name) is not None for rule in self._rules.get(template_of(name), ()))


def identify(
    checkpoint: Checkpoint,
    families: Mapping[str, Family],
    *,
    config: Path | None = None,
    dialect: str | None = None,
) -> Identity:
    """Family, dialect and hyperparameters of a checkpoint. Raises UnsupportedError if no table fits.

    `config` is used in place of the checkpoint's own config file; `dialect` limits the search.
    """
    best: tuple[int, Family, Dialect, Mapping[str, Any], dict[str, str]] | None = None
    rivals: list[str] = []
    for family, candidate, raw in _candidates(checkpoint, families, config):
        if dialect is not None and candidate.name != dialect:
            continue
        names = _known_names(checkpoint, candidate)
        if best is None or len(names) > best[0]:
            best = (len(names), family, candidate, raw, names)
            rivals = []
        elif len(names) == best[0]:
            rivals.append(f"{family.name}/{candidate.name}")
    if best is None:
        raise _unknown(checkpoint, families, config)
    score, family, chosen, raw, names = best
    if score == 0:
        raise UnsupportedError(
            f"the tensors of {checkpoint.label} are not those of {family.name} in any dialect",
            cause=f"the config says {family.name}; found tensors such as {_some(checkpoint.tensors)}",
            hint="see `porter mappings ls`; add a table of your own with --map FILE.toml",
        )
    if rivals:
        raise UnsupportedError(
            f"{checkpoint.label} fits {family.name}/{chosen.name} and {', '.join(rivals)} alike",
            hint="say which one it is with --from DIALECT",
        )
    reader = ConfigReader(chosen, family.canonical, raw, _shapes(checkpoint, names), checkpoint.label)
    return Identity(family, chosen, reader.read(), raw, names, tuple(reader.unknown_fields()))


def _shapes(checkpoint: Checkpoint, names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    return {names.get(name, name): tensor.shape for name, tensor in checkpoint.tensors.items()}


def _candidates(
    checkpoint: Checkpoint, families: Mapping[str, Family], config: Path | None
) -> Iterable[tuple[Family, Dialect, Mapping[str, Any]]]:
    raws: dict[str, dict[str, Any] | None] = {}
    for family in families.values():
        for dialect in family.dialects.values():
            file = dialect.config.file
            if file is None or checkpoint.container not in dialect.files.readable:
                continue
            if file not in raws:
                override = config if config is not None and config.suffix == Path(file).suffix else None
                raws[file] = raw_config(checkpoint, file, override)
            raw = raws[file]
            if raw is not None and matches(raw, dialect.config.match):
                yield family, dialect, raw


def matches(raw: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a raw config is one of this family: each field is among the values given for it.

    A field that is left out counts as false; `{ contains = "…" }` asks for a part of a string.
    """
    for path, allowed in wanted.items():
        value = get(raw, path)[1]
        if isinstance(allowed, Mapping):
            if allowed["contains"] not in str(value or ""):
                return False
        elif (value if value is not None else False) not in allowed:
            return False
    return True


def _known_names(checkpoint: Checkpoint, dialect: Dialect) -> dict[str, str]:
    matcher = NameMatcher(dialect)
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in checkpoint.tensors:
        spelled = matcher.spelled(name)
        if spelled is None:
            continue
        if spelled in taken:
            raise MalformedError(
                f"two tensors of {checkpoint.label} are sources for one target",
                cause=f"{taken[spelled]!r} and {name!r} both stand for {spelled!r}",
            )
        taken[spelled] = name
        names[name] = spelled
    return names


def _unknown(checkpoint: Checkpoint, families: Mapping[str, Family], config: Path | None) -> UnsupportedError:
    known = ", ".join(sorted(families))
    for file in ("config.json", "model_config.yaml", "(metadata)"):
        override = config if config is not None and config.suffix == Path(file).suffix else None
        raw = raw_config(checkpoint, file, override)
        if raw:
            said = next(
                (
                    f"{key} = {raw[key]!r}"
                    for key in ("model_type", "general.architecture", "class_name", "name")
                    if key in raw
                ),
                "no model_type",
            )
            return UnsupportedError(
                f"no mapping table fits {checkpoint.label}",
                cause=f"{file} says {said}; porter has tables for {known}",
                hint="add a table of your own with --map FILE.toml",
            )
    return UnsupportedError(
        f"{checkpoint.label} has no config beside its weights",
        cause="the tensors alone cannot separate the number of heads from head_dim",
        hint="put its config.json or model_config.yaml there, or name it with --config FILE",
    )


def _some(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for _, name in zip(range(3), names, strict=False))
