"""Two configs compared by what they mean: both read into canonical hyperparameters, one by one.

Each hyperparameter is read by itself, so that one that cannot be read hides no other. What a dialect has no
place for is not compared, nor what changes nothing that a model computes (names, the files that it came in).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from porter.config.raw import get, raw_config
from porter.config.read import ConfigReader, normalised
from porter.config.rope_factors import long_rope_attention
from porter.containers.checkpoint import Checkpoint
from porter.containers.small_tensors import small_values
from porter.errors import PorterError
from porter.layout import Expression
from porter.recognition.identify import Identity, config_section, matches
from porter.recognition.port_dialect import Port
from porter.tables.model import Constant, Dialect, FieldEntry, Hyperparameter
from porter.verification.config_ids import (
    IDS,
    Config,
    lost_ids,
    not_compared,
    other_class,
    other_dtype,
    other_sampling,
    with_ids,
)
from porter.verification.known_mistakes import ConfigMistake
from porter.verification.same_value import same_value
from porter.verification.verdict import ConfigDifference, ConfigVerdict, Mistake

# Written constants that change nothing.
_HARMLESS = ("trainable",)


def compare_configs(
    original: Identity, out: Checkpoint, port: Port, head_stands: bool, spoken: Dialect | None = None
) -> tuple[ConfigVerdict, tuple[str, ...]]:
    """The verdict, and notes. `head_stands` says that the port's head holds what it should, `spoken` which
    other family's words the port's config is in.

    A tie that is not stated is then no mistake: there is a head, and it is the right one.
    """
    try:
        raw, words, file = _config_of(out, original, port, spoken)
    except PorterError as error:
        name = port.dialect.config.file or "config"
        return ConfigVerdict("differs", name, (ConfigDifference("config", None, None, _told(error)),)), ()
    if raw is None or words is None:
        return ConfigVerdict("not compared", None), (
            f"no config beside the weights of {out.label}: only its weights are compared",
        )
    found: list[ConfigDifference] = []
    called = _unmatched(port.dialect if words is spoken else words, raw, file)
    found += [] if words is spoken else called
    shapes = {port.names.get(name, name): tensor.shape for name, tensor in out.tensors.items()}
    try:
        reader = ConfigReader(
            words, original.family.canonical, config_section(raw, words), shapes, out.label, None, file
        )
    except PorterError as error:
        found.append(ConfigDifference("config", None, None, _told(error)))
        return ConfigVerdict("differs", file, tuple(found)), ()
    stored = {ours: theirs for theirs, ours in port.names.items()}
    reader.values = lambda name: small_values(out, stored.get(name, name))
    for path, value, allowed in reader.not_covered():
        found.append(_differs(path, _one(list(allowed)), value, file))
    values, errors = _read(reader, original)
    found += [ConfigDifference(name, None, None, said) for name, said in errors.items()]
    table = original.family.canonical.hyperparameters
    dialects = (original.words or original.dialect, words)
    ours, theirs = with_ids(Config.of(original), Config(values, raw, words))
    every = hyperparameter_pairs(table, dialects, ours, theirs)
    pairs = [pair for pair in every if pair[0] not in errors]
    for name, expected, value in pairs:
        stands = name == "tie_embeddings" and expected and not value and head_stands
        if not stands and not same_value(expected, value):
            found.append(_differs(name, expected, value, file))
    told = {difference.name for difference in found}
    constants = _constants(words, raw, original.hyperparameters, file)
    found += [difference for difference in constants if difference.name not in told]
    if found and words is spoken:
        # Another name alone changes nothing; where something else is said, it is the cause.
        found = [*called, *found]
    return ConfigVerdict(
        "differs" if found else "equal",
        file,
        tuple(found),
        len(pairs),
        {name: (expected, value) for name, expected, value in pairs},
    ), (
        *not_compared(reader.unknown_fields(), raw, original, words, file),
        *lost_ids(original, Config(values, raw, words), out.label),
        *other_sampling(original, raw),
        *other_dtype(out, words, raw, file),
        *other_class(original, words, raw, file),
        *(
            [f"{file} is in the words of {spoken.family}: compared by what they mean"]
            if words is spoken
            else []
        ),
    )


def _unmatched(words: Dialect, raw: Mapping[str, Any], file: str) -> list[ConfigDifference]:
    """By what a config is told to be another family's, or another dialect's."""
    return [
        _differs(
            path,
            allowed if isinstance(allowed, Mapping) else _one(list(allowed)),
            get(raw, path)[1],
            file,
        )
        for path, allowed in words.config.match.items()
        if not matches(raw, {path: allowed})
    ]


def name_config_mistakes(
    verdict: ConfigVerdict, known: Sequence[ConfigMistake]
) -> tuple[ConfigVerdict, tuple[Mistake, ...]]:
    """The verdict with what the table says of its differences, and these as mistakes."""
    differences, mistakes = [], []
    for one in verdict.differences:
        said = next(
            (
                entry.says
                for entry in known
                if entry.of == one.name
                and (entry.found is None or same_value(entry.found, one.found))
                and (entry.expected is None or same_value(entry.expected, one.expected))
            ),
            None,
        )
        if one.found is None and one.expected is None:
            differences.append(one)
            mistakes.append(Mistake(one.says, (), None, part="config"))
            continue
        if said is None:
            differences.append(one)
            continue
        differences.append(replace(one, says=f"{one.says}: {said}"))
        what = f"{one.name} is {_shown(one.found)}, not {_shown(one.expected)}"
        mistakes.append(Mistake(f"{said} ({what})", (), said, part="config"))
    return replace(verdict, differences=tuple(differences)), tuple(mistakes)


def _config_of(
    out: Checkpoint, original: Identity, port: Port, spoken: Dialect | None
) -> tuple[Mapping[str, Any] | None, Dialect | None, str]:
    """The port's config, the dialect that it is in the words of, and its file."""
    dialects = original.family.dialects
    lenders = [dialects[name] for name in port.dialect.config.borrow if name in dialects]
    # Names may be those of two dialects, of which each has words of its own for the same file.
    kin = [other for other in dialects.values() if other.config.file == port.dialect.config.file]
    first: tuple[Mapping[str, Any] | None, Dialect | None, str] = (None, None, "")
    for words in (port.dialect, *kin, *lenders, *([spoken] if spoken is not None else [])):
        if words.config.file is None:
            continue
        raw = raw_config(out, words.config.file)
        own = f"{out.label}'s metadata" if words.config.file == "(metadata)" else words.config.file
        if raw and matches(raw, words.config.match):
            return raw, words, own
        if raw and first[0] is None:
            first = raw, words, own
    return first


def hyperparameter_pairs(
    table: Mapping[str, Hyperparameter],
    dialects: Sequence[Dialect],
    one: Mapping[str, Any],
    two: Mapping[str, Any],
) -> list[tuple[str, Any, Any]]:
    """The hyperparameters of `table` that two configs can be compared by, each with both values.

    Those are what all dialects state or fix. Of what changes nothing that is computed, there are the ids that
    both sides state.
    """
    ours, theirs = _without_unscaled(one), _without_unscaled(two)
    found = []
    for name, item in table.items():
        pair = ours.get(name), theirs.get(name)
        entries = [dialect.config.fields[name] for dialect in dialects if name in dialect.config.fields]
        assumed = any(entry.has_assumed for entry in entries)
        # An id that a framework has in its code says nothing of the model.
        stated = name in IDS and None not in pair and not any(entry.has_fixed for entry in entries)
        if assumed or item.idle or (item.advisory and not stated):
            continue
        found.append((name, *pair))
    return found


def _without_unscaled(values: Mapping[str, Any]) -> dict[str, Any]:
    """A linear scaling by 1 is none, however it is said, and LongRoPE's factor of cos and sin none where it
    is the one that is derived."""
    found = dict(values)
    factor = found.get("rope_attention_factor")
    if factor is not None and same_value(factor, long_rope_attention(found)):
        found["rope_attention_factor"] = None
    for kind, factor in (("rope_type", "rope_factor"), ("rope_local_type", "rope_local_factor")):
        if found.get(kind) == "linear" and found.get(factor) == 1:
            found[kind], found[factor] = "default", None
    return found


def _read(reader: ConfigReader, original: Identity) -> tuple[dict[str, Any], dict[str, str]]:
    """Each hyperparameter by itself, and what is wrong with those that cannot be read, each told once."""
    values: dict[str, Any] = dict(original.hyperparameters)
    errors: dict[str, str] = {}
    for name in original.family.canonical.hyperparameters:
        try:
            values[name] = reader.value(name)
        except PorterError as error:
            if _told(error) not in errors.values():
                errors[name] = _told(error)
    try:
        return normalised(values, original.family.canonical), errors
    except PorterError as error:
        return values, {**errors, "config": _told(error)}


def _constants(
    words: Dialect, raw: Mapping[str, Any], hyperparameters: Mapping[str, Any], file: str
) -> list[ConfigDifference]:
    """Switches that the dialect's config always has one way for these hyperparameters.

    What a hyperparameter is read from was compared by what it means: Falcon's `multi_query` is passed over by
    a model with the new architecture, whatever it says.
    """
    found = []
    read = {path for entry in words.config.fields.values() for path in _fields_read(entry)}
    lookup: Callable[[str], Any] = {"weights_dtype": None, **hyperparameters}.__getitem__
    for path, (constant, _) in words.config.write.items():
        there, value = get(raw, path)
        if not there or path.rpartition(".")[2] in _HARMLESS or path in words.config.known or path in read:
            continue
        if isinstance(constant, Constant):
            if not constant.when.evaluate(lookup):
                continue
            constant = constant.value
        elif isinstance(constant, Expression):
            if "written" in constant.calls:
                continue
            constant = constant.evaluate(lookup)
        if isinstance(constant, bool) and value != constant:
            found.append(_differs(path, constant, value, file))
    return found


def _fields_read(entry: FieldEntry) -> Iterator[str]:
    yield from entry.fields
    for expression in (entry.read, entry.default):
        if isinstance(expression, Expression):
            yield from expression.asked("field")


def _differs(name: str, expected: Any, found: Any, file: str) -> ConfigDifference:
    return ConfigDifference(
        name, expected, found, f"{file}: {name} is {_shown(found)}, not {_shown(expected)}"
    )


def _shown(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f"[{', '.join(map(str, value[:6]))}, … {len(value)} in all]"
    return "none" if value is None else str(value)


def _one(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _told(error: PorterError) -> str:
    return error.message + (f" ({error.cause})" if error.cause else "")
