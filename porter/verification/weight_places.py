"""Where each canonical weight lies on either side: one stored tensor and one address map each.

A weight is a canonical tensor at one value of all its index variables: one layer's, one expert's. Axes are
the finest that the canonical table knows (a head's dims as the two halves that RoPE turns), so that both
sides, and mistakes, speak of the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from porter.containers.base import StoredTensor
from porter.errors import PorterError
from porter.layout import AddressMap
from porter.planning.join import as_stored
from porter.tables.bind import Block, BoundRule, Sizes
from porter.tables.patterns import Pattern
from porter.values.operations import Operation


class Weight(NamedTuple):
    """A canonical tensor's pattern, and the values of its index variables in the pattern's order."""

    canonical: str
    point: tuple[int, ...]

    @property
    def indices(self) -> dict[str, int]:
        return dict(zip(Pattern(self.canonical).variables, self.point, strict=True))

    @property
    def name(self) -> str:
        return Pattern(self.canonical).at(self.point)


class Place(NamedTuple):
    """Where a weight lies. `axes` and `sizes` go together; `address` runs over these axes.

    `operations` turn the canonical values into the stored ones. `name` is the table's for the tensor, `rule`
    what makes it.
    """

    name: str
    tensor: StoredTensor
    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    address: AddressMap
    operations: tuple[Operation, ...]
    rule: BoundRule

    @property
    def signature(self) -> tuple[tuple[str, int], ...]:
        """Weights of one signature have the same axes, and could be taken for each other."""
        return tuple((axis, size) for axis, size in zip(self.axes, self.sizes, strict=True) if size > 1)

    @property
    def long(self) -> list[int]:
        """The axes of several steps."""
        return [axis for axis, size in enumerate(self.sizes) if size > 1]

    @property
    def order_long(self) -> list[int]:
        """The axes of several steps as this side stores them, outermost first."""
        return [axis for axis in self.order if self.sizes[axis] > 1]

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(self.address.strides[axis] for axis in self.axes)

    @property
    def order(self) -> tuple[int, ...]:
        """The axes as this side stores them, outermost first."""
        strides = self.strides
        return tuple(sorted(range(len(self.axes)), key=lambda axis: -strides[axis]))


def places(
    rules: Iterable[BoundRule], stored: Mapping[str, StoredTensor], sizes: Sizes
) -> dict[Weight, Place]:
    """The place of each weight that the rules' tensors hold, of those tensors that are stored."""
    found: dict[Weight, Place] = {}
    for rule in rules:
        for point, name in zip(rule.points, rule.names, strict=True):
            if name not in stored:
                continue
            at = dict(zip(rule.variables, point, strict=True))
            for block in rule.blocks:
                for weight, place in _of_block(rule, name, block, stored[name], at, sizes):
                    found[weight] = place
    return found


def _of_block(
    rule: BoundRule, name: str, block: Block, tensor: StoredTensor, at: Mapping[str, int], sizes: Sizes
) -> Iterator[tuple[Weight, Place]]:
    operations = tuple(Operation(kind, value) for kind, value in rule.rule.numbers)
    variables = Pattern(block.canonical).variables
    for values in sizes.points(variables, at):
        index = dict(zip(variables, values, strict=True))
        address = as_stored(block.address, tensor).at(index)
        axes, numbers, address = _finest(block.canonical, address, index, sizes)
        yield (
            Weight(block.canonical, values),
            Place(name, tensor, axes, numbers, address, operations, rule),
        )


def _finest(
    canonical: str, address: AddressMap, index: Mapping[str, int], sizes: Sizes
) -> tuple[tuple[str, ...], tuple[int, ...], AddressMap]:
    axes: list[str] = []
    numbers: list[int] = []
    for axis in sizes.canonical.tensors[canonical].axes:
        finer = sizes.canonical.refine.get(axis)
        if finer is not None:
            try:
                parts = sizes.finer(axis, index)
            except PorterError:
                # An odd number of dims has no halves; then it is one axis on both sides.
                parts = {}
            if parts:
                address = address.refined(axis, parts) if axis in address.strides else address
                axes += parts
                numbers += parts.values()
                continue
        axes.append(axis)
        numbers.append(sizes.size(axis, index))
    return tuple(axes), tuple(numbers), address
