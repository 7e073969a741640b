"""Canonical hyperparameters, written as a dialect's config.

A hyperparameter that the dialect cannot hold is an error, never a silence: a value that it fixes in code
differently, a value that it has no word for, two hyperparameters that share one field and differ, or one
that it has no place for. As a last proof the written config is read back and compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from porter.config.raw import GENERATION, get, put
from porter.config.read import ConfigReader, Shapes, normalised
from porter.errors import PorterError, UnsupportedError
from porter.layout import Expression
from porter.tables.model import Canonical, Constant, Dialect, FieldEntry, Hyperparameter
from porter.wording import option


def write_config(
    dialect: Dialect,
    canonical: Canonical,
    hyperparameters: Mapping[str, Any],
    *,
    shapes: Shapes,
    weights_dtype: str | None = None,
    kept: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """The dialect's config as a plain mapping. `shapes` are the target's tensors. Raises UnsupportedError.

    `kept` is a config in the same dialect: what the table does not speak of is left as it is there.
    """
    neutral = {name: item.neutral for name, item in canonical.hyperparameters.items()}
    hyperparameters = normalised({**neutral, **hyperparameters}, canonical)
    written: dict[str, Any] = {}
    makers: dict[str, str] = {}
    for name, hyperparameter in canonical.hyperparameters.items():
        value = hyperparameters.get(name, hyperparameter.neutral)
        entry = dialect.config.fields.get(name)
        if entry is None:
            if value != hyperparameter.neutral and not hyperparameter.advisory:
                raise _cannot(
                    dialect, name, value, _because(hyperparameter, value, "its config has no place for it")
                )
            continue
        if entry.has_assumed:
            continue
        if hyperparameter.when is not None and not hyperparameter.when.evaluate(hyperparameters.__getitem__):
            continue
        # What has several spellings is compared when the config is read back.
        if entry.has_fixed and name not in canonical.normal:
            _check_fixed(dialect, hyperparameter, entry, value, hyperparameters)
        if entry.only is not None and value not in entry.only:
            why = f"it knows {', '.join(map(repr, entry.only))}"
            raise _cannot(dialect, name, value, _because(hyperparameter, value, why))
        if entry.contains or entry.avoid:
            value = _named(entry, value, hyperparameters)
        if value is None and hyperparameter.advisory:
            continue
        if entry.write_to is not None:
            theirs = _stated(entry, value, hyperparameters)
            if entry.write is not None and value is not None:
                theirs = entry.write.evaluate(hyperparameters.__getitem__)
            _write_field(dialect, entry, theirs, written, makers, shapes, name in canonical.normal)
    for path, (constant, _) in dialect.config.write.items():
        value = constant
        lookup = {**hyperparameters, "weights_dtype": weights_dtype}
        if isinstance(constant, Constant):
            if not constant.when.evaluate(lookup.__getitem__):
                continue
            value = constant.value
        elif isinstance(constant, Expression):
            value = constant.evaluate(lookup.__getitem__, {"written": lambda p: get(written, p)[1]})
        put(written, path, value)
    written = {**_unspoken(dialect, kept), **written}
    _prove(dialect, canonical, hyperparameters, written, shapes)
    return written


def _stated(entry: FieldEntry, value: Any, hyperparameters: Mapping[str, Any]) -> Any:
    """The value, or what the dialect has to be told where there is none."""
    if value is not None or entry.none_is is None:
        return value
    if entry.each_layer:
        return [entry.none_is] * int(hyperparameters["n_layer"])
    return entry.none_is


def _unspoken(dialect: Dialect, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Without the places of merged dicts: those were read as one, and written as one.

    Nor has it what the family requires to be absent; that it is there is no fault where it says nothing.
    """
    places = {
        path.partition(".")[0]
        for recipe in dialect.config.merge.values()
        for path in (*recipe.first, *recipe.update, *recipe.fill.values(), *recipe.over.values())
    }
    places |= {path for path, allowed in dialect.config.require.items() if not allowed}
    return {name: value for name, value in kept.items() if name not in places}


def dump_config(config: Mapping[str, Any], file: str) -> bytes:
    """The text of a config file: YAML for `.yaml`, else JSON. Generation settings are left to their own."""
    own = {key: value for key, value in config.items() if key != GENERATION}
    if file.endswith((".yaml", ".yml")):
        import yaml

        return yaml.safe_dump(own, sort_keys=True).encode()
    return (json.dumps(own, indent=2, sort_keys=True) + "\n").encode()


def _write_field(
    dialect: Dialect,
    entry: FieldEntry,
    value: Any,
    written: dict[str, Any],
    makers: dict[str, str],
    shapes: Shapes,
    several: bool,
) -> None:
    """`several` spellings have one meaning: leaving one out is judged when the config is read back."""
    path = entry.write_to
    assert path is not None
    if value is None:
        if entry.nullable:
            put(written, path, None)
        elif (
            entry.has_default
            and entry.default is not None
            and not isinstance(entry.default, Expression)
            and not several
        ):
            raise _cannot(dialect, entry.name, value, f"leaving out {path} means {entry.default!r}")
        return
    if "." in path and entry.has_default and value == _plain(entry.default, shapes):
        # A nested section is written only where it says something.
        return
    theirs = _spell(dialect, entry, _translate(dialect, entry, value))
    found, other = get(written, path)
    if found and other != theirs:
        raise UnsupportedError(
            f"{dialect.title} cannot express {entry.name} = {value!r} beside {makers[path]}",
            cause=f"both stand in {dialect.config.file} as {path}: {other!r} against {theirs!r}",
            hint=f"port into a dialect that has a field for each, or write your own with {option('map')}",
        )
    makers[path] = f"{entry.name} = {value!r}"
    put(written, path, theirs)


def _plain(default: Any, shapes: Shapes) -> Any:
    """A default that reads no hyperparameter, as its value beside the target's tensors."""
    if isinstance(default, Expression):
        return None if default.names else default.evaluate(lambda name: None, {"has": shapes.__contains__})
    return default


def _translate(dialect: Dialect, entry: FieldEntry, value: Any) -> Any:
    if not entry.values:
        return value
    if isinstance(value, list):
        return [_one(dialect, entry, item) for item in value]
    return _one(dialect, entry, value)


def _one(dialect: Dialect, entry: FieldEntry, value: Any) -> Any:
    for theirs, ours in entry.values:
        if ours == value:
            return theirs
    raise _cannot(dialect, entry.name, value, f"it knows {', '.join(repr(ours) for _, ours in entry.values)}")


def _spell(dialect: Dialect, entry: FieldEntry, value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        whole = isinstance(value, int) or value.is_integer()
        if entry.write_as == "int" and not whole:
            raise _cannot(dialect, entry.name, value, f"{entry.write_to} must be a whole number there")
        if entry.write_as in ("int", "number") and whole:
            return int(value)
        if entry.write_as == "float":
            return float(value)
    return value


def _named(entry: FieldEntry, name: str | None, hyperparameters: Mapping[str, Any]) -> str | None:
    """The name with the words that these hyperparameters ask for; those are needed even without a name."""
    needed, avoid = (
        [word for word, when in words.items() if when.evaluate(hyperparameters.__getitem__)]
        for words in (entry.contains, entry.avoid)
    )
    return None if name is None and not needed else spell_name(name or "model", needed, avoid)


def spell_name(name: str, contains: Sequence[str], avoid: Sequence[str]) -> str:
    """A model's name that holds the words a dialect looks for, and none of those it must not hold.

    `google/gemma-2b` with `contains=["Gemma"]` becomes `Gemma-2b`; words are case-sensitive there.
    """
    short = name.rsplit("/", 1)[-1].strip().replace(" ", "-") or "model"
    for word in avoid:
        short = short.replace(word, word.lower())
    for word in contains:
        if word not in short:
            place = short.lower().find(word.lower())
            short = f"{word}-{short}" if place < 0 else short[:place] + word + short[place + len(word) :]
    return short


def _check_fixed(
    dialect: Dialect,
    hyperparameter: Hyperparameter,
    entry: FieldEntry,
    value: Any,
    hyperparameters: Mapping[str, Any],
) -> None:
    fixed = entry.fixed
    if isinstance(fixed, Expression):
        if entry.each_layer:
            layers = range(hyperparameters["n_layer"])
            fixed = [entry.fixed.evaluate({**hyperparameters, "layer": at}.__getitem__) for at in layers]
        else:
            fixed = fixed.evaluate(hyperparameters.__getitem__)
    if value != fixed:
        why = f"its code fixes it to {fixed!r}"
        raise _cannot(dialect, entry.name, value, _because(hyperparameter, value, why))


def _prove(
    dialect: Dialect,
    canonical: Canonical,
    hyperparameters: Mapping[str, Any],
    written: Mapping[str, Any],
    shapes: Shapes,
) -> None:
    """Read the written config back as the target would; every hyperparameter must be what it was."""
    label = str(hyperparameters.get("model_name") or "model")
    try:
        again = ConfigReader(dialect, canonical, written, shapes, label).read()
    except PorterError as error:
        raise UnsupportedError(
            f"{dialect.title} cannot express these hyperparameters", cause=error.message, hint=error.hint
        ) from None
    for name, hyperparameter in canonical.hyperparameters.items():
        value = hyperparameters.get(name, hyperparameter.neutral)
        entry = dialect.config.fields.get(name)
        if hyperparameter.advisory or (entry is not None and entry.has_assumed):
            continue
        if again[name] != value:
            why = f"its config would read as {again[name]!r}"
            raise _cannot(dialect, name, value, _because(hyperparameter, value, why))


def _because(hyperparameter: Hyperparameter, value: Any, why: str) -> str:
    note = hyperparameter.note
    said = note.get(str(value)) if isinstance(note, Mapping) else note
    return f"{why}; {said}" if said else why


def _cannot(dialect: Dialect, name: str, value: Any, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"{dialect.title} cannot express {name} = {value!r}",
        cause=why,
        hint="the converted model would compute something else; port into another dialect",
    )
