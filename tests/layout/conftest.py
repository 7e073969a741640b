"""Checks that more than one module uses: a stored array, written by hand, against a layout's address maps."""

import numpy as np
import pytest

from porter.layout import bind, parse_layout, runs, strided_copy


def gather(address, axes, sizes, stored):
    """The canonical array as an address map finds it in a stored array, element by element."""
    flat = stored.reshape(-1)
    found = np.empty([sizes[axis] for axis in axes], dtype=stored.dtype)
    for index in np.ndindex(found.shape):
        place = address.offset + sum(address.strides[axis] * at for axis, at in zip(axes, index, strict=True))
        found[index] = flat[place]
    return found


def copy(source_map, target_map, sizes, source, target):
    """Run the strided copy between two maps over flat buffers, run by run."""
    source_offset, target_offset, loops = strided_copy(source_map, target_map, sizes)
    for run in runs(loops, source_offset, target_offset):
        target[run.target : run.target + run.length] = source[run.source : run.source + run.length]


@pytest.fixture(scope="session")
def numbered():
    """Arrays over named axes whose elements are all different, across the arrays too."""

    def make(sizes, *axes_of_each):
        start, made = 0, []
        for axes in axes_of_each:
            shape = [sizes[axis] for axis in axes.split()]
            count = int(np.prod(shape, dtype=int))
            made.append(np.arange(start, start + count).reshape(shape))
            start += count
        return made

    return make


@pytest.fixture(scope="session")
def holds():
    """Whether `stored` is what the layout says; `weights` are axes and canonical array, leaf by leaf."""

    def check(text, sizes, weights, stored):
        bound = bind(parse_layout(text), sizes)
        if bound.shape != stored.shape or len(bound.leaves) != len(weights):
            return False
        return all(
            set(leaf.strides) == set(axes.split())
            and np.array_equal(gather(leaf, axes.split(), sizes, stored), array)
            for leaf, (axes, array) in zip(bound.leaves, weights, strict=True)
        )

    return check


@pytest.fixture(scope="session")
def run_copy():
    return copy


@pytest.fixture(scope="session")
def read_back():
    return gather
