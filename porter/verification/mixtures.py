"""A weight that is a weighted sum of two layers': what is left of them where a model was made shallower."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from porter.verification.samples import samples
from porter.verification.sides import Origin, Sides
from porter.verification.weight_places import Weight

# Elements that decide; how far each may be from the sum, as a part of the largest distance from the right
# one; and the least share of the other layer. Norms of any two layers are alike.
_NUMBER, _CLOSE, _LEAST = 2048, 0.01, 0.05

LAYER = "layer"


def of_two_layers(sides: Sides, weight: Weight) -> str | None:
    """The words for a sum of a weight's own layer and one beside it, where samples of the port are one."""
    place = sides.port[weight]
    c = samples(place.sizes, _NUMBER)
    origin = sides.right(weight)
    found = sides.found(weight, origin.reading, c).astype(np.float64)
    own = sides.as_stored(sides.comes_from(weight, origin, c), (), origin.weight, weight).astype(np.float64)
    apart = float(np.abs(found - own).max(initial=0.0))
    if len(found) < 16 or not (0 < apart < np.inf and np.isfinite(found).all()):
        return None
    for layer, other in _beside(sides, origin.weight):
        source = Origin(origin.reading, other)
        values = sides.as_stored(sides.comes_from(weight, source, c), (), other, weight).astype(np.float64)
        if not np.isfinite(values).all():
            continue
        parts = np.stack([own, values], axis=1)
        shares, _, rank, _ = np.linalg.lstsq(parts, found, rcond=None)
        if rank == 2 and np.abs(parts @ shares - found).max() <= _CLOSE * apart and abs(shares[1]) >= _LEAST:
            if np.allclose(shares, 0.5, atol=_CLOSE):
                return f"is the average with layer {layer}'s"
            return f"is {shares[0]:.3g} of its own and {shares[1]:.3g} of layer {layer}'s"
    return None


def _beside(sides: Sides, weight: Weight) -> Iterator[tuple[int, Weight]]:
    """The same weight of the next layer and of the one before."""
    if LAYER not in weight.indices:
        return
    at = list(weight.indices).index(LAYER)
    for step in (1, -1):
        layer = weight.point[at] + step
        other = weight._replace(point=(*weight.point[:at], layer, *weight.point[at + 1 :]))
        if other in sides.original and sides.original[other].signature == sides.original[weight].signature:
            yield layer, other
