"""A dialect's config, read into canonical hyperparameters.

Every value comes from its field, from the default that the dialect has where the field is left out, or
from what the dialect fixes in code; the table says which. A value of the wrong type, or one that the
table does not know, is an error that names the file and the field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase, translate
from typing import Any, NoReturn

from porter.config.merge import merge_dict
from porter.config.raw import GENERATION, get, shortest_float32
from porter.config.rope_factors import llama3_factor
from porter.config.shares import cut_share, rotated_share
from porter.errors import MalformedError, PorterError, UnsupportedError
from porter.layout import Expression
from porter.tables.model import Canonical, Dialect, FieldEntry, Hyperparameter
from porter.tables.patterns import Pattern

Shapes = Mapping[str, tuple[int, ...]]

# What makes a known path a pattern.
_WILD = re.compile(r"[*?\[]")

# Layers, or experts. Far more than any model has; a config that claims billions would
# otherwise be believed until memory runs out (at this bound, a refusal takes a second and 100 MB).
_MAX_INDEX = 16_384


@dataclass
class ConfigReader:
    """Reads one raw config. `shapes` are the checkpoint's tensors, `label` what the model is called.

    Without a config, `inferred` is what shapes say; what the table calls published comes before defaults.
    `file` is what errors call the config, where it is not the dialect's own; `raw` is the table's section of
    it. `values` reads a small tensor, for what a config leaves to it. What several places say is merged when
    a reader is made. Raises MalformedError or UnsupportedError.
    """

    dialect: Dialect
    canonical: Canonical
    raw: Mapping[str, Any]
    shapes: Shapes
    label: str
    inferred: Mapping[str, Any] | None = None
    file: str | None = None
    values: Callable[[str], Sequence[float]] | None = None
    passed_over: tuple[str, ...] = ()
    _merged: dict[str, Any] = field(default_factory=dict)
    _origins: dict[str, str] = field(default_factory=dict)
    _values: dict[str, Any] = field(default_factory=dict)
    _reading: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._merged = dict(self.raw)
        for name, recipe in self.dialect.config.merge.items():
            merged = merge_dict(recipe, self.raw, self._file)
            self._merged[name] = merged.entries
            self._origins |= {f"{name}.{key}": path for key, path in merged.origins.items()}
            self.passed_over += merged.passed_over

    def read(self) -> dict[str, Any]:
        """All canonical hyperparameters. Raises MalformedError or UnsupportedError."""
        for path, value, allowed in self.not_covered():
            raise UnsupportedError(
                f"{self._file}: {self._place(path)} = {value!r} is not covered by the family "
                f"{self.canonical.family}",
                cause=f"expected {' or '.join(map(repr, allowed)) or 'it to be absent'}",
            )
        for path in self.unknown_fields():
            if any(path.startswith(f"{section}.") for section in self.dialect.config.closed):
                raise UnsupportedError(
                    f"{self._file}: {self._place(path)} = {get(self.raw, path)[1]!r} is not known to porter",
                    cause="it may change what the model computes, and there is no place to carry it to",
                )
        return normalised({name: self.value(name) for name in self.canonical.hyperparameters}, self.canonical)

    def value(self, name: str) -> Any:
        """One hyperparameter, with those that its default reads resolved first."""
        if name in self._values:
            return self._values[name]
        if name in self._reading:
            raise MalformedError(f"{self._file}: {name} cannot be derived", cause="the defaults are circular")
        self._reading.append(name)
        item = self.canonical.hyperparameters[name]
        try:
            there = item.when is None or self._condition(item.when)
            value = self._check(item, self._find(name)) if there else item.neutral
        finally:
            self._reading.pop()
        self._values[name] = value
        return value

    def not_covered(self) -> list[tuple[str, Any, tuple[Any, ...]]]:
        """Fields whose value the table does not cover, with that value and those that it does."""
        found = []
        for path, allowed in self.dialect.config.require.items():
            there, value = get(self._merged, path)
            if not there and self.raw and path in self.dialect.config.left_out:
                there, value = True, self.dialect.config.left_out[path]
            if there and value is not None and allowed is not None and value not in allowed:
                found.append((path, value, allowed))
        return found

    def unknown_fields(self) -> list[str]:
        """Fields of the raw config that the table neither reads nor knows to be harmless."""
        config = self.dialect.config
        known = [path for entry in config.fields.values() for path in entry.fields]
        known += [*config.write, *config.require, *config.known, *config.match, f"{GENERATION}*"]
        for recipe in config.merge.values():
            # Their entries were judged one by one when they were merged.
            known += [f"{path}*" for path in (*recipe.first, *recipe.update)]
            known += [*recipe.fill.values(), *recipe.over.values()]
        return sorted(_unknown(self.raw, [path for path in known if path not in config.closed]))

    @property
    def _file(self) -> str:
        return self.file or self.dialect.config.file or "config"

    def _place(self, path: str) -> str:
        """A path as the file has it: where an entry of a merged dict came from, inside the section."""
        section = self.dialect.config.section
        path = self._origins.get(path, path)
        return (
            f"{section}.{path}" if section and path.split(".")[0] not in self.dialect.config.outer else path
        )

    def _find(self, name: str) -> Any:
        entry = self.dialect.config.fields.get(name)
        if entry is None:
            return self.canonical.hyperparameters[name].neutral
        if self.inferred is not None:
            if name in self.inferred:
                return self.inferred[name]
            if name in self.dialect.config.published:
                return self._derived(entry, self.dialect.config.published[name][0])
        if entry.read is not None:
            return self._evaluate(entry.read, entry)
        for path in entry.fields:
            found, value = get(self._merged, path)
            if not found:
                continue
            if value is not None or entry.nullable:
                return self._translate(entry, path, value)
            if entry.null_is is not None:
                return entry.null_is
            if entry.default is True or entry.nullable is False:
                # Python takes null for false where it takes it at all, and the default may say true.
                meaning = f", and leaving {self._place(path)} out means true" if entry.default is True else ""
                raise MalformedError(
                    f"{self._file}: {self._place(path)} must be true or false", cause=f"found null{meaning}"
                )
        if entry.has_default:
            return self._derived(entry, entry.default)
        if entry.has_assumed:
            return self._derived(entry, entry.assumed)
        if entry.has_fixed:
            return self._derived(entry, entry.fixed)
        if self.canonical.hyperparameters[name].required:
            field = self._place(entry.fields[0]) if entry.fields else name
            raise MalformedError(
                f"{self._file}: the field {field!r} is missing",
                cause=f"it holds {name}, which the family {self.canonical.family} needs",
            )
        return self.canonical.hyperparameters[name].neutral

    def _derived(self, entry: FieldEntry, value: Any) -> Any:
        if not entry.each_layer:
            return self._evaluate(value, entry) if isinstance(value, Expression) else value
        return [self._evaluate(value, entry, {"layer": layer}) for layer in range(self.value("n_layer"))]

    def _evaluate(
        self, expression: Expression, entry: FieldEntry, extra: Mapping[str, int] | None = None
    ) -> Any:
        def lookup(name: str) -> Any:
            return extra[name] if extra and name in extra else self.value(name)

        try:
            return expression.evaluate(lookup, self._functions(extra))
        except (MalformedError, UnsupportedError):
            raise
        except PorterError as error:
            raise MalformedError(
                f"{self._file}: {entry.name} cannot be derived",
                cause=error.message + (f" ({error.cause})" if error.cause else ""),
            ) from None

    def _condition(self, condition: Expression) -> bool:
        return bool(condition.evaluate(self.value))

    def holds(self, condition: Expression) -> bool:
        """Whether a condition on the config and on the tensors holds; what it cannot read is false."""
        try:
            return bool(condition.evaluate(self.value, self._functions()))
        except PorterError:
            return False

    def _functions(self, extra: Mapping[str, int] | None = None) -> dict[str, Callable[..., Any]]:
        def shape(tensor: str, dim: int) -> int:
            if tensor not in self.shapes:
                raise MalformedError(f"the checkpoint has no tensor {tensor!r}")
            return self.shapes[tensor][dim]

        def refuse(why: str) -> NoReturn:
            raise UnsupportedError(
                f"{self._file}: {why}", hint="convert the model from its Hugging Face form"
            )

        def stated(share: float | None, what: str) -> float:
            if share is None:
                refuse(f"{what} in a way that porter does not know")
            return share

        return {
            "llama3_factor": self._llama3_factor,
            "rotated_share": lambda tensor: stated(
                rotated_share(self._numbers(tensor)), f"{tensor} scales RoPE's frequencies"
            ),
            "cut_share": lambda deviations: stated(cut_share(deviations), f"{deviations} cuts gates off"),
            "numbers": self._numbers,
            "refuse": refuse,
            "field": lambda path: get(self._merged, Pattern(path).filled(extra or {}))[1],
            "given": lambda path: get(self._merged, path)[0],
            "is_list": lambda value: isinstance(value, Sequence) and not isinstance(value, str),
            "floor": math.floor,
            "has": lambda tensor: tensor in self.shapes,
            "shape": shape,
            "label": lambda: self.label,
            "count": lambda pattern: sum(Pattern(pattern).match(name) is not None for name in self.shapes),
            "length": len,
        }

    def _numbers(self, tensor: str) -> list[float]:
        """The values of a small tensor."""
        if self.values is None:
            raise UnsupportedError(f"the values of {tensor} are not to be had here")
        return [shortest_float32(value) for value in self.values(tensor)]

    def _llama3_factor(
        self,
        tensor: str,
        theta: float,
        dims: int,
        factors: list[float],
        low: float,
        high: float,
        context: int,
        further: bool,
    ) -> float:
        """The factor of Llama 3's scaling whose divisors, one for two `dims`, a tensor holds."""
        divisors = self._numbers(tensor)
        found = llama3_factor(divisors, theta, factors, low, high, context)
        if found is None or further or 2 * len(divisors) != dims:
            known = " or ".join(f"{factor:g}" for factor in factors)
            raise UnsupportedError(
                f"{tensor} scales RoPE's frequencies in a way that porter does not know",
                cause="the metadata states another scaling besides"
                if further
                else f"its {len(divisors)} values are not those of Llama 3's scaling by {known}, "
                f"from {context} positions, with theta = {theta:g} and {dims} dims",
                hint="convert the model from its Hugging Face form, whose config says the scaling",
            )
        return found

    def _translate(self, entry: FieldEntry, path: str, value: Any) -> Any:
        if isinstance(value, float) and self.dialect.config.float32:
            value = shortest_float32(value)
        if not entry.values or value is None:
            return value
        if isinstance(value, list):
            return [self._one(entry, path, item) for item in value]
        return self._one(entry, path, value)

    def _one(self, entry: FieldEntry, path: str, value: Any) -> Any:
        for theirs, ours in entry.values:
            if type(theirs) is type(value) and theirs == value:
                return ours
        raise UnsupportedError(
            f"{self._file}: {self._place(path)} = {value!r} is not known to "
            f"{self.dialect.family}/{self.dialect.name}",
            cause=f"known: {', '.join(repr(theirs) for theirs, _ in entry.values)}",
        )

    def _check(self, hyperparameter: Hyperparameter, value: Any) -> Any:
        if value is None and not hyperparameter.required:
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if hyperparameter.type == "int" and isinstance(value, float) and value.is_integer():
            value = int(value)
        fits = {
            "int": isinstance(value, int) and not isinstance(value, bool),
            "number": number,
            "bool": isinstance(value, bool),
            "str": isinstance(value, str),
            "list": isinstance(value, list),
            "any": True,
        }[hyperparameter.type]
        if not fits:
            entry = self.dialect.config.fields.get(hyperparameter.name)
            there = [path for path in (entry.fields if entry else ()) if get(self._merged, path)[0]]
            where = self._place((there or [*(entry.fields if entry else ()), hyperparameter.name])[0])
            raise MalformedError(
                f"{self._file}: {where} must be of type {hyperparameter.type}",
                cause=f"found {value!r}",
            )
        if any(hyperparameter.name in size.names for size in self.canonical.index.values()) and (
            not all(isinstance(size, int) and 0 <= size <= _MAX_INDEX for size in _listed(value))
        ):
            raise MalformedError(
                f"{self._file}: {hyperparameter.name} = {value} is out of range",
                cause=f"expected 0 to {_MAX_INDEX}",
            )
        per_layer = hyperparameter.type == "list"
        if per_layer and len(value) != self.value("n_layer"):
            if len(value) < self.value("n_layer"):
                raise MalformedError(
                    f"{self._file}: {hyperparameter.name} must have one item per layer",
                    cause=f"found {len(value)} items for {self.value('n_layer')} layers",
                )
            value = value[: self.value("n_layer")]
        return value


def normalised(values: dict[str, Any], canonical: Canonical) -> dict[str, Any]:
    """Hyperparameters in the one spelling that the canonical table gives where several have one meaning.

    Those whose `when` does not hold have none, and are neutral.
    """
    for name, item in canonical.hyperparameters.items():
        if item.when is not None and not item.when.evaluate(values.__getitem__):
            values[name] = item.neutral
    for name, expression in canonical.normal.items():
        values[name] = expression.evaluate(values.__getitem__)
    return values


def _unknown(raw: Mapping[str, Any], known: Iterable[str]) -> Iterator[str]:
    """Dotted paths that no known path or pattern covers, inside every mapping that known paths go into."""
    known = frozenset(known)
    plain = {path for path in known if not _WILD.search(path)}
    patterns = known - plain
    # All patterns in one, and all sections that plain paths go into: a config may have 100,000 entries.
    fits = re.compile("|".join(map(translate, sorted(patterns))) or r"(?!)").match
    into = {path[:at] for path in plain for at, sign in enumerate(path) if sign == "."}

    def walk(section: Mapping[str, Any], above: str) -> Iterator[str]:
        for name, value in section.items():
            path = above + name
            if path in plain or fits(path):
                continue
            if isinstance(value, Mapping) and (
                path in into or any(_goes_into(item, path) for item in patterns if "." in item)
            ):
                yield from walk(value, f"{path}.")
            else:
                yield path

    return walk(raw, "")


def _goes_into(pattern: str, path: str) -> bool:
    """Whether the pattern names something inside of the section at this path."""
    steps, wanted = path.split("."), pattern.split(".")
    return len(wanted) > len(steps) and all(map(fnmatchcase, steps, wanted))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
