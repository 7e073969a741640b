"""Address maps: where each element of a canonical tensor lies in one stored tensor.

Binding a layout to sizes gives the stored shape and, for each leaf, an offset and one stride per axis, in
elements. Two maps over the same axes make one strided copy; swapping them makes its inverse; going
through canonical axes composes two dialects with no tensor in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from porter.layout.copies import Loop, coalesce
from porter.layout.parse import Axis, Dim, Group, Layout, LayoutError


@dataclass(frozen=True)
class AddressMap:
    """element(i, j, …) lies at `offset + i·stride_i + j·stride_j + …` of the stored tensor."""

    offset: int
    strides: Mapping[str, int]

    def at(self, coordinates: Mapping[str, int]) -> AddressMap:
        """The map with some axes held at fixed coordinates; coordinates of other axes are ignored."""
        offset = self.offset
        rest = {}
        for axis, stride in self.strides.items():
            if axis in coordinates:
                offset += coordinates[axis] * stride
            else:
                rest[axis] = stride
        return AddressMap(offset, rest)

    def refined(self, axis: str, finer: Mapping[str, int]) -> AddressMap:
        """The map over finer axes, by size and outermost first, that together run over one axis of it."""
        strides = dict(self.strides)
        step = strides.pop(axis)
        for name, size in reversed(list(finer.items())):
            strides[name] = step
            step *= size
        return AddressMap(self.offset, strides)

    def restrided(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> AddressMap:
        """The map for a tensor of that shape whose dims lie `strides` apart, in place of row-major.

        An axis, and what stands before a block, lies within one dim: it is so many steps of that dim.
        """

        def moved(address: int) -> int:
            step, found = math.prod(shape), 0
            for size, stride in zip(shape, strides, strict=True):
                step //= size
                count, address = divmod(address, step)
                found += count * stride
            return found

        return AddressMap(moved(self.offset), {axis: moved(step) for axis, step in self.strides.items()})


@dataclass(frozen=True)
class BoundLayout:
    """A layout with its sizes: the stored shape, and one address map per leaf, depth-first."""

    shape: tuple[int, ...]
    leaves: tuple[AddressMap, ...]


def bind(layout: Layout, sizes: Mapping[str, int]) -> BoundLayout:
    """Bind a layout to the sizes of its axes. A missing or negative size is a LayoutError."""
    shape = tuple(_size(dim, sizes) for dim in layout.dims)
    return BoundLayout(shape, tuple(AddressMap(*leaf) for leaf in _leaves(layout.dims, 1, sizes)))


def strided_copy(
    source: AddressMap, target: AddressMap, sizes: Mapping[str, int]
) -> tuple[int, int, tuple[Loop, ...]]:
    """The one copy between two maps over the same axes: source offset, target offset, coalesced loops."""
    if source.strides.keys() != target.strides.keys():
        raise LayoutError(
            "the two sides of a copy run over different axes",
            cause=f"source: {', '.join(source.strides)}; target: {', '.join(target.strides)}",
        )
    loops = [Loop(sizes[axis], stride, target.strides[axis]) for axis, stride in source.strides.items()]
    return source.offset, target.offset, coalesce(loops)


def _size(dim: Dim, sizes: Mapping[str, int]) -> int:
    match dim:
        case Axis(name):
            size = sizes.get(name)
            if size is None:
                raise LayoutError(f"the axis {name} has no size", hint=f"known: {', '.join(sorted(sizes))}")
            if size < 0:
                raise LayoutError(f"the axis {name} has the size {size}")
            return size
        case Group(alternatives):
            return sum(_product(dims, sizes) for dims in alternatives)
    return 1


def _product(dims: tuple[Dim, ...], sizes: Mapping[str, int]) -> int:
    return math.prod(_size(dim, sizes) for dim in dims)


def _leaves(
    dims: tuple[Dim, ...], stride: int, sizes: Mapping[str, int]
) -> Iterator[tuple[int, dict[str, int]]]:
    """Leaves of a product whose innermost element step is `stride`: offsets and strides, depth-first."""
    if not dims:
        yield 0, {}
        return
    *outer, last = dims
    size = _size(last, sizes)
    for outer_offset, outer_strides in _leaves(tuple(outer), stride * size, sizes):
        match last:
            case Axis(name):
                yield outer_offset, {**outer_strides, name: stride}
            case Group(alternatives):
                start = 0
                for alternative in alternatives:
                    for offset, strides in _leaves(alternative, stride, sizes):
                        yield outer_offset + start * stride + offset, {**outer_strides, **strides}
                    start += _product(alternative, sizes)
            case _:
                yield outer_offset, outer_strides
