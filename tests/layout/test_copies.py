"""Coalescing and runs: the same copy with the fewest loops, and its contiguous pieces one by one."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porter.layout import Loop, Run, coalesce, elements, run_length, runs


def moves(loops):
    """Every (source, target) pair of element offsets that the loops walk, written out."""
    steps = [
        [(step * loop.source_stride, step * loop.target_stride) for step in range(loop.size)]
        for loop in loops
    ]
    return {
        (sum(source for source, _ in point), sum(target for _, target in point))
        for point in itertools.product(*steps)
    }


@st.composite
def nests(draw):
    """Loops as two dense row-major tensors give them: every axis of one size, in two orders, in any order."""
    sizes = draw(st.lists(st.integers(0, 4), max_size=5))
    orders = [draw(st.permutations(range(len(sizes)))) for _ in range(2)]
    strides = []
    for order in orders:
        stride, found = 1, {}
        for axis in reversed(order):
            found[axis] = stride
            stride *= max(sizes[axis], 1)
        strides.append(found)
    loops = [Loop(size, strides[0][axis], strides[1][axis]) for axis, size in enumerate(sizes)]
    return draw(st.permutations(loops))


@settings(max_examples=300)
@given(nests())
def test_coalescing_changes_no_move(loops):
    assert moves(coalesce(loops)) == moves(loops)
    assert elements(coalesce(loops)) == math.prod(loop.size for loop in loops)


@settings(max_examples=300)
@given(nests())
def test_coalescing_leaves_nothing_to_join(loops):
    result = coalesce(loops)
    if elements(loops) == 0:
        assert result == (Loop(0, 1, 1),)
        return
    assert all(loop.size > 1 for loop in result)
    for outer, inner in itertools.permutations(result, 2):
        gapless = (
            outer.source_stride == inner.source_stride * inner.size
            and outer.target_stride == inner.target_stride * inner.size
        )
        assert not gapless
    assert [loop.target_stride for loop in result] == sorted(
        (loop.target_stride for loop in result), reverse=True
    )


@settings(max_examples=200)
@given(nests(), st.integers(0, 9), st.integers(0, 9))
def test_runs_are_the_moves_joined_up(loops, source, target):
    found = [
        (run.source + step, run.target + step)
        for run in runs(coalesce(loops), source, target)
        for step in range(run.length)
    ]
    assert len(found) == len(set(found)), "nothing is moved twice"
    assert set(found) == {(a + source, b + target) for a, b in moves(loops)}
    assert [b for _, b in found] == sorted(b for _, b in found), "in the order of the target's addresses"


@pytest.mark.parametrize(
    ("loops", "joined"),
    [
        ([], ()),
        ([Loop(1, 7, 9)], ()),
        ([Loop(3, 5, 5), Loop(5, 1, 1)], (Loop(15, 1, 1),)),
        ([Loop(5, 1, 1), Loop(3, 5, 5)], (Loop(15, 1, 1),)),
        ([Loop(3, 10, 5), Loop(5, 1, 1)], (Loop(3, 10, 5), Loop(5, 1, 1))),
        ([Loop(3, 1, 5), Loop(5, 3, 1)], (Loop(3, 1, 5), Loop(5, 3, 1))),
        ([Loop(2, 15, 15), Loop(3, 5, 5), Loop(5, 1, 1)], (Loop(30, 1, 1),)),
        ([Loop(2, 3, 3), Loop(0, 1, 1)], (Loop(0, 1, 1),)),
        # A repeated source (stride 0) is never joined with a moving one.
        ([Loop(4, 0, 3), Loop(3, 1, 1)], (Loop(4, 0, 3), Loop(3, 1, 1))),
    ],
)
def test_coalescing_in_numbers(loops, joined):
    assert coalesce(loops) == joined


@pytest.mark.parametrize(
    ("loops", "length"),
    [
        ((), 1),
        ((Loop(15, 1, 1),), 15),
        ((Loop(3, 10, 5), Loop(5, 1, 1)), 5),
        ((Loop(3, 1, 5), Loop(5, 3, 1)), 1),
        ((Loop(5, 2, 1),), 1),
    ],
)
def test_run_length_says_how_far_a_copy_is_contiguous(loops, length):
    assert run_length(loops) == length
    assert {run.length for run in runs(loops)} == {length}


def test_runs_in_numbers():
    assert list(runs((Loop(2, 10, 5), Loop(5, 1, 1)), 100, 200)) == [Run(100, 200, 5), Run(110, 205, 5)]
    assert list(runs((), 3, 4)) == [Run(3, 4, 1)]
    assert list(runs((Loop(0, 1, 1),))) == []


def test_runs_are_made_one_by_one():
    """A copy of 10^15 runs: whoever listed them would not come back."""
    lazy = runs((Loop(10**15, 16, 8), Loop(8, 1, 1)))
    assert not isinstance(lazy, list | tuple)
    assert list(itertools.islice(lazy, 3)) == [Run(0, 0, 8), Run(16, 8, 8), Run(32, 16, 8)]
