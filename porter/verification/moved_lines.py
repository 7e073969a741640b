"""Rows or columns of a weight that have changed places: which one of the original each one is.

A line is one step of an axis, or of several axes taken together (a row of a matrix whose rows are heads and
their dims). Each is told by a hash of some of its elements, so that the lines of both sides are matched by
sorting, however many there are. What is found so is then compared in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from porter.verification.samples import Coordinates, from_places, samples
from porter.verification.sides import Sides, Unlike
from porter.verification.stored_values import Values
from porter.verification.weight_places import Place, Weight

Lines = NDArray[np.int64]
Hashes = NDArray[np.uint64]

# Elements of a line that its hash is of: more of few lines, since those are soon read.
_FEW_LINES, _LONG, _SHORT = 32768, 48, 16

# Elements that are looked up at once, and what the lines that they are of have: that many may be mapped.
_PIECE, _SPAN = 1 << 19, 4 << 20

# Of the lines that differ: so many may be found nowhere, and of all elements so many may differ afterwards.
_LOST = 0.02


@dataclass(frozen=True)
class Moved:
    """`holds` gives the line of the original that each line of the port is, along `axes` taken together.

    `beside` is what differs even so.
    """

    axes: tuple[int, ...]
    holds: Lines
    beside: Unlike


def moved_lines(sides: Sides, weight: Weight, axes: tuple[int, ...], *, number: int | None) -> Moved | None:
    """Which lines have changed places, where that explains nearly all that differs.

    It is proved by `number` samples, or by all elements.
    """
    place, origin = sides.port[weight], sides.right(weight)
    inner = _inner(place, axes)
    found = _hashes(place, axes, inner, lambda c: sides.found(weight, origin.reading, c))
    right = _hashes(place, axes, inner, _expected(sides, weight))
    size = len(found)
    holds = np.arange(size)
    at = np.flatnonzero(found != right)
    if len(at) < 2:
        return None
    to, hits = _looked_up(found[at], right)
    if hits.sum() < 2 or (~hits).sum() > _LOST * len(at):
        return None
    shifts, counts = np.unique((to - at)[hits] % size, return_counts=True)
    likely = int(shifts[np.argmax(counts)])
    # Lines of equal content, such as those of unused tokens, are found elsewhere; a rotation fits them too.
    if likely and (found == np.roll(right, -likely)).mean() >= 1 - _LOST:
        holds = (holds + likely) % size
    else:
        holds[at[hits]] = to[hits]
    beside = sides.unlike(weight, origin, number, (axes, holds))
    return Moved(axes, holds, beside) if beside.elements <= _LOST * beside.of else None


def lines_of_others(sides: Sides, weight: Weight) -> list[str]:
    """The weights of the same layer that rows of this one are of, where nearly all rows are found in one.

    Only by samples. Its own name may be among them.
    """
    place, origin = sides.port[weight], sides.right(weight)
    axes = tuple(place.long[:-1])
    if not axes:
        return []
    inner = _inner(place, axes)
    left = _hashes(place, axes, inner, lambda c: sides.found(weight, origin.reading, c))
    whole, names = len(left), []
    for other in (origin.weight, *_siblings(sides, origin.weight)):
        lies = sides.original[other]
        if lies.sizes[lies.long[-1]] != place.sizes[axes_last := place.long[-1]]:
            continue
        columns = np.zeros((len(lies.axes), inner.shape[1]), np.int64)
        columns[lies.long[-1]] = inner[axes_last]
        held = _hashes(lies, tuple(lies.long[:-1]), columns, _expected(sides, weight, other))
        hits = _looked_up(left, held)[1]
        if hits.any():
            names.append(other.canonical)
            left = left[~hits]
    return names if len(left) <= _LOST * whole else []


def _siblings(sides: Sides, weight: Weight) -> Iterator[Weight]:
    for other, place in sides.original.items():
        same = other.canonical != weight.canonical and other.point == weight.point
        if same and len(place.long) > 1:
            yield other


def _expected(sides: Sides, weight: Weight, other: Weight | None = None) -> Callable[[Coordinates], Values]:
    """What the port would store of the original, or of another weight of it, at coordinates of that."""
    origin = sides.right(weight)
    if other is None or other == origin.weight:
        return lambda c: sides.as_stored(sides.comes_from(weight, origin, c), (), origin.weight, weight)
    long = sides.original[other].long
    return lambda c: sides.as_stored(sides.canonical(other, c[long]), (), other, weight)


def _inner(place: Place, axes: tuple[int, ...]) -> Coordinates:
    """Which elements of each line are looked at."""
    size = math.prod(place.sizes[axis] for axis in axes)
    others = tuple(1 if at in axes else number for at, number in enumerate(place.sizes))
    return samples(others, _LONG if size <= _FEW_LINES else _SHORT)


def _hashes(
    place: Place, axes: tuple[int, ...], inner: Coordinates, of: Callable[[Coordinates], Values]
) -> Hashes:
    """A hash of each line, of the values that `of` gives for coordinates."""
    sizes = [place.sizes[axis] for axis in axes]
    size, width = math.prod(sizes), inner.shape[1]
    factors = np.random.default_rng(width).integers(1, 1 << 63, width, np.uint64) | np.uint64(1)
    made = np.empty(size, np.uint64)
    whole = math.prod(place.sizes) // max(1, size)
    step = max(1, min(_PIECE // width, _SPAN // max(1, whole)))
    for start in range(0, size, step):
        lines = np.arange(start, min(start + step, size))
        c = np.repeat(inner[:, None, :], len(lines), axis=1)
        c[list(axes)] = from_places(lines, sizes)[:, :, None]
        words = (of(c.reshape(len(c), -1)).astype(np.float32) + np.float32(0)).view(np.uint32)
        made[lines] = (words.reshape(len(lines), width) * factors).sum(axis=1, dtype=np.uint64)
    return made


def _looked_up(wanted: Hashes, among: Hashes) -> tuple[Lines, NDArray[np.bool_]]:
    """Where each hash stands among others, the first where it does so twice, and whether it does at all."""
    order = np.argsort(among, kind="stable")
    places = np.minimum(np.searchsorted(among[order], wanted), len(among) - 1)
    return order[places], among[order][places] == wanted
