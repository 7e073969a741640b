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


def cut_to_tiles(box: Box, limit: int, source_run: int, *, by_target_span: bool = False) -> Iterator[Box]:
    """Boxes of at most `limit` elements, in the target's order as far as the source allows.

    The loop that is innermost in the source is not made shorter than `source_run` while another one can be
    cut. With `by_target_span` a box's elements lie at most `limit` elements apart in the target.
    """
    cost = _target_span if by_target_span else _elements
    inner = min(range(len(box.loops)), key=lambda axis: box.loops[axis].source_stride, default=None)
    yield from _tile(box, limit, cost, inner, source_run)


def _tile(box: Box, limit: int, cost: Callable[[Box], int], inner: int | None, run: int) -> Iterator[Box]:
    divisible = [axis for axis, loop in enumerate(box.loops) if loop.size > 1]
    if cost(box) <= limit or not divisible:
        yield box
        return
    long_enough = [axis for axis in divisible if axis != inner or box.loops[axis].size > run]
    # The steps of the widest loop lie farthest apart, so that parts of it overlap least.
    axis = max(long_enough or divisible, key=lambda axis: box.loops[axis].target_stride)
    count = _count(box, limit, cost, axis)
    if axis == inner and long_enough:
        count = max(count, run)
    for part in parts(box, axis, count):
        yield from _tile(part, limit, cost, inner, run)


def cut_by_source_span(box: Box, limit: int) -> Iterator[Box]:
    """Boxes whose elements lie at most `limit` elements apart in the source."""
    divisible = [axis for axis, loop in enumerate(box.loops) if loop.size > 1]
    if box.source_span <= limit or not divisible:
        yield box
        return
    axis = max(divisible, key=lambda axis: box.loops[axis].source_stride)
    for part in parts(box, axis, _count(box, limit, _source_span, axis)):
        yield from cut_by_source_span(part, limit)


def _elements(box: Box) -> int:
    return box.elements


def _target_span(box: Box) -> int:
    return box.target_span


def _source_span(box: Box) -> int:
    return box.source_span


def _count(box: Box, limit: int, cost: Callable[[Box], int], axis: int) -> int:
    """How many steps of a loop fit the limit, at least one; every cost grows evenly with a loop's size."""
    single = cost(_part(box, axis, 0, 1))
    step = cost(_part(box, axis, 0, 2)) - single
    return max(1, 1 + (limit - single) // max(step, 1))


def parts(box: Box, axis: int, count: int) -> Iterator[Box]:
    """The box cut along one loop, `count` steps in each part."""
    size = box.loops[axis].size
    for start in range(0, size, count):
        yield _part(box, axis, start, min(count, size - start))


def _part(box: Box, axis: int, start: int, count: int) -> Box:
    loop = box.loops[axis]
    loops = (*box.loops[:axis], Loop(count, loop.source_stride, loop.target_stride), *box.loops[axis + 1 :])
    return Box(loops, box.source + start * loop.source_stride, box.target + start * loop.target_stride)


def clip_to_target(box: Box, low: int, high: int) -> Iterator[Box]:
    """Parts of a box that hold just its elements whose place in the target is in `low` to `high`.

    Where loops nest cleanly, as those of a row-major tensor do, there are at most two a loop, and one.
    """
    first, span = box.target, box.target_span
    if box.elements == 0 or first + span <= low or first >= high:
        return
    if low <= first and first + span <= high:
        yield box
        return
    # What lies in part within the bounds has a loop of several steps.
    axis = max(
        (axis for axis, loop in enumerate(box.loops) if loop.size > 1),
        key=lambda axis: box.loops[axis].target_stride,
    )
    size, stride = box.loops[axis].size, box.loops[axis].target_stride
    inner = span - (size - 1) * stride
    # Steps that touch the bounds at all, and those that lie within them.
    begin, end = max(0, (low - first - inner) // stride + 1), min(size, -(-(high - first) // stride))
    whole = max(begin, -(-(low - first) // stride))
    whole_end = max(whole, min(end, (high - inner - first) // stride + 1))
    for step in range(begin, min(whole, end)):
        yield from clip_to_target(_part(box, axis, step, 1), low, high)
    if whole < whole_end:
        yield _part(box, axis, whole, whole_end - whole)
    for step in range(whole_end, end):
        yield from clip_to_target(_part(box, axis, step, 1), low, high)


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
