"""From tensors that differ to what was done wrong: candidates for each weight, the fewest mistakes for all.

Samples propose, and every element of what is proposed is then compared, but for quick comparisons. What no
known mistake explains is described.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from porter.verification.describe import Description, describe
from porter.verification.known_mistakes import KnownMistake
from porter.verification.search import Candidate, Search
from porter.verification.sides import Sides, Unlike
from porter.verification.weight_places import Weight

# Elements that a proposal has to agree in before all are compared, and what a quick comparison stops at.
SECOND = 4096

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
    sides: Sides, names: Collection[str], known: Sequence[KnownMistake], *, quick: bool = False
) -> list[Explained]:
    """What each weight holds in those of the port's tensors that differ (`names`, the table's).

    Weights that are as they should be are left out.
    """
    search = Search(sides, known)
    found: dict[Weight, list[Candidate]] = {}
    for weight, place in sides.port.items():
        if place.name in names and sides.source_of(weight) in sides.original:
            found[weight] = search.candidates(weight)
    counts = Counter(label for candidates in found.values() for label in {_label(c) for c in candidates})
    explained = []
    for weight, candidates in found.items():
        ordered = sorted(candidates, key=lambda candidate: -counts[_label(candidate)])
        if (one := _explained(sides, weight, ordered, quick)) is not None:
            explained.append(one)
    return explained


def _explained(
    sides: Sides, weight: Weight, candidates: Sequence[Candidate], quick: bool
) -> Explained | None:
    number = SECOND if quick else None
    for candidate in candidates[:8]:
        if not candidate.cost:
            break
        if sides.unlike(weight, candidate.origin, SECOND).elements > 0.1 * SECOND:
            continue
        beside = sides.unlike(weight, candidate.origin, number)
        if not beside.elements:
            return Explained(weight, candidate, proved=not quick)
        if beside.elements <= _BESIDE * beside.of:
            return Explained(weight, candidate, beside, proved=not quick)
    unlike = sides.unlike(weight, sides.right(weight), number)
    if not unlike.elements and (quick or candidates):
        return None
    return Explained(weight, None, unlike, describe(sides, weight, unlike), proved=not quick)


def _label(candidate: Candidate) -> tuple[object, ...]:
    """What is the same for all weights that one mistake was made in."""
    origin = candidate.origin
    said = tuple(known.says for known in candidate.mistakes)
    return (*said, origin.weight.canonical) if candidate.elsewhere else said
