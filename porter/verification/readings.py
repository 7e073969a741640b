"""Where a port's elements come from, if a structural mistake was made: one reading for each way to make it.

A reading says which elements of the port's file to look at for some coordinates of a weight, and at which
coordinates of the original these come from. The right one looks where the table says, and comes from there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from porter.errors import PorterError
from porter.layout import AddressMap, bind
from porter.tables.bind import Sizes
from porter.verification.known_mistakes import KnownMistake
from porter.verification.samples import Coordinates, addresses, in_order, to_places
from porter.verification.weight_places import Place, Weight

Places = NDArray[np.int64]

# More stored dims than this are only turned round whole.
_MOST_DIMS = 3


@dataclass(frozen=True)
class Reading:
    """`look(coordinates)` are places in the port's tensor; `comes(coordinates)` coordinates of the original.

    With a `stack` elements come from several tensors: it gives for each coordinate which one of `stacked`.
    """

    known: KnownMistake | None
    look: Callable[[Coordinates], Places]
    comes: Callable[[Coordinates], Coordinates]
    stacked: tuple[str, ...] = ()
    which: Callable[[Coordinates], Places] | None = None


def right(place: Place) -> Reading:
    """Without a mistake."""
    return Reading(None, _looker(place), lambda coordinates: coordinates)


def readings(
    known: KnownMistake, weight: Weight, port: Place, original: Place | None, sizes: Sizes
) -> Iterator[Reading]:
    """The ways to make a mistake in a weight, as it lies in the port and, where it is there, the original."""
    if not known.concerns(weight.canonical):
        return
    look = _looker(port)
    if known.exchange is not None:
        for comes in _exchanged(known.exchange, port):
            yield Reading(known, look, comes)
    elif known.reshaped:
        for comes in _reshaped(port, original):
            yield Reading(known, look, comes)
    elif known.reverse:
        for turned in _turned(port):
            yield Reading(known, turned, lambda coordinates: coordinates)
        # A matrix as the field has it, outputs before inputs, was turned before it was stored another way.
        every = tuple(range(len(port.axes)))
        for comes in _orders(port.sizes, every, (*every[-1:], *every[:-1])):
            yield Reading(known, look, comes)
    elif known.layout is not None:
        address = _relaid(known, weight, port, sizes)
        if address is not None:
            strides = [address.strides[axis] for axis in port.axes]
            offset = address.offset
            yield Reading(known, lambda c: addresses(c, offset, strides), lambda c: c)
    elif known.hold:
        axes = {axis: step for axis, step in known.hold if axis in port.axes}
        if axes and all(port.sizes[port.axes.index(axis)] > max(1, step) for axis, step in axes.items()):
            yield Reading(known, look, lambda coordinates: _held(coordinates, port.axes, axes))
    elif known.interleave:
        yield from _interleaved(known, weight, port)


def _looker(place: Place) -> Callable[[Coordinates], Places]:
    strides, offset = place.strides, place.address.offset
    return lambda coordinates: addresses(coordinates, offset, strides)


def _exchanged(pair: tuple[str, str], port: Place) -> Iterator[Callable[[Coordinates], Coordinates]]:
    if not all(axis in port.axes and port.sizes[port.axes.index(axis)] > 1 for axis in pair):
        return
    one, other = (port.axes.index(axis) for axis in pair)
    swap = {one: other, other: one}
    changed = tuple(swap.get(axis, axis) for axis in port.order)
    yield from _orders(port.sizes, port.order, changed)


def _reshaped(port: Place, original: Place | None) -> Iterator[Callable[[Coordinates], Coordinates]]:
    axes = range(len(port.axes))
    orders = [tuple(axes), (*axes[-1:], *axes[:-1])]
    if original is not None and original.axes == port.axes:
        orders.insert(0, original.order)
    seen = {_effective(port.order, port.sizes)}
    for order in orders:
        if _effective(order, port.sizes) not in seen:
            seen.add(_effective(order, port.sizes))
            yield from _orders(port.sizes, port.order, order)


def _effective(order: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis for axis in order if sizes[axis] > 1)


def _orders(
    sizes: tuple[int, ...], right_order: tuple[int, ...], other: tuple[int, ...]
) -> Iterator[Callable[[Coordinates], Coordinates]]:
    """The two ways to take elements in one order for those in another."""
    yield lambda c: in_order(to_places(c, sizes, right_order), sizes, other)
    yield lambda c: in_order(to_places(c, sizes, other), sizes, right_order)


def _turned(port: Place) -> Iterator[Callable[[Coordinates], Places]]:
    """The stored dims of the whole tensor in other orders, laid out anew in both directions."""
    shape = port.tensor.shape
    dims = tuple(range(len(shape)))
    if port.tensor.strides is not None or sum(size > 1 for size in shape) < 2:
        return
    every = itertools.permutations(dims) if len(dims) <= _MOST_DIMS else [dims[::-1]]
    look = _looker(port)
    for order in every:
        if _effective(order, shape) == _effective(dims, shape):
            continue

        def turned(c: Coordinates, order: tuple[int, ...] = order) -> Places:
            return to_places(in_order(look(c), shape, dims), shape, order)

        yield turned


def _relaid(known: KnownMistake, weight: Weight, port: Place, sizes: Sizes) -> AddressMap | None:
    """Where a weight lies if its tensor's blocks follow the layout; None where that has others."""
    assert known.layout is not None
    blocks = [block.canonical for block in port.rule.blocks]
    ours = []
    for pattern in known.ours:
        names = [name for name in blocks if fnmatchcase(name, pattern)]
        if len(names) != 1:
            return None
        ours += names
    if sorted(ours) != sorted(blocks) or weight.canonical not in ours:
        return None
    axes = sorted({axis for leaf in known.layout.leaves for axis in leaf})
    try:
        bound = bind(known.layout, sizes.sizes(axes, weight.indices))
    except PorterError:
        return None
    if int(np.prod(bound.shape)) != port.tensor.elements or port.tensor.strides is not None:
        return None
    address = bound.leaves[ours.index(weight.canonical)]
    for axis, finer in sizes.canonical.refine.items():
        if axis in address.strides and set(finer) <= set(port.axes):
            address = address.refined(axis, {name: port.sizes[port.axes.index(name)] for name in finer})
    if set(address.strides) != set(port.axes):
        return None
    same = address.offset == port.address.offset and all(
        address.strides[axis] == port.address.strides[axis]
        for axis, size in zip(port.axes, port.sizes, strict=True)
        if size > 1
    )
    return None if same else address


def _held(coordinates: Coordinates, axes: Sequence[str], held: dict[str, int]) -> Coordinates:
    found = coordinates.copy()
    for axis, step in held.items():
        found[axes.index(axis)] = step
    return found


def _interleaved(known: KnownMistake, weight: Weight, port: Place) -> Iterator[Reading]:
    """Rows (steps of the first axis) of several tensors, alternating or one tensor after the other."""
    if len(port.axes) < 1:
        return
    mine = next((p for p in known.interleave if fnmatchcase(weight.canonical, p)), None)
    if mine is None:
        return
    stem = weight.canonical[: len(weight.canonical) - len(mine.lstrip("*"))]
    stacked = tuple(stem + pattern.lstrip("*") for pattern in known.interleave)
    number, rows, place = len(stacked), port.sizes[0], known.interleave.index(mine)

    def alternating(c: Coordinates) -> tuple[Places, Places]:
        """Taken one after the other, what alternates."""
        row, which = np.divmod(place * rows + c[0], number)
        return row, which

    def following(c: Coordinates) -> tuple[Places, Places]:
        """Taken alternately, what follows one another."""
        which, row = np.divmod(c[0] * number + place, rows)
        return row, which

    for way in (alternating, following):

        def comes(c: Coordinates, way: Callable[..., tuple[Places, Places]] = way) -> Coordinates:
            found = c.copy()
            found[0] = way(c)[0]
            return found

        def which(c: Coordinates, way: Callable[..., tuple[Places, Places]] = way) -> Places:
            return way(c)[1]

        yield Reading(known, _looker(port), comes, stacked, which)
