"""Which origins make what a weight of the port holds: known mistakes tried on samples, and other weights.

For each reading (the right one, then those of structural mistakes) and each change of values the samples of
all weights of the original with the same axes are held in a table by their bytes, so that the one that a
weight of the port holds is found by a look-up, whichever it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from porter.planning.port_plan import compared_dtype
from porter.verification.known_mistakes import KnownMistake, Step, has_numbers
from porter.verification.readings import Reading, readings, right
from porter.verification.samples import Coordinates, samples
from porter.verification.sides import Origin, Sides, same
from porter.verification.stored_values import Values
from porter.verification.weight_places import Place, Weight

# Elements that are looked at first; two weights that agree in all of them are rarely two.
FIRST = 256

# Steps of values of which two may have been done one after the other, with the mistakes that they are of.
Change = tuple[tuple[KnownMistake, ...], tuple[Step, ...]]


# A reading, and the mistakes that make it.
Way = tuple[Reading, tuple[KnownMistake, ...]]


@dataclass(frozen=True)
class Candidate:
    """An origin that the samples agree with, and the mistakes that it is made of, the fewest first."""

    origin: Origin
    mistakes: tuple[KnownMistake, ...]
    elsewhere: bool

    @property
    def cost(self) -> int:
        return len(self.mistakes) + self.elsewhere


@dataclass
class Search:
    """Tables of samples are kept from weight to weight."""

    sides: Sides
    known: Sequence[KnownMistake]
    _values: dict[tuple[object, ...], dict[Weight, Values]] = field(default_factory=dict)
    _tables: dict[tuple[object, ...], dict[bytes, list[Weight]]] = field(default_factory=dict)
    _by_signature: dict[tuple[object, ...], list[Weight]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found: dict[tuple[object, ...], list[Weight]] = defaultdict(list)
        for weight, place in self.sides.original.items():
            found[place.signature].append(weight)
        self._by_signature = dict(found)

    def candidates(self, weight: Weight, coordinates: Coordinates | None = None) -> list[Candidate]:
        """The cheapest origins of a weight, those nearest to the right one first, by samples of it."""
        place = self.sides.port[weight]
        if coordinates is None:
            coordinates = samples(place.sizes, FIRST)
        straight: list[Way] = [(right(place), ())]
        turned: list[Way] = [
            (reading, (reading.known,)) for reading in self._readings(weight, place) if reading.known
        ]
        plain: list[Change] = [((), ())]
        single, double = self._changes(weight)
        # The fewest mistakes that a stage can find, and what it tries. What costs no more than what was found
        # already is tried as well: the other weights decide between them.
        stages = (
            (0, straight, plain),
            (1, straight, single),
            (1, turned, plain),
            (2, turned, single),
            (2, straight, double),
            (3, turned, double),
        )
        # Several changes one after the other make zeros of many a weight: they explain none.
        zeros = not self.sides.found(weight, right(place), coordinates).any()
        hits: list[Candidate] = []
        best: int | None = None
        for least, ways, changes in stages:
            if (best is not None and least > best) or (zeros and least > 1):
                break
            hits += [
                candidate
                for reading, mistakes in ways
                for candidate in self._hits(weight, place, reading, mistakes, changes, coordinates)
            ]
            best = min((candidate.cost for candidate in hits), default=None)
        if zeros:
            hits = [candidate for candidate in hits if candidate.cost < 2]
            best = min((candidate.cost for candidate in hits), default=None)
        elif not hits:
            twice = self._twice(weight, place)
            hits = [
                hit for way, made in twice for hit in self._hits(weight, place, way, made, plain, coordinates)
            ]
            best = min((candidate.cost for candidate in hits), default=None)
        # In the order of the table, so that of two that make the same all layers get the same name.
        found = dict.fromkeys(candidate for candidate in hits if candidate.cost == best)
        return sorted(found, key=lambda candidate: self._distance(weight, candidate))

    def _distance(self, weight: Weight, candidate: Candidate) -> tuple[object, ...]:
        origin = candidate.origin.weight
        return (
            candidate.cost,
            candidate.elsewhere,
            origin.canonical != weight.canonical,
            origin.point != weight.point,
            len(candidate.mistakes),
            origin,
        )

    def _readings(self, weight: Weight, place: Place) -> Iterator[Reading]:
        source = self.sides.original.get(self.sides.source_of(weight))
        for known in self.known:
            if known.structural:
                yield from readings(known, weight, place, source, self.sides.sizes)

    def _twice(self, weight: Weight, place: Place) -> Iterator[Way]:
        """Two structural mistakes, one after the other."""
        every = [reading for reading in self._readings(weight, place) if reading.which is None]
        for one in every:
            for other in every:
                assert one.known is not None and other.known is not None
                if one.known is other.known:
                    continue

                def comes(c: Coordinates, one: Reading = one, other: Reading = other) -> Coordinates:
                    return other.comes(one.comes(c))

                yield Reading(one.known, one.look, comes), (one.known, other.known)

    def _changes(self, weight: Weight) -> tuple[list[Change], list[Change]]:
        concerned = [
            known
            for known in self.known
            if known.steps
            and known.concerns(weight.canonical)
            and has_numbers(known, self.sides.hyperparameters)
        ]
        single: list[Change] = [((known,), known.steps) for known in concerned]
        last = [known for known in concerned if known.steps[-1][0] in ("through", "cut")]
        double: list[Change] = [
            ((first, second), first.steps + second.steps)
            for first in concerned
            for second in last
            if first is not second and first not in last
        ]
        return single, double

    def _hits(
        self,
        weight: Weight,
        place: Place,
        reading: Reading,
        mistakes: tuple[KnownMistake, ...],
        changes: Sequence[Change],
        coordinates: Coordinates,
    ) -> Iterator[Candidate]:
        found = _clean(self.sides.found(weight, reading, coordinates))
        own = self.sides.source_of(weight)
        for known, steps in changes:
            if reading.which is not None:
                origin = Origin(reading, own, steps)
                try:
                    values = self.sides.comes_from(weight, origin, coordinates)
                except KeyError:
                    continue
                expected = self.sides.as_stored(values, steps, own, weight)
                if same(found, expected).all():
                    yield Candidate(origin, mistakes + known, False)
                continue
            key = found.tobytes()
            for other in self._table(weight, place, reading, steps, coordinates).get(key, ()):
                # Another block of the same tensor, where it should be: the two mistakes undo each other.
                if other != own and reading.known is not None and reading.known.layout is not None:
                    continue
                yield Candidate(Origin(reading, other, steps), mistakes + known, other != own)

    def _table(
        self,
        weight: Weight,
        place: Place,
        reading: Reading,
        steps: tuple[Step, ...],
        coordinates: Coordinates,
    ) -> dict[bytes, list[Weight]]:
        """The weights of the original by the bytes of what the port would store of them."""
        comes = reading.comes(coordinates)
        where = (place.signature, comes.tobytes())
        stored = compared_dtype(place.tensor).name
        key = (*where, stored, place.operations, tuple((kind, str(operand)) for kind, operand in steps))
        if key in self._tables:
            return self._tables[key]
        if where not in self._values:
            self._values[where] = {
                other: self.sides.canonical(other, comes[place.long])
                for other in self._by_signature.get(place.signature, ())
            }
        table: dict[bytes, list[Weight]] = {}
        for other, values in self._values[where].items():
            made = _clean(self.sides.as_stored(values, steps, other, weight))
            table.setdefault(made.tobytes(), []).append(other)
        self._tables[key] = table
        return table


def _clean(values: Values) -> Values:
    """With one zero and one NaN, so that equal values have equal bytes."""
    found: Values = np.where(np.isnan(values), np.float32("nan"), values + np.float32(0)).astype(values.dtype)
    return found
