"""Joining two bound tables through the canonical axes: the strided copies that make one target tensor.

A canonical tensor may be cut by names differently on either side (a tensor per layer here, one scanned
tensor there). The pieces are the values of every variable that either side holds in a name; within a
piece both sides are address maps over the same remaining axes, and that is one copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from porter.containers.base import StoredTensor
from porter.dtypes import Dtype
from porter.errors import UnsupportedError
from porter.layout import AddressMap, Loop, run_length, strided_copy
from porter.planning.coverage import BlockIndex
from porter.planning.plan import COMPUTE, EXTENT, RUNS, TILE, Copy, Operation
from porter.tables.bind import Block, BoundTensor, Sizes
from porter.tables.model import Rule
from porter.tables.patterns import Pattern


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
        pieces = [
            (block, source, from_block, at)
            for block in target.blocks
            for source, from_block, at in self._pieces(target, block)
        ]
        dtype = dtype_of([self.stored[source] for _, source, _, _ in pieces])
        return dtype, [
            self._copy(target, dtype, block, source, from_block, at)
            for block, source, from_block, at in pieces
        ]

    def _pieces(self, target: BoundTensor, block: Block) -> Iterator[tuple[str, Block, dict[str, int]]]:
        canonical = self.alias.get(block.canonical, block.canonical)
        found = False
        for variables in self.index.variables(canonical):
            free = [variable for variable in variables if variable not in block.fixed]
            for point in itertools.product(*(range(self.sizes.size(v, block.fixed)) for v in free)):
                at = {**block.fixed, **dict(zip(free, point, strict=True))}
                entry = self.index.find(canonical, variables, at)
                if entry is not None:
                    found = True
                    yield entry[0], entry[1], at
        if not found:
            raise UnsupportedError(
                f"nothing in the source makes {target.name}",
                cause=f"the canonical tensor {block.canonical!r} has no source ({target.rule.where})",
            )

    def _copy(
        self,
        target: BoundTensor,
        dtype: Dtype,
        block: Block,
        source: str,
        from_block: Block,
        at: Mapping[str, int],
    ) -> Copy:
        stored = self.stored[source]
        source_offset, target_offset, loops = self._strided(from_block.address, block.address, at)
        operations = self._operations(self.rules[source], target.rule)
        return Copy(
            canonical=Pattern(block.canonical).filled(at),
            source=stored.name,
            target=target.name,
            source_offset=source_offset,
            target_offset=target_offset,
            loops=loops,
            copy_class=copy_class(stored.dtype, dtype, loops, operations),
            operations=operations,
            rule=str(target.rule.where),
        )

    def _strided(
        self, source: AddressMap, target: AddressMap, at: Mapping[str, int]
    ) -> tuple[int, int, tuple[Loop, ...]]:
        """The copy between two maps. Tensors of one rule share their maps, so that most are made once."""
        held = any(variable in source.strides or variable in target.strides for variable in at)
        steady = not held and not any(axis in self.sizes.varying for axis in source.strides)
        key = (id(source), id(target))
        if steady and key in self._made:
            return self._made[key]
        source_map, target_map = source.at(at), target.at(at)
        sizes = self.sizes.sizes(list(source_map.strides), at)
        found = strided_copy(source_map, target_map, sizes)
        if steady:
            self._made[key] = found
        return found

    @cached_property
    def _made(self) -> dict[tuple[int, int], tuple[int, int, tuple[Loop, ...]]]:
        return {}

    @staticmethod
    def _operations(source: Rule, target: Rule) -> tuple[Operation, ...]:
        """Undo what the source's table folded in, then fold in what the target's does."""
        if source.operations == target.operations:
            return ()
        undo = [
            Operation(kind, -value if kind == "add" else 1 / value)
            for kind, value in reversed(source.operations)
        ]
        return (*undo, *(Operation(kind, value) for kind, value in target.operations))


def copy_class(
    source: Dtype, target: Dtype, loops: tuple[Loop, ...], operations: tuple[Operation, ...]
) -> str:
    """The class of a coalesced copy, by how far its runs have joined up."""
    if operations or source != target:
        return COMPUTE
    if not loops or (len(loops) == 1 and loops[0].source_stride == loops[0].target_stride == 1):
        return EXTENT
    return RUNS if run_length(loops) > 1 else TILE
