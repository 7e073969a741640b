"""Where tensors have to be placed so that a file system can share their blocks with the source's.

Whole blocks can be shared where source and target lie equally far from a block's start. Whether the file
system does it is found out when the plan is run; that it could is decided here, from headers alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from porter.containers.base import StoredTensor
from porter.layout.copies import Loop, coalesce, elements, run_length
from porter.planning.plan import EXTENT, Copy, Plan, groups_of

# Bytes; the block of XFS, btrfs and ext4. Multiples of it suit smaller blocks too.
BLOCK = 4096

# Bytes. Data that start anywhere else would not be aligned for every dtype.
ALIGNMENT = 8


@dataclass(frozen=True)
class SharedRange:
    """The whole blocks within a copy of `nbytes`: where they start in the two files, and their bytes."""

    source: int
    target: int
    length: int
    nbytes: int


def shared_range(copy: Copy, source: StoredTensor, target: StoredTensor) -> SharedRange | None:
    """The blocks that the copy could share; None where there is none, or the two do not agree."""
    if copy.copy_class != EXTENT:
        return None
    return shared_block(coalesce(copy.loops), copy.source_offset, copy.target_offset, source, target)


def shared_block(
    loops: Sequence[Loop],
    source_offset: int,
    target_offset: int,
    source: StoredTensor,
    target: StoredTensor,
) -> SharedRange | None:
    """The same for coalesced loops from one offset to another, in elements."""
    if source.dtype != target.dtype or elements(loops) != run_length(loops):
        return None
    nbytes = source.dtype.nbytes(elements(loops))
    read_at = source.offset + source.dtype.nbytes(source_offset)
    write_at = target.offset + target.dtype.nbytes(target_offset)
    if (read_at - write_at) % BLOCK:
        return None
    edge = -write_at % BLOCK
    length = (nbytes - edge) // BLOCK * BLOCK
    return SharedRange(read_at + edge, write_at + edge, length, nbytes) if length > 0 else None


def shareable_bytes(plan: Plan) -> int:
    """How many bytes of the output could share their blocks with the source, on a file system that can."""
    ranges = (
        shared_range(copy, plan.source_by_name[copy.source], plan.target_by_name[copy.target])
        for copy in plan.copies
    )
    return sum(found.length for found in ranges if found)


def residues(copies: Sequence[Copy], sources: Mapping[str, StoredTensor]) -> dict[str, int]:
    """By target tensor, where it has to start modulo the block so that most of its bytes can be shared.

    Tensors that have no whole block to share, or could share only where they were not aligned, are left out.
    """
    votes: dict[str, dict[int, int]] = {}
    for group in groups_of(copies):
        for part in group.parts:
            if part.copy_class != EXTENT:
                continue
            # Of one dtype, as all tensors of a group are.
            dtype = sources[part.sources[0]].dtype
            nbytes = dtype.nbytes(elements(part.loops))
            if nbytes < 2 * BLOCK:
                continue
            ahead = dtype.nbytes(part.source_offset) - dtype.nbytes(part.target_offset)
            for name, target in zip(part.sources, group.targets, strict=True):
                residue = (sources[name].offset + ahead) % BLOCK
                if residue % ALIGNMENT == 0:
                    found = votes.setdefault(target, {})
                    found[residue] = found.get(residue, 0) + nbytes
    return {target: majority(found) for target, found in votes.items()}


def majority(votes: Mapping[int, int]) -> int:
    """The residue that has most bytes; of several, the smallest."""
    if len(votes) == 1:
        return next(iter(votes))
    return min(votes, key=lambda residue: (-votes[residue], residue))
