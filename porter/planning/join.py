"""Joining two bound tables through the canonical axes: the strided copies that make one target tensor.

A canonical tensor may be cut by names differently on either side (a tensor per layer here, one scanned
tensor there). The pieces are the values of every variable that either side holds in a name; within a
piece both sides are address maps over the same remaining axes, and that is one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from porter.containers.base import StoredTensor
from porter.dtypes import Dtype
from porter.errors import UnsupportedError
from porter.layout import AddressMap, Loop, run_length, strided_copy
from porter.planning.coverage import BlockIndex, Entries
from porter.planning.plan import COMPUTE, EXTENT, RUNS, TILE, Copy, EqualCheck, Operation
from porter.tables.bind import Block, BoundTensor, Sizes
from porter.tables.model import Rule
from porter.tables.patterns import Pattern


class _Made(NamedTuple):
    """What all copies between two rules have in common, where no index variable is held inside a tensor."""

    source_offset: int
    target_offset: int
    loops: tuple[Loop, ...]
    copy_class: str
    operations: tuple[Operation, ...]
    rule: str


@dataclass(frozen=True)
class Join:
    """`stored` gives the source tensor by the table's name; `alias` the canonical tensor to read instead
    of another (a tied head is read from the embedding)."""

    index: BlockIndex
    rules: Mapping[str, Rule]
    stored: Mapping[str, StoredTensor]
    sizes: Sizes
    alias: Mapping[str, str]

    def copies(
        self, target: BoundTensor, dtype_of: Callable[[list[StoredTensor]], Dtype]
    ) -> tuple[Dtype, list[Copy]]:
        """The target's dtype and the copies that fill it; UnsupportedError if a piece has no source."""
        pieces = self._named_alike(target) or [
            piece for block in target.blocks for piece in self._pieces(target, block)
        ]
        dtype = dtype_of([self.stored[piece.name] for piece in pieces])
        return dtype, [self._copy(target, dtype, piece) for piece in pieces]

    def _named_alike(self, target: BoundTensor) -> list[_Piece]:
        """The pieces where names on both sides hold the same variables, as they mostly do; else none."""
        key = id(target.blocks)
        if key not in self._alike:
            names = [self.alias.get(block.canonical, block.canonical) for block in target.blocks]
            alike = all(self.index.variables(name) == [target.variables] for name in names)
            self._alike[key] = [self.index.entries(name, target.variables) for name in names if alike]
        found = []
        for block, entries in zip(target.blocks, self._alike[key], strict=False):
            entry = entries.get(target.point)
            if entry is None:
                return []
            found.append(_Piece(block, *entry, target.variables, target.point))
        return found

    @cached_property
    def _alike(self) -> dict[int, list[Entries]]:
        return {}

    def _pieces(self, target: BoundTensor, block: Block) -> list[_Piece]:
        canonical = self.alias.get(block.canonical, block.canonical)
        found = []
        for variables in self.index.variables(canonical):
            for names, point in self._points(target, variables):
                wanted = point if names == variables else _picked(names, point, variables)
                entry = self.index.entries(canonical, variables).get(wanted)
                if entry is not None:
                    found.append(_Piece(block, *entry, names, point))
        if not found:
            raise UnsupportedError(
                f"nothing in the source makes {target.name}",
                cause=f"the canonical tensor {block.canonical!r} has no source ({target.rule.where})",
            )
        return found

    def _points(
        self, target: BoundTensor, variables: tuple[str, ...]
    ) -> Iterable[tuple[tuple[str, ...], tuple[int, ...]]]:
        """Values of every variable that either side holds in a name: the variables, and their values."""
        free = [variable for variable in variables if variable not in target.variables]
        if not free:
            return ((target.variables, target.point),)
        names = (*target.variables, *free)
        return ((names, (*target.point, *point)) for point in self.sizes.points(free, target.fixed))

    def equal(self, tensor: BoundTensor, block: Block, reason: str, hint: str) -> list[EqualCheck]:
        """What shows that a block of a stored tensor has the values of what `alias` reads in its place."""
        checks = []
        for piece in self._pieces(tensor, block):
            at = dict(zip(piece.variables, piece.point, strict=True))
            held, own = self.stored[piece.name], self.stored[tensor.name]
            source = as_stored(piece.source.address, held).at(at)
            into = as_stored(block.address, own).at(at)
            kept, dropped, loops = strided_copy(source, into, self.sizes.sizes(list(source.strides), at))
            operations = self.rules[piece.name].numbers, tensor.rule.numbers
            one, two = (() if operations[0] == operations[1] else undo(each) for each in operations)
            checks.append(EqualCheck(held.name, own.name, reason, kept, dropped, loops, one, two, hint))
        return checks

    def _copy(self, target: BoundTensor, dtype: Dtype, piece: _Piece) -> Copy:
        stored = self.stored[piece.name]
        key = (
            id(piece.source.address),
            id(piece.block.address),
            stored.dtype.name,
            dtype.name,
            stored.strides,
        )
        made = self._known.get(key)
        if made is None:
            made = self._made(target, dtype, piece, stored)
            if self._common(piece):
                self._known[key] = made
        return Copy(self._canonical(piece), stored.name, target.name, *made)

    def _made(self, target: BoundTensor, dtype: Dtype, piece: _Piece, stored: StoredTensor) -> _Made:
        at = dict(zip(piece.variables, piece.point, strict=True))
        source, into = as_stored(piece.source.address, stored).at(at), piece.block.address.at(at)
        sizes = self.sizes.sizes(list(source.strides), at)
        source_offset, target_offset, loops = strided_copy(source, into, sizes)
        operations = _operations(self.rules[piece.name], target.rule)
        kind = copy_class(stored.dtype, dtype, loops, operations)
        return _Made(source_offset, target_offset, loops, kind, operations, str(target.rule.where))

    def _common(self, piece: _Piece) -> bool:
        """Whether all tensors of the two rules are copied alike: their maps are then the same ones."""
        source, into = piece.source.address.strides, piece.block.address.strides
        held = any(variable in source or variable in into for variable in piece.variables)
        return not held and not any(axis in self.sizes.varying for axis in source)

    @cached_property
    def _known(self) -> dict[tuple[int, int, str, str, tuple[int, ...] | None], _Made]:
        return {}

    def _canonical(self, piece: _Piece) -> str:
        name = piece.block.canonical
        pattern = self._patterns.get(name)
        if pattern is None:
            pattern = self._patterns[name] = Pattern(name)
        if pattern.variables == piece.variables:
            return pattern.at(piece.point)
        return pattern.filled(dict(zip(piece.variables, piece.point, strict=True)))

    @cached_property
    def _patterns(self) -> dict[str, Pattern]:
        return {}


def as_stored(address: AddressMap, stored: StoredTensor) -> AddressMap:
    """A source's address map, where its tensor lies by strides of its own."""
    return address if stored.strides is None else address.restrided(stored.shape, stored.strides)


class _Piece(NamedTuple):
    """A part of a target tensor, the source tensor that it comes from, and the values of all variables."""

    block: Block
    name: str
    source: Block
    variables: tuple[str, ...]
    point: tuple[int, ...]


def _picked(names: tuple[str, ...], point: tuple[int, ...], wanted: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(point[names.index(name)] for name in wanted)


def _operations(source: Rule, target: Rule) -> tuple[Operation, ...]:
    """Undo what the source's table folded in, then fold in what the target's does."""
    if source.numbers == target.numbers:
        return ()
    return (*undo(source.numbers), *(Operation(kind, value) for kind, value in target.numbers))


def undo(operations: tuple[tuple[str, float], ...]) -> tuple[Operation, ...]:
    """What brings a stored value back to the canonical one: the inverses, in the opposite order."""
    return tuple(
        Operation(kind, -value if kind == "add" else 1 / value) for kind, value in reversed(operations)
    )


def copy_class(
    source: Dtype, target: Dtype, loops: tuple[Loop, ...], operations: tuple[Operation, ...]
) -> str:
    """The class of a coalesced copy, by how far its runs have joined up."""
    if operations or source != target:
        return COMPUTE
    if not loops or (len(loops) == 1 and loops[0].source_stride == loops[0].target_stride == 1):
        return EXTENT
    return RUNS if run_length(loops) > 1 else TILE
