"""Address maps against a recursive reference in NumPy: reshape, transpose and concatenate, and no stride.

The reference takes nested tuples, not porter's parsed layouts: ("axis", name), ("unit",) and
("group", [dims, ...]).
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porter.layout import AddressMap, LayoutError, bind, parse_layout, runs, strided_copy

AXES = "abcdefgh"


def text_of(dims):
    def one(dim):
        if dim[0] == "group":
            return "(" + " | ".join(text_of(alternative) for alternative in dim[1]) + ")"
        return dim[1] if dim[0] == "axis" else "1"

    return " ".join(map(one, dims))


def leaf_count(dims):
    return math.prod(sum(map(leaf_count, dim[1])) if dim[0] == "group" else 1 for dim in dims)


def leaf_axes(dims):
    """The axes of each leaf; only one dim of a product may hold a sum."""
    leaves = [[]]
    for dim in dims:
        if dim[0] == "axis":
            leaves = [[*leaf, dim[1]] for leaf in leaves]
        elif dim[0] == "group":
            inner = [leaf for alternative in dim[1] for leaf in leaf_axes(alternative)]
            leaves = [[*leaf, *more] for leaf in leaves for more in inner]
    return leaves


def size_of(dim, sizes):
    if dim[0] == "axis":
        return sizes[dim[1]]
    if dim[0] == "unit":
        return 1
    return sum(math.prod(size_of(inner, sizes) for inner in alternative) for alternative in dim[1])


def store(dims, leaves, sizes):
    """The stored array of a product of dims. `leaves` are pairs of axis names and canonical array."""
    if len(leaves) == 1:
        names, array = leaves[0]
        [order] = leaf_axes(dims)
        return array.transpose([names.index(axis) for axis in order]).reshape(
            [size_of(dim, sizes) for dim in dims]
        )
    place = next(number for number, dim in enumerate(dims) if leaf_count([dim]) > 1)
    before, after = dims[:place], dims[place + 1 :]
    parts = []
    for alternative in dims[place][1]:
        taken, leaves = leaves[: leaf_count(alternative)], leaves[leaf_count(alternative) :]
        part = store([*before, *alternative, *after], taken, sizes)
        merged = math.prod(size_of(dim, sizes) for dim in alternative)
        parts.append(
            part.reshape(
                [
                    *(size_of(dim, sizes) for dim in before),
                    merged,
                    *(size_of(dim, sizes) for dim in after),
                ]
            )
        )
    return np.concatenate(parts, axis=place)


@st.composite
def products(draw, used=frozenset(), may_sum=True, depth=0, least=0):
    """Dims of one product, with at most one sum among them, over axes that are not used outside."""
    count = draw(st.integers(least, 3))
    sums_at = draw(st.integers(0, max(count - 1, 0))) if may_sum else -1
    dims, used = [], set(used)
    for number in range(count):
        kinds = ["unit"]
        if depth < 3:
            kinds.append("group")
        free = sorted(set(AXES) - used)
        if free:
            kinds += ["axis", "axis"]
        kind = draw(st.sampled_from(kinds))
        if kind == "unit":
            dims.append(("unit",))
        elif kind == "axis":
            name = draw(st.sampled_from(free))
            used.add(name)
            dims.append(("axis", name))
        else:
            blocks = draw(st.integers(1, 3)) if number == sums_at else 1
            alternatives = [
                draw(products(frozenset(used), number == sums_at, depth + 1, 1)) for _ in range(blocks)
            ]
            dims.append(("group", alternatives))
            for alternative in alternatives:
                used |= {axis for leaf in leaf_axes(alternative) for axis in leaf}
    return dims


sizes_of_axes = st.fixed_dictionaries({axis: st.sampled_from([0, 1, 2, 2, 3, 3, 4]) for axis in AXES})


def canonical_arrays(dims, sizes, draw):
    """One array for each leaf, its axes in an order of its own, all elements different."""
    leaves, start = [], 0
    for axes in leaf_axes(dims):
        names = draw(st.permutations(axes))
        shape = [sizes[axis] for axis in names]
        count = math.prod(shape)
        leaves.append((list(names), np.arange(start, start + count).reshape(shape)))
        start += count
    return leaves


@settings(max_examples=150)
@given(products(), sizes_of_axes, st.data())
def test_every_element_lies_at_its_address(read_back, dims, sizes, data):
    leaves = canonical_arrays(dims, sizes, data.draw)
    stored = store(dims, leaves, sizes)
    layout = parse_layout(text_of(dims))
    bound = bind(layout, sizes)

    assert bound.shape == stored.shape
    assert [sorted(leaf) for leaf in layout.leaves] == [sorted(names) for names, _ in leaves]
    assert sum(array.size for _, array in leaves) == stored.size, "leaves partition the tensor"
    for address, (names, array) in zip(bound.leaves, leaves, strict=True):
        assert np.array_equal(read_back(address, names, sizes, stored), array)


@settings(max_examples=150)
@given(products(), sizes_of_axes, st.data())
def test_two_dialects_meet_in_one_copy_and_its_inverse(run_copy, dims, sizes, data):
    """From a random layout to another one over the same canonical tensors, and back, byte for byte."""
    leaves = canonical_arrays(dims, sizes, data.draw)
    other = [("group", [[("axis", axis) for axis in names] or [("unit",)] for names, _ in leaves])]
    source, wanted = store(dims, leaves, sizes).reshape(-1), store(other, leaves, sizes).reshape(-1)
    maps = list(
        zip(
            bind(parse_layout(text_of(dims)), sizes).leaves,
            bind(parse_layout(text_of(other)), sizes).leaves,
            strict=True,
        )
    )

    target = np.full_like(wanted, -1)
    for ours, theirs in maps:
        run_copy(ours, theirs, sizes, source, target)
    assert np.array_equal(target, wanted)

    back = np.full_like(source, -1)
    for ours, theirs in maps:
        run_copy(theirs, ours, sizes, target, back)
    assert back.tobytes() == source.tobytes()


def test_the_reference_and_the_maps_can_disagree(read_back):
    """Negative control: the same array read through a layout with two axes swapped is another one."""
    sizes = {"a": 2, "b": 3}
    array = np.arange(6).reshape(2, 3)
    stored = store([("axis", "a"), ("axis", "b")], [(["a", "b"], array)], sizes)
    wrong = bind(parse_layout("(b a)"), sizes).leaves[0]
    assert not np.array_equal(read_back(wrong, ["a", "b"], sizes, stored), array)


def test_a_bound_layout_in_numbers():
    bound = bind(parse_layout("(g (q | 1 | 1) h) m"), {"g": 2, "q": 3, "h": 5, "m": 7})
    assert bound.shape == (2 * 5 * 5, 7)
    query, key, value = bound.leaves
    assert query == AddressMap(0, {"g": 5 * 5 * 7, "q": 5 * 7, "h": 7, "m": 1})
    assert key == AddressMap(3 * 5 * 7, {"g": 5 * 5 * 7, "h": 7, "m": 1})
    assert value == AddressMap(4 * 5 * 7, {"g": 5 * 5 * 7, "h": 7, "m": 1})


def test_the_empty_layout_is_a_scalar():
    assert bind(parse_layout(""), {}).shape == ()
    assert bind(parse_layout(""), {}).leaves == (AddressMap(0, {}),)


def test_an_axis_held_fixed_moves_into_the_offset():
    address = AddressMap(11, {"layer": 100, "row": 10, "column": 1})
    assert address.at({"layer": 3, "expert": 9}) == AddressMap(311, {"row": 10, "column": 1})


@pytest.mark.parametrize("size", [None, -1])
def test_an_axis_needs_a_size(size):
    sizes = {"a": 2} | ({} if size is None else {"b": size})
    with pytest.raises(LayoutError, match="the axis b"):
        bind(parse_layout("a b"), sizes)


def test_both_sides_of_a_copy_run_over_the_same_axes():
    with pytest.raises(LayoutError, match="different axes") as caught:
        strided_copy(AddressMap(0, {"a": 1}), AddressMap(0, {"b": 1}), {"a": 2, "b": 2})
    assert "source: a; target: b" in caught.value.cause


def test_a_copy_of_nothing_has_no_runs():
    bound = bind(parse_layout("a b"), {"a": 0, "b": 3})
    _, _, loops = strided_copy(bound.leaves[0], bound.leaves[0], {"a": 0, "b": 3})
    assert list(runs(loops)) == []


@pytest.mark.parametrize(
    "text", ["(a b | c b) d", "(a (b | 1 | 1) c) d", "a (d | 1) 1 (b c)", "1 d", "a b c d"]
)
@given(data=st.data())
@settings(max_examples=25)
def test_a_view_is_walked_by_its_strides(text, data):
    """Against NumPy: the storage's own numbers, seen through the view, at each row-major place."""
    sizes = {axis: data.draw(st.integers(1, 4)) for axis in "abcd"}
    bound = bind(parse_layout(text), sizes)
    order = data.draw(st.permutations(range(len(bound.shape))))
    steps = data.draw(st.lists(st.integers(1, 2), min_size=len(order), max_size=len(order)))
    wide = [bound.shape[axis] * steps[axis] for axis in order]
    storage = np.arange(math.prod(wide)).reshape(wide).transpose(np.argsort(order))
    view = storage[tuple(slice(None, None, step) for step in steps)]
    strides = tuple(step // view.itemsize for step in view.strides)
    places = view.reshape(-1)
    for leaf in bound.leaves:
        walked = leaf.restrided(bound.shape, strides)
        for point in np.ndindex(*(sizes[axis] for axis in leaf.strides)):
            at = dict(zip(leaf.strides, point, strict=True))
            assert walked.at(at).offset == places[leaf.at(at).offset]
