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
from porter.values.numbers import bits, numbers, rounded
from porter.values.operations import undone
from porter.verification.known_mistakes import Step, operand_value
from porter.verification.readings import Reading, right
from porter.verification.samples import Coordinates, addresses, from_places, in_order, samples, to_places
from porter.verification.stored_values import StoredValues, Values, relabelled
from porter.verification.weight_places import Place, Weight

# Elements that are compared at a time where each is looked up by itself.
PIECE = 1 << 19

# Axes taken together, and for each of their steps the one of the original.
Lines = tuple[tuple[int, ...], NDArray[np.int64]]

# Differing rows and columns that are kept.
_MOST_LINES = 1000


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

    def canonical(self, weight: Weight, steps: Coordinates) -> Values:
        """The original's canonical values of a weight, at coordinates along its axes of several steps."""
        place = self.original[weight]
        coordinates = np.zeros((len(place.axes), steps.shape[1]), np.int64)
        coordinates[place.long] = steps
        self.read += coordinates.shape[1] * max(1, place.tensor.dtype.block_bytes)
        values = self.original_values.at(
            place.tensor, addresses(coordinates, place.address.offset, place.strides)
        )
        for operation in undone(place.operations):
            values = operation.apply(values.astype(np.float32))
        return values

    def comes_from(self, weight: Weight, origin: Origin, coordinates: Coordinates) -> Values:
        """The original's canonical values at the coordinates that an origin of the port's weight says."""
        comes = origin.reading.comes(coordinates)[self.port[weight].long]
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
            case "divide":
                return values.astype(np.float32) / np.float32(operand_value(operand, self.hyperparameters))
            case "through":
                return rounded(values, DTYPES[operand])
            case "cut":
                keep = np.uint32(0xFFFFFFFF) << np.uint32(32 - 8 * DTYPES[operand].itemsize)
                cut: Values = (values.astype(np.float32).view(np.uint32) & keep).view(np.float32)
                return cut
        if kind == "swapped" and source == stored and not source.quantised:
            found: Values = numbers(bits(values, source).byteswap(), stored)
            return found
        if kind == "swapped" or source.quantised or source == stored or source.itemsize != stored.itemsize:
            return np.full(values.shape, np.nan, np.float32)
        return relabelled(values, source, stored)

    def unlike(
        self, weight: Weight, origin: Origin, number: int | None = None, moved: Lines | None = None
    ) -> Unlike:
        """How the port's weight differs from what an origin makes of it, in `number` samples or in full.

        `moved` says of steps of axes, taken together, which ones of the original stand there.
        """
        place = self.port[weight]
        tally = _Tally(place)
        if number is None and origin.reading.known is None and self._in_pieces(weight, origin, tally, moved):
            return tally.result()
        for start, coordinates in self._pieces(place, number):
            found = self.found(weight, origin.reading, coordinates)
            comes = coordinates
            if moved is not None:
                comes = _moved(place, coordinates, moved)
            values = self.comes_from(weight, origin, comes)
            expected = self.as_stored(values, origin.steps, origin.weight, weight)
            along = coordinates[place.order_long]
            unequal = ~same(found, expected)
            tally.add(start, found, expected, unequal, [along[at][unequal] for at in (0, -1) if len(along)])
        return tally.result()

    def _in_pieces(self, weight: Weight, origin: Origin, tally: _Tally, moved: Lines | None) -> bool:
        """The same from views of the mapped files, where both sides are plain numbers and in one order."""
        place, source = self.port[weight], self.original[origin.weight]
        order = place.order_long
        if not order or (moved is not None and len(moved[0]) > 1):
            return False
        sizes = [place.sizes[axis] for axis in order]
        # Axes of several steps go together, one by one.
        other = dict(zip(place.long, source.long, strict=True))
        mine, its = place.address.offset, source.address.offset
        port = self.port_values.view(place.tensor, mine, sizes, [place.strides[axis] for axis in order])
        steps = [source.strides[other[axis]] for axis in order]
        original = self.original_values.view(source.tensor, its, sizes, steps)
        if port is None or original is None:
            return False
        start = 0
        for index in _cut(sizes):
            there = (
                original[index]
                if moved is None
                else _taken(original, index, order.index(moved[0][0]), moved[1])
            )
            ours, theirs = np.ascontiguousarray(port[index]), np.ascontiguousarray(there)
            found = numbers(ours.reshape(-1), place.tensor.dtype)
            values = numbers(theirs.reshape(-1), source.tensor.dtype)
            for operation in undone(source.operations):
                values = operation.apply(values.astype(np.float32))
            expected = self.as_stored(values, origin.steps, origin.weight, weight)
            if (found == expected).all():
                tally.right(len(found))
            else:
                unequal = ~same(found, expected)
                tally.add(start, found, expected, unequal, _lines_of(unequal.reshape(ours.shape), index))
            start += len(found)
            for side, piece in ((self.port_values, ours), (self.original_values, theirs)):
                side.give_back(piece.nbytes)
                self.read += piece.nbytes
        return True

    def _pieces(self, place: Place, number: int | None) -> Iterator[tuple[int, Coordinates]]:
        if number is not None:
            yield 0, samples(place.sizes, number)
            return
        total = int(np.prod(place.sizes, dtype=np.int64))
        for start in range(0, total, PIECE):
            places: NDArray[np.int64] = np.arange(start, min(start + PIECE, total))
            yield start, in_order(places, place.sizes, place.order)


class _Tally:
    """Adds up how pieces of a weight differ."""

    def __init__(self, place: Place) -> None:
        self._total = self._count = 0
        self._largest, self._first, self._zero = 0.0, -1, True
        self._rows: set[int] = set()
        self._columns: set[int] = set()

    def right(self, number: int) -> None:
        """So many elements more are as they should be."""
        self._total += number

    def add(
        self,
        start: int,
        found: Values,
        expected: Values,
        unequal: NDArray[np.bool_],
        lines: Sequence[NDArray[np.int64]],
    ) -> None:
        """A piece from place `start` on; `lines` are the rows, and the columns, that hold a difference."""
        self._total += len(found)
        here = int(np.count_nonzero(unequal))
        if not here:
            return
        if self._first < 0:
            self._first = start + int(np.argmax(unequal))
        self._count += here
        with np.errstate(all="ignore"):
            apart = np.abs(found - expected)
            apart[~unequal] = 0
        self._largest = max(self._largest, float(np.fmax.reduce(apart)))
        self._zero = self._zero and not found.any(where=unequal)
        for held, line in zip((self._rows, self._columns), lines, strict=False):
            if len(held) < _MOST_LINES:
                held.update(np.unique(line)[:_MOST_LINES].tolist())

    def result(self) -> Unlike:
        lines = frozenset(self._rows), frozenset(self._columns)
        return Unlike(self._count, self._total, max(self._first, 0), self._largest, *lines, self._zero)


def _moved(place: Place, coordinates: Coordinates, moved: Lines) -> Coordinates:
    """The coordinates of the original where steps of axes have changed places."""
    axes, holds = list(moved[0]), moved[1]
    sizes = [place.sizes[axis] for axis in axes]
    found = coordinates.copy()
    found[axes] = from_places(holds[to_places(coordinates[axes], sizes, range(len(axes)))], sizes)
    return found


def _taken(values: Values, index: tuple[slice, ...], axis: int, lines: NDArray[np.int64]) -> Values:
    """A part of an array, by slices of its first axes, of what stands by `lines` along an axis."""
    if axis >= len(index):
        return np.take(values[index], lines, axis=axis)
    chosen: tuple[Any, ...] = (*index[:axis], lines[index[axis]], *index[axis + 1 :])
    found: Values = values[chosen]
    return found


def _lines_of(unequal: NDArray[np.bool_], index: Sequence[slice]) -> list[NDArray[np.int64]]:
    """Steps of the outermost and of the innermost axis that hold a difference, of a piece at `index`."""
    found = []
    for axis in (0, unequal.ndim - 1):
        others = tuple(at for at in range(unequal.ndim) if at != axis)
        first = (index[axis].start or 0) if axis < len(index) else 0
        found.append(np.flatnonzero(unequal.any(axis=others)) + first)
    return found


def _cut(sizes: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Slices of an array in pieces of about PIECE elements, in its order."""
    inner, axis = 1, len(sizes) - 1
    while axis > 0 and inner * sizes[axis] <= PIECE:
        inner *= sizes[axis]
        axis -= 1
    step = max(1, PIECE // inner)
    for index in np.ndindex(*sizes[:axis]):
        for start in range(0, sizes[axis], step):
            yield (*(slice(at, at + 1) for at in index), slice(start, min(start + step, sizes[axis])))


def same(one: Values, other: Values) -> NDArray[np.bool_]:
    """Equal as values: the two zeros are, and so are NaNs."""
    equal: NDArray[np.bool_] = (one == other) | (np.isnan(one) & np.isnan(other))
    return equal
