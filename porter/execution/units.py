"""Dividing the work on one weight file into units: ranges of it that are finished, summed and noted alone.

The division depends on the plan alone, so that a later run meets the same units. Ranges never overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from porter.containers.base import OutputFile, StoredTensor
from porter.errors import UnsupportedError
from porter.execution.kernels.boxes import Box
from porter.layout.copies import Loop, coalesce, elements, run_length
from porter.planning.plan import COMPUTE, EXTENT, TILE, Copy, Zeros

# Bytes. What is lost when a run is killed, and what the disk is asked to begin with at once.
RANGE = 64 << 20


@dataclass(frozen=True)
class Unit:
    """Copies, or parts of them, that together write `expected` bytes within `start` to `end` of the file.

    With `zeros` there are none: the range is padding.
    """

    tensor: str
    start: int
    end: int
    expected: int
    parts: tuple[tuple[Copy, Box | None], ...]
    zeros: bool = False

    @property
    def heavy(self) -> bool:
        """Whether the processor, and not the disk, limits it."""
        return any(copy.copy_class in (TILE, COMPUTE) for copy, _ in self.parts)


def divide(
    file: OutputFile,
    copies: Mapping[str, Sequence[Copy]],
    shared: Mapping[str, Sequence[Copy]],
    padding: Mapping[str, int] | None = None,
) -> list[Unit]:
    """The units of a file in its own order. `shared` are copies that are already done, by target tensor.

    `padding` says how many elements at the end of a tensor are zeros.
    """
    padding = padding or {}
    units: list[Unit] = []
    seen: set[tuple[int, int]] = set()
    for tensor in sorted(file.tensors, key=lambda tensor: tensor.offset):
        range_ = (tensor.offset, tensor.offset + tensor.nbytes)
        # Tied tensors of a torch file lie at one place, and one of them is written.
        if range_ in seen or not copies.get(tensor.name):
            continue
        seen.add(range_)
        done = {id(copy) for copy in shared.get(tensor.name, ())}
        left = [copy for copy in copies.get(tensor.name, ()) if id(copy) not in done]
        if all(copy.copy_class == EXTENT for copy in left):
            units.extend(_ranges(tensor, left))
        else:
            finished = sum(tensor.dtype.nbytes(elements(copy.loops)) for copy in shared.get(tensor.name, ()))
            parts = tuple((copy, None) for copy in left)
            rest = tensor.dtype.nbytes(padding.get(tensor.name, 0))
            start, end = range_
            units.append(Unit(tensor.name, start, end - rest, tensor.nbytes - rest - finished, parts))
        units.extend(_zeros(tensor, padding.get(tensor.name, 0)))
    return units


def trailing(zeros: Zeros, tensor: StoredTensor) -> int:
    """How many elements at the tensor's end are zeros. Raises UnsupportedError for zeros elsewhere."""
    count = elements(zeros.loops)
    if run_length(zeros.loops) != count or zeros.offset + count != tensor.elements:
        raise UnsupportedError(f"{tensor.name}: zeros between weights cannot be written")
    return count


def _zeros(tensor: StoredTensor, padding: int) -> Iterator[Unit]:
    end = tensor.offset + tensor.nbytes
    start = end - tensor.dtype.nbytes(padding)
    for begin in range(start, end, RANGE):
        stop = min(begin + RANGE, end)
        yield Unit(tensor.name, begin, stop, stop - begin, (), zeros=True)


def _ranges(tensor: StoredTensor, copies: Sequence[Copy]) -> Iterator[Unit]:
    """Extents joined where they follow one another, and cut where they are long."""
    parts: list[tuple[Copy, Box | None]] = []
    start = end = 0
    for copy in sorted(copies, key=lambda copy: copy.target_offset):
        for box in _pieces(tensor, copy):
            begin = tensor.offset + tensor.dtype.nbytes(box.target)
            size = tensor.dtype.nbytes(box.elements)
            if parts and (begin != end or end + size - start > RANGE):
                yield Unit(tensor.name, start, end, end - start, tuple(parts))
                parts = []
            if not parts:
                start = begin
            parts.append((copy, box))
            end = begin + size
    if parts:
        yield Unit(tensor.name, start, end, end - start, tuple(parts))


def _pieces(tensor: StoredTensor, copy: Copy) -> Iterator[Box]:
    loops = coalesce(copy.loops)
    total = elements(loops)
    if total == 0:
        return
    # Only a single range can be cut here; anything else is refused by its executor.
    if len(loops) > 1 or (loops and (loops[0].source_stride, loops[0].target_stride) != (1, 1)):
        yield Box(loops, copy.source_offset, copy.target_offset)
        return
    step = max(1, RANGE // tensor.dtype.block_bytes) * tensor.dtype.block
    for done in range(0, total, step):
        count = min(step, total - done)
        yield Box((Loop(count, 1, 1),), copy.source_offset + done, copy.target_offset + done)
