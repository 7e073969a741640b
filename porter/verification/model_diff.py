"""What `porter diff` finds out, as a value: how two models differ, in names, shapes, dtypes and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from porter.facts import Facts
from porter.verification.verdict import TokenizerVerdict

# What tensors of the two sides are paired by.
By = Literal["canonical axes", "names"]


@dataclass(frozen=True)
class LoneTensor:
    """A tensor that one side has. Shape in elements, outermost first."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ShapeDifference:
    """A tensor of two shapes. `compared` of its elements could be compared: the rows that both have."""

    name: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    compared: int


@dataclass(frozen=True)
class DtypeDifference:
    """A tensor that is stored in two dtypes."""

    name: str
    a: str
    b: str


@dataclass(frozen=True)
class ValueDifference:
    """A tensor whose values differ, in float32: `differing` of `compared` elements, by more than was allowed.

    `first` is the index of the first of them, `a` and `b` its values. `relative` is the norm of the
    difference over that of A, `cosine` that of the angle between the two. Numbers that are not finite are
    None; `odd` elements are NaN or infinite on one side alone. `rank` is that of the difference, where it is
    low, and `explains` the share of its squares that so many directions hold.
    """

    name: str
    shape: tuple[int, ...]
    compared: int
    differing: int
    first: tuple[int, ...]
    a: float | None
    b: float | None
    max_abs: float
    mean_abs: float
    relative: float | None
    cosine: float | None
    odd: int
    rank: int | None
    explains: float | None


@dataclass(frozen=True)
class FieldDifference:
    """A hyperparameter in porter's words, or a field of two `config.json`, with the value on each side."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, repr=False)
class ModelDiff(Facts):
    """How two models differ. Families and dialects are empty where no table knows a side.

    `by` says what tensors were paired by: porter's canonical weights, or their names. `equal` tensors are the
    same. `values` are sorted by `relative`, the largest first. `config` and `tokenizer` are None where they
    were not compared; `fields` are all that was compared of the configs, with both values.
    """

    a: str
    b: str
    by: By
    families: tuple[str, str]
    dialects: tuple[str, str]
    compared: int
    equal: int
    only_in_a: tuple[LoneTensor, ...]
    only_in_b: tuple[LoneTensor, ...]
    shapes: tuple[ShapeDifference, ...]
    dtypes: tuple[DtypeDifference, ...]
    values: tuple[ValueDifference, ...]
    config: tuple[FieldDifference, ...] | None
    tokenizer: TokenizerVerdict | None
    notes: tuple[str, ...] = ()
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether nothing that was compared differs."""
        differs = self.tokenizer is not None and self.tokenizer.outcome == "differs"
        parts = (self.only_in_a, self.only_in_b, self.shapes, self.dtypes, self.values, self.config or ())
        return not differs and not any(parts)

    def _facts(self) -> list[tuple[str, str]]:
        counts = (
            (len(self.values), "differ in value"),
            (len(self.shapes), "in shape"),
            (len(self.dtypes), "in dtype"),
            (len(self.only_in_a), "only in A"),
            (len(self.only_in_b), "only in B"),
        )
        found = ", ".join(f"{number:,} {word}" for number, word in counts if number)
        facts = [
            ("models", f"{self.a} and {self.b}"),
            ("tensors", f"{self.equal:,} of {self.compared:,} are equal{'; ' if found else ''}{found}"),
        ]
        if self.config is not None:
            facts.append(("config", f"{len(self.config)} fields differ" if self.config else "the same"))
        if self.tokenizer is not None:
            facts.append(("tokenizer", f"{self.tokenizer.outcome}: {self.tokenizer.says}"))
        return facts + [("note", text) for text in self.notes]
