"""Joining two bound tables through the canonical axes: the strided copies that make a rule's tensors.

A canonical tensor may be cut by names differently on either side (a tensor per layer here, one scanned
tensor there). The pieces are the values of every variable that either side holds in a name; within a
piece both sides are address maps over the same remaining axes, and that is one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from porter.containers.base import StoredTensor
from porter.dtypes import Dtype
from porter.errors import UnsupportedError
from porter.layout import AddressMap, Loop, run_length, strided_copy
from porter.planning.coverage import BlockIndex
from porter.planning.plan import COMPUTE, EXTENT, RUNS, TILE, CopyGroup, EqualCheck, Part
from porter.tables.bind import Block, BoundRule, BoundTensor, Sizes
from porter.tables.model import Rule
from porter.tables.patterns import Pattern
from porter.values.operations import Operation, undone

# What dtype a target tensor gets, by its name and the source tensors that it is made of.
DtypeOf = Callable[[str, Sequence[StoredTensor]], Dtype]


@dataclass(frozen=True)
class Join:
    """`stored` gives the source tensor by the table's name; `alias` the canonical tensor to read instead
    of another (a tied head is read from the embedding)."""

    index: BlockIndex
    rules: Mapping[str, Rule]
    stored: Mapping[str, StoredTensor]
    sizes: Sizes
    alias: Mapping[str, str]

    def copies(self, target: BoundRule, dtype_of: DtypeOf) -> list[tuple[CopyGroup, Dtype]]:
        """Copies that fill a rule's tensors, and their dtype. UnsupportedError if a piece has no source."""
        whole = self._whole(target, dtype_of)
        return [whole] if whole else [self._one(tensor, dtype_of) for tensor in target.tensors()]

    def _whole(self, target: BoundRule, dtype_of: DtypeOf) -> tuple[CopyGroup, Dtype] | None:
        """All tensors of a rule at once, where both sides' rules number the same things, as most do."""
        found = []
        if not target.blocks:
            return None
        for block in target.blocks:
            canonical = self.alias.get(block.canonical, block.canonical)
            if self.index.variables(canonical) != [target.variables]:
                return None
            rules = self.index.rules(canonical, target.variables)
            if len(rules) != 1 or rules[0][0].points != target.points:
                return None
            stored = [self.stored[name] for name in rules[0][0].names]
            if len({(tensor.dtype.name, tensor.strides) for tensor in stored}) != 1:
                return None
            found.append((block, *rules[0], stored))
        if any(Pattern(block.canonical).variables != target.variables for block in target.blocks):
            return None
        dtype = dtype_of(target.names[0], [stored[0] for *_, stored in found])
        parts = []
        for block, rule, source, stored in found:
            at = dict(zip(target.variables, target.points[0], strict=True))
            lies = as_stored(source.address, stored[0])
            moved = self._copy(lies, block.address, at)
            parts.append(
                Part(
                    block.canonical,
                    target.points if target.variables else (),
                    tuple([tensor.name for tensor in stored]),
                    *_moved(moved, stored[0].dtype, dtype, rule.rule, target.rule),
                )
            )
        return CopyGroup(target.names, tuple(parts), str(target.rule.where)), dtype

    def _one(self, target: BoundTensor, dtype_of: DtypeOf) -> tuple[CopyGroup, Dtype]:
        pieces = [piece for block in target.blocks for piece in self._pieces(target, block)]
        # What holds no weight is stored as the checkpoint's first tensor is.
        stored = [self.stored[piece.name] for piece in pieces] or [next(iter(self.stored.values()))]
        dtype = dtype_of(target.name, stored)
        parts = tuple(self._part(target, dtype, piece) for piece in pieces)
        return CopyGroup((target.name,), parts, str(target.rule.where)), dtype

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
            kept, dropped, loops = self._copy(source, into, at)
            operations = self.rules[piece.name].numbers, tensor.rule.numbers
            one, two = (() if operations[0] == operations[1] else undo(each) for each in operations)
            checks.append(EqualCheck(held.name, own.name, reason, kept, dropped, loops, one, two, hint))
        return checks

    def _copy(
        self, source: AddressMap, target: AddressMap, at: Mapping[str, int]
    ) -> tuple[int, int, tuple[Loop, ...]]:
        """The copy between two maps, over the finer of the axes where one side alone refines them."""
        for axis in self.sizes.canonical.refine:
            if axis in source.strides and axis not in target.strides:
                source = source.refined(axis, self.sizes.finer(axis, at))
            elif axis in target.strides and axis not in source.strides:
                target = target.refined(axis, self.sizes.finer(axis, at))
        return strided_copy(source, target, self.sizes.sizes(list(source.strides), at))

    def _part(self, target: BoundTensor, dtype: Dtype, piece: _Piece) -> Part:
        stored = self.stored[piece.name]
        at = dict(zip(piece.variables, piece.point, strict=True))
        source, into = as_stored(piece.source.address, stored).at(at), piece.block.address.at(at)
        moved = self._copy(source, into, at)
        return Part(
            Pattern(piece.block.canonical).filled(at),
            (),
            (stored.name,),
            *_moved(moved, stored.dtype, dtype, self.rules[piece.name], target.rule),
        )


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


def _moved(
    copy: tuple[int, int, tuple[Loop, ...]], stored: Dtype, dtype: Dtype, source: Rule, target: Rule
) -> tuple[int, int, tuple[Loop, ...], str, tuple[Operation, ...]]:
    """A copy with its class and operations."""
    operations = _operations(source, target)
    return (*copy, copy_class(stored, dtype, copy[2], operations), operations)


def _operations(source: Rule, target: Rule) -> tuple[Operation, ...]:
    """Undo what the source's table folded in, then fold in what the target's does."""
    if source.numbers == target.numbers:
        return ()
    return (*undo(source.numbers), *(Operation(kind, value) for kind, value in target.numbers))


def undo(operations: tuple[tuple[str, float], ...]) -> tuple[Operation, ...]:
    """What brings a stored value back to the canonical one: the inverses, in the opposite order."""
    return undone(Operation(kind, value) for kind, value in operations)


def copy_class(
    source: Dtype, target: Dtype, loops: tuple[Loop, ...], operations: tuple[Operation, ...]
) -> str:
    """The class of a coalesced copy, by how far its runs have joined up."""
    if operations or source != target:
        return COMPUTE
    if not loops or (len(loops) == 1 and loops[0].source_stride == loops[0].target_stride == 1):
        return EXTENT
    return RUNS if run_length(loops) > 1 else TILE
