"""From tensors that differ to what was done wrong: candidates for each weight, the fewest mistakes for all.

Samples propose, and every element of what is proposed is then compared, but for quick comparisons. What no
known mistake explains is described.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from porter.execution.sinks.compare import Differing
from porter.verification.describe import Description, describe
from porter.verification.known_mistakes import KnownMistake
from porter.verification.samples import Coordinates, samples
from porter.verification.search import FIRST, Candidate, Search
from porter.verification.sides import Sides, Unlike, same
from porter.verification.weight_places import Weight

# Elements that a proposal has to agree in before all are compared, and what a quick comparison stops at.
SECOND = 4096

# Elements that differing ones are looked for among, and how many of them say something.
_MANY, _LEAST = 1 << 16, 8

# Of the elements of a weight: so many may differ from what a mistake makes, and it is that mistake.
_BESIDE = 0.02


@dataclass(frozen=True)
class Explained:
    """What a weight of the port holds, as far as it was found out.

    `candidate` is None where nothing known makes it; `beside` is how it differs from that even so, and
    `description` says what is left. `proved` says that all elements were compared.
    """

    weight: Weight
    candidate: Candidate | None
    beside: Unlike | None = None
    description: Description | None = None
    proved: bool = True


def explain(
    sides: Sides, differing: Mapping[str, Differing], known: Sequence[KnownMistake], *, quick: bool = False
) -> list[Explained]:
    """What each weight holds in those of the port's tensors that differ, by the table's names.

    Weights that are as they should be are left out.
    """
    search = Search(sides, known)
    found: dict[Weight, list[Candidate]] = {}
    for weight, place in sides.port.items():
        if place.name not in differing or sides.source_of(weight) not in sides.original:
            continue
        found[weight] = search.candidates(weight)
        if found[weight] and not found[weight][0].cost:
            # Rounding, for one, may change one value of a hundred.
            chosen = _unequal(sides, weight)
            if chosen is not None:
                found[weight] = search.candidates(weight, chosen)
    counts = Counter(label for candidates in found.values() for label in {_label(c) for c in candidates})
    explained = []
    for weight, candidates in found.items():
        ordered = sorted(candidates, key=lambda candidate: -counts[_label(candidate)])
        wrong = None if quick else differing[sides.port[weight].name].elements
        if (one := _explained(sides, weight, ordered, wrong)) is not None:
            explained.append(one)
    return explained


def _explained(
    sides: Sides, weight: Weight, candidates: Sequence[Candidate], wrong: int | None
) -> Explained | None:
    """`wrong` is how many elements of its tensor differ; None where samples are all that is looked at."""
    quick = wrong is None
    number = SECOND if quick else None
    for candidate in candidates[:8]:
        if not candidate.cost:
            break
        if sides.unlike(weight, candidate.origin, SECOND).elements > 0.1 * SECOND:
            continue
        beside = sides.unlike(weight, candidate.origin, number)
        if not beside.elements:
            return Explained(weight, candidate, proved=not quick)
        # What leaves most of the difference is no explanation of it.
        if beside.elements <= _BESIDE * min(beside.of, beside.of if wrong is None else wrong):
            return Explained(weight, candidate, beside, proved=not quick)
    unlike = sides.unlike(weight, sides.right(weight), number)
    if not unlike.elements and (quick or candidates):
        return None
    return Explained(weight, None, unlike, describe(sides, weight, unlike, number), proved=not quick)


def _unequal(sides: Sides, weight: Weight) -> Coordinates | None:
    """Samples of a weight half of which differ; None where hardly one of many does."""
    place = sides.port[weight]
    origin = sides.right(weight)
    c = samples(place.sizes, _MANY)
    values = sides.comes_from(weight, origin, c)
    expected = sides.as_stored(values, (), origin.weight, weight)
    unequal = np.flatnonzero(~same(sides.found(weight, origin.reading, c), expected))
    if len(unequal) < _LEAST:
        return None
    return np.concatenate([c[:, unequal[: FIRST // 2]], samples(place.sizes, FIRST // 2)], axis=1)


def _label(candidate: Candidate) -> tuple[object, ...]:
    """What is the same for all weights that one mistake was made in."""
    origin = candidate.origin
    said = tuple(known.says for known in candidate.mistakes)
    return (*said, origin.weight.canonical) if candidate.elsewhere else said
