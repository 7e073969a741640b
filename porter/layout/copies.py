"""A strided copy between two address maps, and the byte runs that it is made of.

A copy is a nest of loops over elements: each loop has a size and one stride on either side. Coalescing
drops loops of size one and joins loops that walk memory without a gap, so that what is left says how
the copy has to be run: no loop or one unit-stride loop is a plain range, a unit innermost loop is a
sequence of ranges, anything else is a real transpose.

Strides are in elements, never in bytes; a stride of 0 on the source side would repeat. Runs are made
lazily: a plan stores loops, never lists of runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Loop(NamedTuple):
    """`size` steps, each `source_stride` and `target_stride` elements apart."""

    size: int
    source_stride: int
    target_stride: int


class Run(NamedTuple):
    """`length` elements that are contiguous on both sides, at element offsets within the two tensors."""

    source: int
    target: int
    length: int


def coalesce(loops: Sequence[Loop]) -> tuple[Loop, ...]:
    """The same copy with the fewest loops, outermost first in the target's order.

    Loops may be given in any order, since a copy has none; target strides must not be zero.
    """
    if any(loop.size == 0 for loop in loops):
        return (Loop(0, 1, 1),)
    ordered = sorted(
        (loop for loop in loops if loop.size != 1),
        key=lambda loop: (-loop.target_stride, -loop.source_stride),
    )
    merged: list[Loop] = []
    for loop in ordered:
        if merged:
            outer = merged[-1]
            if (
                outer.target_stride == loop.target_stride * loop.size
                and outer.source_stride == loop.source_stride * loop.size
            ):
                merged[-1] = Loop(outer.size * loop.size, loop.source_stride, loop.target_stride)
                continue
        merged.append(loop)
    return tuple(merged)


def elements(loops: Sequence[Loop]) -> int:
    """How many elements the copy moves."""
    return loops[0].size if len(loops) == 1 else math.prod([loop.size for loop in loops])


def run_length(loops: Sequence[Loop]) -> int:
    """Elements per contiguous run of a coalesced copy; 1 for a real transpose or a single element."""
    if not loops:
        return 1
    last = loops[-1]
    return last.size if last.source_stride == 1 and last.target_stride == 1 else 1


def runs(loops: Sequence[Loop], source_offset: int = 0, target_offset: int = 0) -> Iterator[Run]:
    """The runs of a coalesced copy, in the order of the target's addresses where loops nest cleanly."""
    if elements(loops) == 0:
        return
    length = run_length(loops)
    outer = loops[:-1] if loops and length > 1 else loops
    yield from _walk(outer, source_offset, target_offset, length)


def _walk(loops: Sequence[Loop], source: int, target: int, length: int) -> Iterator[Run]:
    if not loops:
        yield Run(source, target, length)
        return
    loop, inner = loops[0], loops[1:]
    for step in range(loop.size):
        yield from _walk(
            inner, source + step * loop.source_stride, target + step * loop.target_stride, length
        )
