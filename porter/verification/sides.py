"""Both sides of a comparison, weight by weight: what the original holds, and what the port does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from porter.dtypes import DTYPES, Dtype
from porter.planning.port_plan import compared_dtype
from porter.tables.bind import Sizes
from porter.values.operations import undone
from porter.verification.known_mistakes import Step, operand_value
from porter.verification.readings import Reading, right
from porter.verification.samples import Coordinates, addresses, in_order, samples
from porter.verification.stored_values import StoredValues, Values, relabelled, rounded
from porter.verification.weight_places import Place, Weight

# Elements that are compared at a time where each is looked up by itself.
PIECE = 1 << 19


@dataclass(frozen=True)
class Origin:
    """What a weight of the port holds: the original's `weight`, read as `reading` says, after `steps`."""

    reading: Reading
    weight: Weight
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Unlike:
    """How a weight differs from what an origin makes of it. `first` is a place in the port's own order.

    `rows` are the steps of its outermost axis, `columns` those of its innermost one, that hold a difference,
    up to a thousand each; `largest` is the largest |difference|, `zero` whether the port's side is zero
    wherever it differs.
    """

    elements: int
    of: int
    first: int = 0
    largest: float = 0.0
    rows: frozenset[int] = frozenset()
    columns: frozenset[int] = frozenset()
    zero: bool = False


@dataclass
class Sides:
    """`alias` gives the weight that another is read from (a tied head from the embedding)."""

    original: Mapping[Weight, Place]
    port: Mapping[Weight, Place]
    original_values: StoredValues
    port_values: StoredValues
    alias: Mapping[str, str]
    sizes: Sizes
    hyperparameters: Mapping[str, Any]
    read: int = field(default=0)

    def close(self) -> None:
        self.original_values.close()
        self.port_values.close()

    def source_of(self, weight: Weight) -> Weight:
        """The weight of the original that a right port's weight is read from."""
        return Weight(self.alias.get(weight.canonical, weight.canonical), weight.point)

    def right(self, weight: Weight) -> Origin:
        return Origin(right(self.port[weight]), self.source_of(weight))

    def found(self, weight: Weight, reading: Reading, coordinates: Coordinates) -> Values:
        """What the port holds of a weight."""
        place = self.port[weight]
        self.read += coordinates.shape[1] * max(1, place.tensor.dtype.block_bytes)
        return self.port_values.at(place.tensor, reading.look(coordinates))

    def canonical(self, weight: Weight, coordinates: Coordinates) -> Values:
        """The original's canonical values of a weight."""
        place = self.original[weight]
        self.read += coordinates.shape[1] * max(1, place.tensor.dtype.block_bytes)
        values = self.original_values.at(
            place.tensor, addresses(coordinates, place.address.offset, place.strides)
        )
        for operation in undone(place.operations):
            values = operation.apply(values.astype(np.float32))
        return values

    def comes_from(self, origin: Origin, coordinates: Coordinates) -> Values:
        """The original's canonical values at the coordinates that an origin says."""
        comes = origin.reading.comes(coordinates)
        if origin.reading.which is None:
            return self.canonical(origin.weight, comes)
        which = origin.reading.which(coordinates)
        values: Values = np.empty(len(which), np.float32)
        for number, name in enumerate(origin.reading.stacked):
            mask = which == number
            if mask.any():
                values[mask] = self.canonical(Weight(name, origin.weight.point), comes[:, mask])
        return values

    def as_stored(self, values: Values, steps: Sequence[Step], origin: Weight, weight: Weight) -> Values:
        """Canonical values of `origin` after `steps` as the port would store them for `weight`."""
        place = self.port[weight]
        stored = compared_dtype(place.tensor)
        for kind, operand in steps:
            values = self._step(values, kind, operand, self.original[origin].tensor.dtype, stored)
        for operation in place.operations:
            values = operation.apply(values.astype(np.float32))
        return rounded(values, stored)

    def _step(self, values: Values, kind: str, operand: Any, source: Dtype, stored: Dtype) -> Values:
        match kind:
            case "add":
                return values.astype(np.float32) + np.float32(operand_value(operand, self.hyperparameters))
            case "multiply":
                return values.astype(np.float32) * np.float32(operand_value(operand, self.hyperparameters))
            case "through":
                return rounded(values, DTYPES[operand])
            case "cut":
                keep = np.uint32(0xFFFFFFFF) << np.uint32(32 - 8 * DTYPES[operand].itemsize)
                cut: Values = (values.astype(np.float32).view(np.uint32) & keep).view(np.float32)
                return cut
        if source.quantised or source == stored or source.itemsize != stored.itemsize:
            return np.full(values.shape, np.nan, np.float32)
        return relabelled(values, source, stored)

    def unlike(self, weight: Weight, origin: Origin, number: int | None = None) -> Unlike:
        """How the port's weight differs from what an origin makes of it, in `number` samples or in full."""
        place = self.port[weight]
        count, largest, first = 0, 0.0, -1
        rows: set[int] = set()
        columns: set[int] = set()
        zero = True
        total = 0
        for start, coordinates in self._pieces(place, number):
            total += coordinates.shape[1]
            found = self.found(weight, origin.reading, coordinates)
            values = self.comes_from(origin, coordinates)
            expected = self.as_stored(values, origin.steps, origin.weight, weight)
            unequal = ~same(found, expected)
            here = int(unequal.sum())
            if not here:
                continue
            if first < 0:
                first = start + int(np.flatnonzero(unequal)[0])
            count += here
            with np.errstate(all="ignore"):
                apart = np.abs(found[unequal].astype(np.float64) - expected[unequal])
            largest = max(largest, float(np.nanmax(apart)) if not np.isnan(apart).all() else float("nan"))
            zero = zero and not found[unequal].any()
            order = place.order
            if order:
                for held, axis in ((rows, order[0]), (columns, order[-1])):
                    if len(held) < 1000:
                        held.update(np.unique(coordinates[axis][unequal])[:1000].tolist())
        return Unlike(count, total, max(first, 0), largest, frozenset(rows), frozenset(columns), zero)

    def _pieces(self, place: Place, number: int | None) -> Iterator[tuple[int, Coordinates]]:
        if number is not None:
            yield 0, samples(place.sizes, number)
            return
        total = int(np.prod(place.sizes, dtype=np.int64))
        for start in range(0, total, PIECE):
            places: NDArray[np.int64] = np.arange(start, min(start + PIECE, total))
            yield start, in_order(places, place.sizes, place.order)


def same(one: Values, other: Values) -> NDArray[np.bool_]:
    """Equal as values: the two zeros are, and so are NaNs."""
    equal: NDArray[np.bool_] = (one == other) | (np.isnan(one) & np.isnan(other))
    return equal
