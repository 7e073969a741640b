"""Dividing a plan into units: ranges of its output files that are finished, summed and noted alone.

The division depends on the plan alone, so that a later run, and another machine, meet the same units. They
tile every output file without gap or overlap: each is a range of one tensor, of at most RANGE bytes, or a
range of what surrounds the tensors (a frame). A unit holds all that is needed to run it; see `run_unit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from porter.containers.base import OutputFile, StoredTensor
from porter.errors import PorterError
from porter.execution.kernels.boxes import Box, clip_to_target
from porter.layout.copies import Loop, coalesce, elements, run_length
from porter.planning.plan import COMPUTE, EXTENT, TILE, Copy, Plan

# Bytes. What is lost when a run is killed, and what the disk is asked to begin with at once.
RANGE = 64 << 20


class Part(NamedTuple):
    """A part of a copy, with its tensors; `scales` holds a factor for each row of the source."""

    copy: Copy
    source: StoredTensor | None
    target: StoredTensor
    box: Box
    scales: StoredTensor | None = None


def source_range(part: Part) -> tuple[int, int]:
    """Bytes of the source's file from the first to the last one that a part reads, in whole blocks."""
    source, box = part.source, part.box
    if source is None or not box.elements:
        return 0, 0
    block = source.dtype.block
    low, high = box.source // block * block, -(-(box.source + box.source_span) // block) * block
    return source.offset + source.dtype.nbytes(low), source.offset + source.dtype.nbytes(high)


@dataclass(frozen=True)
class Unit:
    """Bytes `start` to `end` of `file`. `tensor` is None for a frame, which has no parts."""

    file: str
    start: int
    end: int
    tensor: str | None = None
    parts: tuple[Part, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.end - self.start

    @property
    def heavy(self) -> bool:
        """Whether the processor, and not the disk, limits it."""
        return any(part.copy.copy_class in (TILE, COMPUTE) for part in self.parts)

    @property
    def extents(self) -> bool:
        """Whether it is made of ranges of bytes alone."""
        return bool(self.parts) and all(part.copy.copy_class == EXTENT for part in self.parts)

    @property
    def in_order(self) -> bool:
        """Whether its bytes are written one after the other, and none of them twice."""
        kinds = ((part.copy.copy_class, part.box.loops) for part in self.parts)
        return bool(self.parts) and all(
            kind == EXTENT or (kind == COMPUTE and not _turned(loops)) for kind, loops in kinds
        )


def units(plan: Plan, limit: int | None = None) -> tuple[Unit, ...]:
    """All units of a plan, file by file, in each file's order. `limit` is in bytes, by default RANGE."""
    copies = copies_by_target(plan)
    return tuple(unit for file in plan.files for unit in file_units(plan, file, copies, limit))


def copies_by_target(plan: Plan) -> dict[str, list[Copy]]:
    found: dict[str, list[Copy]] = {}
    for copy in plan.copies:
        found.setdefault(copy.target, []).append(copy)
    for zeros in plan.zeros:
        nothing = Copy("zeros", "", zeros.target, 0, zeros.offset, zeros.loops, "zeros")
        found.setdefault(zeros.target, []).append(nothing)
    return found


def file_units(
    plan: Plan,
    file: OutputFile,
    copies: dict[str, list[Copy]],
    limit: int | None = None,
    transposed: int | None = None,
) -> Iterator[Unit]:
    """`transposed` is the limit for tensors that are transposed, where it is another one."""
    limit = RANGE if limit is None else limit
    at = 0
    for tensor in sorted(file.tensors, key=lambda tensor: (tensor.offset, -tensor.nbytes)):
        end = tensor.offset + tensor.nbytes
        # Tied tensors of a torch file lie at one place, and one of them is written.
        if not tensor.nbytes or end <= at or not copies.get(tensor.name):
            continue
        yield from _frames(file, at, tensor.offset, limit)
        own = copies[tensor.name]
        turned = transposed is not None and any(
            copy.copy_class == TILE or (copy.copy_class == COMPUTE and _turned(copy.loops)) for copy in own
        )
        yield from tensor_units(plan, tensor, own, transposed if turned and transposed else limit)
        at = end
    yield from _frames(file, at, file.size, limit)


def _turned(loops: Sequence[Loop]) -> bool:
    """Whether elements come in another order than they lie in."""
    loops = coalesce(loops)
    return run_length(loops) != elements(loops)


def _frames(file: OutputFile, start: int, end: int, limit: int) -> Iterator[Unit]:
    for begin in range(start, end, limit):
        yield Unit(file.name, begin, min(begin + limit, end))


def tensor_units(plan: Plan, tensor: StoredTensor, copies: Sequence[Copy], limit: int) -> Iterator[Unit]:
    """The units of one tensor, whose copies fill it."""
    parts = tensor_parts(plan, tensor, copies)
    step = _step(tensor, parts, limit)
    for low in range(0, tensor.elements, step):
        yield cut_unit(tensor, parts, low, min(low + step, tensor.elements))


def tensor_parts(plan: Plan, tensor: StoredTensor, copies: Sequence[Copy]) -> list[Part]:
    """What makes one tensor, in the order of its elements."""
    return sorted((_whole(plan, tensor, copy) for copy in copies), key=lambda part: part.box.target)


def cut_unit(tensor: StoredTensor, parts: Sequence[Part], low: int, high: int) -> Unit:
    """What makes the elements from `low` to `high` of a tensor."""
    cut = tuple(part._replace(box=box) for part in parts for box in clip_to_target(part.box, low, high))
    start = tensor.offset + tensor.dtype.nbytes(low)
    return Unit(tensor.file, start, tensor.offset + tensor.dtype.nbytes(high), tensor.name, cut)


def _whole(plan: Plan, tensor: StoredTensor, copy: Copy) -> Part:
    source = plan.source_by_name.get(copy.source)
    scales = plan.source_by_name[source.scales] if source is not None and source.scales else None
    box = Box(coalesce(copy.loops), copy.source_offset, copy.target_offset)
    if box.elements and not 0 <= box.target <= tensor.elements - box.target_span:
        # Clipping would hide it.
        raise PorterError(f"{copy.source!r} to {copy.target!r}: the copy leaves its tensors")
    return Part(copy, source, tensor, box, scales)


def _bits(parts: Sequence[Part]) -> list[float]:
    """Of an element of each source."""
    return [part.source.dtype.bits for part in parts if part.source is not None]


def _step(tensor: StoredTensor, parts: Sequence[Part], limit: int) -> int:
    """Elements of a unit: whole rows, where a row fits and bytes are not simply moved."""
    block = tensor.dtype.block
    # The wider side counts: a float32 that becomes a bfloat16 is twice as much to read as to write.
    limit = int(limit * tensor.dtype.bits / max([tensor.dtype.bits, *_bits(parts)]))
    row = tensor.elements // tensor.shape[0] if tensor.shape and tensor.shape[0] else tensor.elements
    if not all(part.copy.copy_class == EXTENT for part in parts) and tensor.dtype.nbytes(row) <= limit:
        return max(1, limit // tensor.dtype.nbytes(row)) * row
    return max(1, limit // tensor.dtype.block_bytes) * block
