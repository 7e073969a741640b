"""What a checkpoint is: its family and dialect, from its config and from what its tensors show.

A directory's name decides nothing. Every table whose config is there and matches is a candidate; the one
whose rules know the most of the tensors is taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from porter.config.raw import get, override_of, raw_config
from porter.config.read import ConfigReader, Shapes
from porter.containers.checkpoint import Checkpoint
from porter.containers.small_tensors import small_values
from porter.containers.storage_kinds import lone_adapter, quantised_as
from porter.errors import UnsupportedError, UsageError
from porter.recognition.choose_family import choose_family
from porter.recognition.infer import infer, missing_rules
from porter.recognition.no_table import no_table_fits
from porter.recognition.stored_names import NameMatcher, first_names, known_names
from porter.tables.catalogue import DECODER, Families, Family
from porter.tables.model import Dialect
from porter.tables.sketches import Sketch
from porter.wording import option


@dataclass(frozen=True)
class Identity:
    """A checkpoint's family and dialect, its hyperparameters, and its tensors under the table's names.

    `words` is the dialect that its config was in, where that is another one. `idle` are stored names, as the
    table spells them, that are left aside since nothing computes with them.
    """

    family: Family
    dialect: Dialect
    hyperparameters: Mapping[str, Any]
    raw: Mapping[str, Any]
    names: Mapping[str, str]
    unknown_fields: tuple[str, ...]
    notes: tuple[str, ...] = ()
    words: Dialect | None = None
    wrapper: str = ""
    idle: frozenset[str] = frozenset()

    def keeps_words(self, target: Dialect) -> bool:
        """Whether fields that the table does not speak of stay: where `target` is the same dialect."""
        return target.name == self.dialect.name and self.words is None

    def stated_nulls(self, target: Dialect) -> dict[str, None]:
        """Advisory fields that a section of a config states as null, for a target of the same words.

        There null says that there is none, where leaving the field out says what the framework's class does.
        """
        if self.dialect.config.section is None or self.dialect.config.file != target.config.file:
            return {}
        inner = config_section(self.raw, self.dialect)
        entries = [
            target.config.fields[name]
            for name, item in self.family.canonical.hyperparameters.items()
            if item.advisory and name in target.config.fields
        ]
        return {
            entry.write_to: None
            for entry in entries
            if entry.write_to is not None and get(inner, entry.write_to) == (True, None)
        }


def identify(
    checkpoint: Checkpoint,
    families: Families,
    *,
    config: Path | None = None,
    dialect: str | None = None,
    family: str | None = None,
) -> Identity:
    """Family, dialect and hyperparameters of a checkpoint. Raises UnsupportedError if no table fits.

    `config` is used in place of the checkpoint's own config file; `dialect` and `family` limit the search,
    and a family that was named need not be the one that the config names.
    """
    if family is not None:
        families.named(family)
    meant = families if family is None else families.only(family)
    if adapter := lone_adapter(checkpoint.tensors):
        raise UnsupportedError(
            f"{checkpoint.label} is no whole model: its tensors are {adapter.what}",
            cause=f"found only tensors such as {first_names(checkpoint.tensors)}",
            hint=adapter.hint,
        )
    best: tuple[tuple[int, bool, int], _Candidate, dict[str, str]] | None = None
    rivals: list[str] = []
    for candidate in _candidates(checkpoint, meant, config, named=family is not None):
        if dialect is not None and candidate.dialect.name != dialect:
            continue
        wrapper, names = known_names(checkpoint, candidate.dialect)
        candidate = replace(candidate, wrapper=wrapper)
        if not _recognised(checkpoint, candidate, names):
            continue
        missing = 0
        if candidate.bare:
            shapes = _shapes(checkpoint, names)
            found_out = infer(candidate.dialect, candidate.family.canonical, shapes)
            if found_out.unknown:
                continue
            candidate = replace(candidate, inferred=found_out.hyperparameters)
            missing = missing_rules(candidate.dialect, candidate.family.canonical, shapes)
        elif best is not None and len(names) == best[0][0]:
            # Only where names do not decide: it walks all of them.
            missing = _lacking(checkpoint, candidate, names)
            if best[0][2] == 0:
                best = ((*best[0][:2], -_lacking(checkpoint, best[1], best[2])), *best[1:])
        # Weights beside a config of their own dialect are rather that than another's; and names that two
        # families know are of the one that expects no more.
        score = (len(names), candidate.words is candidate.dialect, -missing)
        if best is None or score > best[0]:
            best = (score, candidate, names)
            rivals = []
        elif score == best[0]:
            rivals.append(f"{candidate.family.name}/{candidate.dialect.name}")
    if best is None:
        if dialect is not None:
            with contextlib.suppress(UnsupportedError):
                own = identify(checkpoint, families, config=config, family=family)
                raise UsageError(
                    f"{checkpoint.label} is not in the dialect {dialect}",
                    cause=f"its tensors are those of {own.family.name}/{own.dialect.name}",
                    hint=f"leave out {option('from')}, or say {option('from', own.dialect.name)}",
                )
        raise no_table_fits(checkpoint, families, config)
    (known, _, _), found, names = best
    chosen = found.dialect
    if known == 0:
        raise UnsupportedError(
            f"the tensors of {checkpoint.label} are not those of {found.family.name} in any dialect",
            cause=f"the config says {found.family.name}; "
            f"found tensors such as {first_names(checkpoint.tensors)}",
            hint=f"see `porter mappings ls`; add a table of your own with {option('map', 'FILE.toml')}",
        )
    if rivals:
        raise UnsupportedError(
            f"{checkpoint.label} fits {found.family.name}/{chosen.name} and {', '.join(rivals)} alike",
            hint=f"say which one it is with {option('from', 'DIALECT')} or {option('family', 'NAME')}",
        )
    identity = _read(checkpoint, found, names)
    if family is None and found.family.name == DECODER:
        return replace(identity, family=choose_family(families, chosen, identity.hyperparameters))
    return identity


def _lacking(checkpoint: Checkpoint, candidate: _Candidate, names: Mapping[str, str]) -> int:
    """How many rules no tensor fits; one more where the table does not cover what the config says."""
    shapes = _shapes(checkpoint, names)
    lacking = missing_rules(candidate.dialect, candidate.family.canonical, shapes)
    reader = candidate.reader(candidate.words, candidate.raw, shapes, checkpoint.label)
    return lacking + bool(reader.not_covered())


@dataclass(frozen=True)
class _Candidate:
    """A dialect that the checkpoint may be in. `words` is the dialect whose words its config is in.

    `inferred` are the hyperparameters that shapes say, where there is no config.
    """

    family: Family
    dialect: Dialect
    words: Dialect
    raw: Mapping[str, Any]
    inferred: Mapping[str, Any] | None = None
    wrapper: str = ""
    file: str | None = None

    @property
    def bare(self) -> bool:
        """Whether shapes alone have to say all; some dialects' tables read what they need out of them."""
        return not self.raw and self.words is self.dialect and self.dialect.config.recognise is None

    def reader(self, words: Dialect, raw: Mapping[str, Any], shapes: Shapes, label: str) -> ConfigReader:
        return ConfigReader(
            words,
            self.family.canonical,
            config_section(raw, words),
            shapes,
            label,
            self.inferred if words is self.dialect else None,
            self.file,
        )


def config_section(raw: Mapping[str, Any], words: Dialect) -> Mapping[str, Any]:
    """The section of a config that the table reads, with those outer fields that stand before its own."""
    if words.config.section is None:
        return raw
    found = get(raw, words.config.section)[1]
    inner = dict(found) if isinstance(found, Mapping) else {}
    for name, left_out in words.config.outer.items():
        if raw.get(name) is not None:
            inner[name] = raw[name]
        elif left_out == "ignore":
            inner.pop(name, None)
            if name in raw:
                inner[name] = None
    return inner


def _recognised(checkpoint: Checkpoint, candidate: _Candidate, names: Mapping[str, str]) -> bool:
    """What a dialect asks of the tensors themselves, where it does."""
    condition = candidate.dialect.config.recognise
    if condition is None:
        return True
    raw = candidate.raw if candidate.words is candidate.dialect else {}
    reader = candidate.reader(candidate.dialect, raw, _shapes(checkpoint, names), checkpoint.label)
    return reader.holds(condition)


def _read(checkpoint: Checkpoint, found: _Candidate, names: Mapping[str, str]) -> Identity:
    shapes = _shapes(checkpoint, names)
    found, leftover = _without_quantization(checkpoint, found, names)
    reader = found.reader(found.words, found.raw, shapes, checkpoint.label)

    def values_of(name: str) -> Any:
        stored = next((theirs for theirs, ours in names.items() if ours == name), name)
        return small_values(checkpoint, stored)

    reader.values = values_of
    values = reader.read()
    read = tuple(note for header in checkpoint.headers for note in header.notes)
    passed = ", ".join(reader.passed_over)
    title = found.words.title
    notes: tuple[str, ...] = (
        *leftover,
        *([f"{found.file}: {passed}: passed over, as {title} does"] if passed else []),
        *_of_another(found),
    )
    if found.words is not found.dialect:
        # What only the tensors say, such as how many rows are padding.
        own = found.reader(found.dialect, {}, shapes, checkpoint.label)
        for name, item in found.family.canonical.hyperparameters.items():
            if item.advisory and values[name] is None and name in found.dialect.config.fields:
                values[name] = own.value(name)
        notes += (f"the config is in the words of {found.words.title}",)
    elif found.inferred is not None:
        notes += (_assumed(found, values),)
    elif not found.raw:
        notes += (
            f"no {found.dialect.config.file} beside the weights: what their shapes do not say is taken to be "
            f"as in the published {found.family.name} models",
        )
    return Identity(
        found.family,
        found.dialect,
        values,
        found.raw,
        names,
        tuple(reader.unknown_fields()),
        (*checkpoint.remarks, *read, *notes),
        found.words if found.words is not found.dialect else None,
        found.wrapper,
    )


def _of_another(found: _Candidate) -> tuple[str, ...]:
    """What to say where a family was named that the config is not of."""
    if not found.raw or matches(found.raw, found.words.config.match):
        return ()
    told = [f"says {key} = {found.raw[key]!r}" for key in found.words.config.match if key in found.raw]
    said = told[0] if told else "names no family"
    return (f"{found.file} {said}; read as {found.family.name}, as asked",)


# transformers' words for how its weights are quantised.
_QUANTIZATION = "quantization_config"


def _without_quantization(
    checkpoint: Checkpoint, found: _Candidate, names: Mapping[str, str]
) -> tuple[_Candidate, tuple[str, ...]]:
    """A merged finetune may keep the words of the quantised model that it began as.

    Where every weight is a plain float they describe nothing that is there. Raises UnsupportedError else.
    """
    if found.words.config.file != "config.json" or found.raw.get(_QUANTIZATION) is None:
        return found, ()
    said, matcher = found.raw[_QUANTIZATION], NameMatcher(found.dialect, found.wrapper)
    # Blocks and scales have names of their own; a buffer may be of any dtype.
    weights = [name for name in checkpoint.tensors if name in names or not matcher.ignored(name)]
    if kind := quantised_as(said, checkpoint.tensors, weights):
        method = said.get("quant_method", said) if isinstance(said, Mapping) else said
        stored = sorted({tensor.dtype.name for tensor in checkpoint.tensors.values()})
        raise UnsupportedError(
            f"the weights of {checkpoint.label} are {kind.what}",
            cause=f"{found.file}: {_QUANTIZATION} says {method!r}; they are stored as {', '.join(stored)}",
            hint=kind.hint,
        )
    raw = {key: value for key, value in found.raw.items() if key != _QUANTIZATION}
    note = f"{found.file}: {_QUANTIZATION} is left out: every weight is stored as a plain float"
    return replace(found, raw=raw), (note,)


def _assumed(found: _Candidate, values: Mapping[str, Any]) -> str:
    """What neither a config nor a shape has said, and what it is taken to be."""
    said = []
    for name, item in found.family.canonical.hyperparameters.items():
        entry = found.dialect.config.fields.get(name)
        if name in (found.inferred or {}) or entry is None or entry.has_fixed or item.advisory:
            continue
        if entry.only is not None and len(entry.only) == 1:
            continue
        value = values[name]
        if isinstance(value, list):
            said.append(f"{name} = {sum(map(bool, value))} of {len(value)}")
        elif value is not None and value != item.neutral:
            said.append(f"{name} = {value}")
    return (
        f"no {found.dialect.config.file} beside the weights: sizes are what their shapes say; as in the "
        f"published {found.family.name} models: {', '.join(said)}"
    )


def _shapes(checkpoint: Checkpoint, names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    return {names.get(name, name): tensor.shape for name, tensor in checkpoint.tensors.items()}


def _candidates(
    checkpoint: Checkpoint, families: Families, config: Path | None, *, named: bool
) -> Iterable[_Candidate]:
    """Every dialect that it may be in; of a family that was `named`, whatever the config matches."""
    raws: dict[str, dict[str, Any] | None] = {}

    def raw_of(file: str) -> dict[str, Any] | None:
        if file not in raws:
            raws[file] = raw_config(checkpoint, file, override_of(config, file))
        return raws[file]

    def fits(sketch: Sketch) -> bool:
        raw = raw_of(sketch.file)
        matched = any(matches(raw, wanted) for wanted in sketch.matches) if raw else sketch.optional
        return matched and checkpoint.container in sketch.containers

    for name in families:
        # Those that are shared are tried once, for all families: which one it is, is decided by structure.
        likely = [
            sketch.dialect
            for sketch in families.sketches(name)
            if (not sketch.shared or name == DECODER) and fits(sketch)
        ]
        for called in families[name].dialects if named else likely:
            family = families[name]
            dialect = family.dialects[called]
            file = dialect.config.file
            if file is None or checkpoint.container not in dialect.files.readable:
                continue
            override = override_of(config, file)
            own = f"{checkpoint.label}'s metadata" if file == "(metadata)" else file
            stands_in = override.name if override is not None else own
            raw = raw_of(file)
            if raw is not None and (named or matches(raw, dialect.config.match)):
                yield _Candidate(family, dialect, dialect, raw, file=stands_in)
                continue
            lenders = [family.dialects[name] for name in dialect.config.borrow if name in family.dialects]
            lender = next((lender for lender in lenders if raw and matches(raw, lender.config.match)), None)
            if lender is not None:
                yield _Candidate(family, dialect, lender, raw or {}, file=stands_in)
            elif not raw and dialect.config.optional:
                yield _Candidate(family, dialect, dialect, {})


def matches(raw: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a raw config is one of this family: each field is among the values given for it.

    A field that is left out counts as false; `{ contains = "…" }` asks for a part of a string, and
    `{ present = true }` for the field alone.
    """
    for path, allowed in wanted.items():
        value = get(raw, path)[1]
        if isinstance(allowed, Mapping):
            if value is None or allowed.get("contains", "") not in str(value or ""):
                return False
        elif (value if value is not None else False) not in allowed:
            return False
    return True
