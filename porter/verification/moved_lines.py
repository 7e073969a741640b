"""Rows or columns of a weight that have changed places: which one of the original each one is.

Every line is told by a hash of some of its elements, so that lines of both sides are matched by sorting,
however many there are. What is found so is then compared in full.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from porter.verification.samples import Coordinates, samples
from porter.verification.sides import Origin, Sides, Unlike
from porter.verification.weight_places import Weight

Lines = NDArray[np.int64]

# Elements of a line that its hash is of: more of few lines, since those are soon read.
_FEW_LINES, _LONG, _SHORT = 32768, 48, 16

# Elements that are looked up at once.
_PIECE = 1 << 19

# Of the lines that differ: so many may be found nowhere, and of all elements so many may differ afterwards.
_LOST = 0.02


@dataclass(frozen=True)
class Moved:
    """`holds` gives the line of the original that each line of the port is; `shift` where it is a rotation.

    `beside` is what differs even so.
    """

    holds: Lines
    shift: int | None
    beside: Unlike


def moved_lines(sides: Sides, weight: Weight, axis: int, *, number: int | None) -> Moved | None:
    """Which lines along an axis have changed places, where that explains nearly all that differs.

    It is proved by `number` samples, or by all elements.
    """
    place = sides.port[weight]
    origin = sides.right(weight)
    size = place.sizes[axis]
    others = tuple(1 if at == axis else number for at, number in enumerate(place.sizes))
    inner = samples(others, _LONG if size <= _FEW_LINES else _SHORT)
    found, right = _hashes(sides, weight, origin, axis, inner)
    holds = np.arange(size)
    shift = None
    at = np.flatnonzero(found != right)
    if len(at) < 2:
        return None
    order = np.argsort(right, kind="stable")
    places = np.minimum(np.searchsorted(right[order], found[at]), size - 1)
    hits = right[order][places] == found[at]
    if hits.sum() < 2 or (~hits).sum() > _LOST * len(at):
        return None
    to = order[places]
    shifts, counts = np.unique((to - at)[hits] % size, return_counts=True)
    likely = int(shifts[np.argmax(counts)])
    # Lines of equal content, such as those of unused tokens, are found elsewhere; a rotation fits them too.
    if (found == np.roll(right, -likely)).mean() >= 1 - _LOST and likely:
        shift, holds = likely, (holds + likely) % size
    else:
        holds[at[hits]] = to[hits]
    beside = sides.unlike(weight, origin, number, (axis, holds))
    return Moved(holds, shift, beside) if beside.elements <= _LOST * beside.of else None


def _hashes(
    sides: Sides, weight: Weight, origin: Origin, axis: int, inner: Coordinates
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """A hash of each line, of the port and of what it should hold."""
    size, width = sides.port[weight].sizes[axis], inner.shape[1]
    draw = np.random.default_rng(width)
    factors = draw.integers(1, 1 << 63, width, np.uint64) | np.uint64(1)
    found, right = np.empty(size, np.uint64), np.empty(size, np.uint64)
    step = max(1, _PIECE // width)
    for start in range(0, size, step):
        lines = np.arange(start, min(start + step, size))
        c = np.repeat(inner[:, None, :], len(lines), axis=1)
        c[axis] = lines[:, None]
        flat = c.reshape(len(c), -1)
        there = sides.found(weight, origin.reading, flat)
        values = sides.comes_from(weight, origin, flat)
        expected = sides.as_stored(values, (), origin.weight, weight)
        for made, of in ((found, there), (right, expected)):
            words = (of.astype(np.float32) + np.float32(0)).view(np.uint32)
            made[lines] = (words.reshape(len(lines), width) * factors).sum(axis=1, dtype=np.uint64)
    return found, right


def in_words(what: str, moved: Moved) -> str:
    """`rotated by -1`, or which lines hold which."""
    size = len(moved.holds)
    if moved.shift is not None:
        said = f"rotated by {moved.shift if moved.shift <= size // 2 else moved.shift - size}"
    else:
        at = np.flatnonzero(moved.holds != np.arange(size))
        shown = [f"{number} holds {moved.holds[number]}" for number in at[:3].tolist()]
        said = f"{what} {', '.join(shown)}" + (f" and {len(at) - 3:,} more" if len(at) > 3 else "")
    beside = moved.beside.elements
    return f"{what}s have changed places: {said}" + (f"; {beside:,} values differ besides" if beside else "")
