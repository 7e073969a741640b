"""Cutting a strided copy into boxes that fit a budget, and telling how it lies in bytes.

A box is a part of a copy's loop nest with its own offsets. Pure arithmetic over elements; no byte is
touched here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from porter.dtypes import Dtype
from porter.layout.copies import Loop, coalesce, elements, run_length


@dataclass(frozen=True)
class Box:
    """Loops and where their first element lies, in elements from the start of the two tensors."""

    loops: tuple[Loop, ...]
    source: int
    target: int

    @property
    def elements(self) -> int:
        return elements(self.loops)

    @property
    def source_span(self) -> int:
        """Elements from the first to the last one read, those between them included."""
        return 1 + sum((loop.size - 1) * loop.source_stride for loop in self.loops)

    @property
    def target_span(self) -> int:
        """Elements from the first to the last one written, those between them included."""
        return 1 + sum((loop.size - 1) * loop.target_stride for loop in self.loops)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(loop.size for loop in self.loops)


def cut_by_elements(box: Box, limit: int) -> Iterator[Box]:
    """Boxes of at most `limit` elements, cut along the loops that are outermost in the target."""
    return _cut(box, limit, lambda part: part.elements, lambda loop: loop.target_stride)


def cut_by_target_span(box: Box, limit: int) -> Iterator[Box]:
    """Boxes whose elements lie at most `limit` elements apart in the target."""
    return _cut(box, limit, lambda part: part.target_span, lambda loop: loop.target_stride)


def cut_by_source_span(box: Box, limit: int) -> Iterator[Box]:
    """Boxes whose elements lie at most `limit` elements apart in the source."""
    return _cut(box, limit, lambda part: part.source_span, lambda loop: loop.source_stride)


def _cut(box: Box, limit: int, cost: Callable[[Box], int], stride: Callable[[Loop], int]) -> Iterator[Box]:
    divisible = [index for index, loop in enumerate(box.loops) if loop.size > 1]
    if cost(box) <= limit or not divisible:
        yield box
        return
    # The steps of the widest loop lie farthest apart, so that parts of it overlap least.
    axis = max(divisible, key=lambda index: stride(box.loops[index]))
    size = box.loops[axis].size
    single = cost(_part(box, axis, 0, 1))
    step = cost(_part(box, axis, 0, 2)) - single
    count = max(1, 1 + (limit - single) // step)
    for start in range(0, size, count):
        yield from _cut(_part(box, axis, start, min(count, size - start)), limit, cost, stride)


def _part(box: Box, axis: int, start: int, count: int) -> Box:
    loop = box.loops[axis]
    loops = (*box.loops[:axis], Loop(count, loop.source_stride, loop.target_stride), *box.loops[axis + 1 :])
    return Box(loops, box.source + start * loop.source_stride, box.target + start * loop.target_stride)


def byte_loops(dtype: Dtype, loops: Sequence[Loop]) -> tuple[Loop, ...]:
    """A coalesced copy's loops in bytes instead of elements, the innermost one over a run's bytes.

    Raises UnsupportedError where a run does not hold whole blocks of the dtype.
    """
    length = run_length(loops)
    outer = loops[:-1] if loops and length > 1 else loops
    return (
        *(
            Loop(loop.size, dtype.nbytes(loop.source_stride), dtype.nbytes(loop.target_stride))
            for loop in outer
        ),
        Loop(dtype.nbytes(length), 1, 1),
    )


def packed(box: Box) -> tuple[Loop, ...]:
    """The copy from a packed buffer that holds the box's elements in the order of its loops."""
    loops: list[Loop] = []
    stride = 1
    for loop in reversed(box.loops):
        loops.append(Loop(loop.size, stride, loop.target_stride))
        stride *= loop.size
    return coalesce(loops)
