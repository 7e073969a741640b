"""Which elements of a weight are looked at first: the same for all weights of one shape, from a fixed seed.

Elements come in clusters along the last axis, spread over the rest: a cluster costs about as much reading as
one of its elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Elements of a cluster.
CLUSTER = 16

Coordinates = NDArray[np.int64]


@cache
def samples(sizes: tuple[int, ...], number: int) -> Coordinates:
    """About `number` elements of an index space: coordinates, a row an axis; all of a small one."""
    total = math.prod(sizes)
    if total <= number:
        return from_places(np.arange(total), sizes)
    draw: Any = np.random.default_rng([number, *sizes])
    last = sizes[-1]
    length = min(CLUSTER, last)
    starts = draw.integers(0, total // last, number // length) * last
    starts += draw.integers(0, last - length + 1, number // length)
    places = np.unique((starts[:, None] + np.arange(length)).reshape(-1))
    return from_places(places, sizes)


def from_places(places: NDArray[np.int64], sizes: Sequence[int]) -> Coordinates:
    """Coordinates of elements by their place in row-major order over `sizes`."""
    found = np.empty((len(sizes), len(places)), np.int64)
    for axis in reversed(range(len(sizes))):
        places, found[axis] = np.divmod(places, max(1, sizes[axis]))
    return found


def index_of(place: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The index of one element by its place in row-major order."""
    found = []
    for size in reversed(sizes):
        place, at = divmod(place, size)
        found.append(at)
    return tuple(reversed(found))


def to_places(coordinates: Coordinates, sizes: Sequence[int], order: Sequence[int]) -> NDArray[np.int64]:
    """Places of elements where the axes are nested in `order`, outermost first."""
    found = np.zeros(coordinates.shape[1], np.int64)
    for axis in order:
        found = found * sizes[axis] + coordinates[axis]
    return found


def in_order(places: NDArray[np.int64], sizes: Sequence[int], order: Sequence[int]) -> Coordinates:
    """Coordinates of elements by their place where the axes are nested in `order`."""
    found = np.empty((len(sizes), len(places)), np.int64)
    for axis in reversed(order):
        places, found[axis] = np.divmod(places, max(1, sizes[axis]))
    return found


def addresses(coordinates: Coordinates, offset: int, strides: Sequence[int]) -> NDArray[np.int64]:
    found = np.full(coordinates.shape[1], offset, np.int64)
    for axis, stride in enumerate(strides):
        found += coordinates[axis] * stride
    return found
