"""What a difference looks like that no known mistake makes: where, how many, how much, of what rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from porter.dtypes import dtype_word
from porter.execution.sinks.statistics import low_rank
from porter.planning.port_plan import compared_dtype
from porter.values.numbers import rounded
from porter.values.operations import Operation
from porter.verification.mixtures import of_two_layers
from porter.verification.moved_lines import lines_of_others, moved_lines
from porter.verification.moved_words import WORDS, in_words
from porter.verification.samples import in_order, samples
from porter.verification.sides import Sides, Unlike, same
from porter.verification.stored_values import Values
from porter.verification.weight_places import Weight

# So many values or fewer are told one by one.
_FEW = 4

# Rows and columns of the part of a difference whose rank is looked at.
_CORNER = 192

# Rows and columns from which on a low rank means something; below this correlation nothing is left of the
# original, and what is low is the rank of the two themselves.
_LEAST_SIDE, _ALIKE = 16, 0.2

# Of the standard deviation: a difference below is called small.
_SMALL = 0.1


@dataclass(frozen=True)
class Description:
    """`kind` is a word for what it is, where it is something known; `says` is all of it in words.

    `brief` is what of it is the same for several weights.
    """

    kind: str | None
    says: str
    short: str | None = None

    @property
    def brief(self) -> str:
        return self.short or self.says


def describe(sides: Sides, weight: Weight, unlike: Unlike, number: int | None = None) -> Description:
    """Describe how the port's weight differs from the right one. `unlike` is what the two differ by.

    What is found out by samples is proved by `number` of them, or by all elements.
    """
    place = sides.port[weight]
    if not unlike.elements:
        return Description("sign of zero", "only the signs of zeros differ")
    order = [axis for axis in place.order if place.sizes[axis] > 1]
    if unlike.elements <= _FEW and unlike.elements < unlike.of:
        return Description("few values", _few(sides, weight, unlike))
    rows = place.sizes[order[0]] if order else 1
    columns = place.sizes[order[-1]] if len(order) > 1 else 1
    if unlike.zero and unlike.elements >= unlike.of * 0.9:
        return Description("zeros", "is all zeros")
    for axis, what, places, size in _lines(order, unlike, rows, columns, place.axes):
        if len(places) > 1 and (moved := moved_lines(sides, weight, (axis,), number=number)) is not None:
            return Description("moved", in_words(place, what, moved))
        if unlike.zero:
            return Description("zero rows", f"{_listed(what, places)} zeros")
        if len(places) <= min(size // 4, 999):
            return Description("rows", f"{_listed(what, places)} other values")
    outer = tuple(place.long[:-1])
    if len(outer) > 1 and (moved := moved_lines(sides, weight, outer, number=number)) is not None:
        return Description("moved", in_words(place, "row", moved))
    constant = _constant(sides, weight)
    if constant is not None:
        return Description("constant", constant)
    if (dtype := _finer(sides, weight)) is not None:
        short = f"holds finer values than the original, which round to its own in {dtype}"
        return Description("finer", f"{short}: {unlike.elements:,} of {unlike.of:,} differ", short)
    if (sum_of := of_two_layers(sides, weight)) is not None:
        return Description("of two layers", sum_of)
    corner = _corner(sides, weight)
    much = f"up to {unlike.largest:.3g} apart" if math.isfinite(unlike.largest) else "some not finite"
    said = f"{unlike.elements:,} of {unlike.of:,} values differ, {much}"
    if corner is None:
        return Description(None, said, "other values")
    rank, ratio, correlation = corner
    if ratio >= _SMALL and len(others := lines_of_others(sides, weight)) > 1:
        names = " and ".join(name.rpartition(".")[2] for name in sorted(others))
        short = f"holds rows of {names}: parts of a model that was split were joined in another order"
        return Description("rows of others", f"{said}; {short}", short)
    # A product of two matrices changes every row.
    if rank is not None and len(unlike.rows) >= min(rows, 1000):
        short = f"the difference has rank {rank}, as a merged LoRA's has"
        return Description("low rank", f"{said}; {short}", short)
    if ratio < _SMALL:
        short = "trained further, or rounded otherwise"
        return Description("near", f"{said}; {ratio:.2g} of their spread: {short}", short)
    if abs(correlation) < _ALIKE:
        short = "nothing of the original is in it: another model's?"
        return Description("unrelated", f"{said}; correlation {correlation:.2f}: {short}", short)
    return Description(None, f"{said}; correlation {correlation:.2f}", "other values")


def _finer(sides: Sides, weight: Weight) -> str | None:
    """The original's dtype, where its values are the port's rounded to it."""
    place = sides.port[weight]
    origin = sides.right(weight)
    source = sides.original[origin.weight].tensor.dtype
    if source.quantised or source.itemsize >= compared_dtype(place.tensor).itemsize:
        return None
    c = samples(place.sizes, 4096)
    found = rounded(sides.found(weight, origin.reading, c), source)
    right = sides.as_stored(sides.comes_from(weight, origin, c), (), origin.weight, weight)
    return dtype_word(source) if same(found, right).all() else None


def _few(sides: Sides, weight: Weight, unlike: Unlike) -> str:
    place = sides.port[weight]
    origin = sides.right(weight)
    total = math.prod(place.sizes)
    step = 1 << 19
    told: list[str] = []
    for start in range(unlike.first - unlike.first % step, total, step):
        c = in_order(np.arange(start, min(start + step, total)), place.sizes, place.order)
        found = sides.found(weight, origin.reading, c)
        expected = sides.as_stored(sides.comes_from(weight, origin, c), (), origin.weight, weight)
        for at in np.flatnonzero(~same(found, expected)):
            told.append(f"{float(found[at]):.9g}, not {float(expected[at]):.9g}")
        if len(told) >= unlike.elements:
            break
    number = "1 value is" if unlike.elements == 1 else f"{unlike.elements} values are"
    return f"{number} another: {'; '.join(told[:_FEW])}"


def _lines(
    order: Sequence[int], unlike: Unlike, rows: int, columns: int, axes: Sequence[str]
) -> list[tuple[int, str, list[int], int]]:
    """The outermost and the innermost axis, where there are several, and which of their steps differ."""
    found = []
    if len(order) > 1:
        for axis, steps, size in ((order[0], unlike.rows, rows), (order[-1], unlike.columns, columns)):
            word = "row" if axis == order[0] else "column"
            word = WORDS.get(axes[axis], word)
            found.append((axis, word, sorted(steps), size))
    return found


def _listed(what: str, places: Sequence[int]) -> str:
    spans: list[list[int]] = []
    for place in places:
        if spans and place == spans[-1][1] + 1:
            spans[-1][1] = place
        else:
            spans.append([place, place])
    texts = [str(a) if a == b else f"{a} to {b}" for a, b in spans]
    more = f" and {len(texts) - 4} more ranges" if len(texts) > 4 else ""
    many = len(places) > 1
    return f"{what}{'s' if many else ''} {', '.join(texts[:4])}{more} {'hold' if many else 'holds'}"


def _constant(sides: Sides, weight: Weight) -> str | None:
    """A factor or a summand that makes the port's values, where there is one."""
    place = sides.port[weight]
    origin = sides.right(weight)
    c = samples(place.sizes, 4096)
    found = sides.found(weight, origin.reading, c).astype(np.float64)
    right = sides.as_stored(sides.comes_from(weight, origin, c), (), origin.weight, weight).astype(np.float64)
    if len(found) < 3 or not (np.isfinite(found).all() and np.isfinite(right).all()) or right.std() == 0:
        return None
    dtype = compared_dtype(place.tensor)
    if _as_good_as(right, found):
        # Rounding explains as much, and no constant does more.
        return None
    factor = float((found * right).sum() / (right * right).sum())
    summand = float((found - right).mean())
    # What is not one number to a few digits is no constant that somebody wrote.
    for operation in (Operation("multiply", factor), Operation("add", summand)):
        for digits in (9, 4, 2):
            operand = float(f"{operation.value:.{digits}g}")
            made: Values = rounded(operation._replace(value=operand).apply(right).astype(np.float32), dtype)
            if _as_good_as(made, found) and operand not in (0.0, 1.0):
                verb = "multiplied by" if operation.kind == "multiply" else "with a constant added:"
                return f"{verb} {operand:.6g}"
    return None


def _as_good_as(made: Values, found: Values) -> bool:
    return bool((np.abs(made - found) <= 2e-6 * np.maximum(1.0, np.abs(found))).all())


def _corner(sides: Sides, weight: Weight) -> tuple[int | None, float, float] | None:
    """Of a part of the weight: the rank of the difference where it is low, its size as a part of the values'
    spread, and the correlation of the two sides."""
    place = sides.port[weight]
    origin = sides.right(weight)
    axes = [axis for axis, size in enumerate(place.sizes) if size > 1]
    if not axes:
        return None
    last = axes[-1]
    outer = tuple(1 if axis == last else size for axis, size in enumerate(place.sizes))
    rows = math.prod(outer)
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, _CORNER)).astype(np.int64))
    picked = np.unique(
        np.linspace(0, place.sizes[last] - 1, min(place.sizes[last], _CORNER)).astype(np.int64)
    )
    c = np.repeat(in_order(chosen, outer, range(len(outer)))[:, :, None], len(picked), axis=2)
    c[last] = picked[None, :]
    flat = c.reshape(len(place.sizes), -1)
    found = sides.found(weight, origin.reading, flat).astype(np.float64)
    right = sides.as_stored(sides.comes_from(weight, origin, flat), (), origin.weight, weight).astype(
        np.float64
    )
    if not (np.isfinite(found).all() and np.isfinite(right).all()):
        return None
    apart = (found - right).reshape(len(chosen), len(picked))
    spread = float(right.std()) or 1.0
    both: Any = np.corrcoef(found, right) if found.std() and right.std() and len(found) > 2 else None
    correlation = float(both[0, 1]) if both is not None else 0.0
    low = low_rank(apart) if min(apart.shape) >= _LEAST_SIDE and abs(correlation) >= _ALIKE else None
    return low[0] if low else None, float(apart.std()) / spread, correlation
