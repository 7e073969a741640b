"""Every class of copy moves the same bytes as NumPy, whatever the loops, item size and buffer size.

The oracle never looks at loops: it transposes, slices and concatenates arrays. The copies' loops are made
beside it, from the same axes.
"""

import hashlib
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from porter.errors import MalformedError, PorterError, UnsupportedError
from porter.execution import units
from porter.execution.kernels import extents, gather, runs, tiles
from porter.execution.run_options import RunOptions
from porter.execution.sinks.directory import FileWriter
from porter.layout.copies import Loop, coalesce, run_length
from porter.planning.plan import EXTENT, RUNS, TILE, Copy

DTYPE = {1: "U8", 2: "BF16", 4: "F32", 8: "I64"}
RAW = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

lenient = settings(max_examples=150, suppress_health_check=list(HealthCheck))


def strides(shape):
    """Row-major strides in elements."""
    return [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]


def noise(shape, item, seed=0):
    count = int(np.prod(shape)) * item
    return np.random.default_rng(seed).integers(0, 256, count, np.uint8).view(RAW[item]).reshape(shape)


def kind_of(loops):
    loops = coalesce(loops)
    total = int(np.prod([loop.size for loop in loops]))
    if total == 0 or run_length(loops) == total:
        return EXTENT
    return RUNS if run_length(loops) > 1 else TILE


@st.composite
def cases(draw):
    """A source array, a box cut out of it, its axes permuted, set into a larger target."""
    rank = draw(st.integers(0, 4))
    whole = [draw(st.integers(1, 6)) for _ in range(rank)]
    cut = [sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size)))) for size in whole]
    if draw(st.booleans()):
        cut = [(0, size) for size in whole]
    order = draw(st.permutations(range(rank)))
    margins = draw(st.lists(st.sampled_from([(0, 0), (0, 0), (1, 0), (0, 2)]), min_size=rank, max_size=rank))
    return whole, cut, order, margins, draw(st.sampled_from(sorted(DTYPE)))


@pytest.mark.parametrize("budget", [1, 7, 24, 1 << 20])
@lenient
@given(
    case=cases(),
    seed=st.integers(0, 9),
    long_run=st.sampled_from([1, 9, 1 << 20]),
    loose=st.sampled_from([0, 1, 4]),
    spread=st.sampled_from([1, 16, 1 << 20]),
)
def test_any_box_in_any_order_at_any_place(new_bench, budget, case, seed, long_run, loose, spread):
    whole, cut, order, margins, item = case
    source = noise(whole, item, seed)
    inner = source[tuple(slice(start, stop) for start, stop in cut)].transpose(order)
    target_shape = [inner.shape[axis] + sum(margins[axis]) for axis in range(inner.ndim)]
    inside = tuple(slice(low, low + size) for (low, _), size in zip(margins, inner.shape, strict=True))
    expected = noise(target_shape, item, seed + 100)
    rest = np.ones(target_shape, bool)
    rest[inside] = False
    background = expected.copy()
    expected[inside] = inner

    into, out_of = strides(target_shape), strides(whole)
    box = tuple(Loop(inner.shape[axis], out_of[order[axis]], into[axis]) for axis in range(inner.ndim))
    source_offset = sum(start * stride for (start, _), stride in zip(cut, out_of, strict=True))
    target_offset = sum(low * stride for (low, _), stride in zip(margins, into, strict=True))
    bench = new_bench()
    bench.source("a", DTYPE[item], whole, source.tobytes())
    bench.source("background", DTYPE[item], target_shape, background.tobytes())
    bench.target("b", DTYPE[item], target_shape)
    if inner.size:
        loops = coalesce(box)
        bench.copies.append(Copy("a", "a", "b", source_offset, target_offset, loops, kind_of(box)))
    # The margins come from elsewhere, one element at a time: tiles and extents in one tensor.
    for index in np.flatnonzero(rest):
        bench.copies.append(Copy("x", "background", "b", int(index), int(index), (), EXTENT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extents, "BUFFER", budget)
        patch.setattr(runs, "BUFFER", budget)
        patch.setattr(runs, "WINDOW", budget)
        patch.setattr(runs, "LONG_RUN", long_run)
        patch.setattr(tiles, "TILE", budget)
        patch.setattr(tiles, "SHORT_SPAN", 16)
        patch.setattr(tiles, "SOURCE_RUN", 8)
        patch.setattr(tiles, "_LEAST_SIDE", 1)
        patch.setattr(tiles, "STRIP", max(1, budget // 2))
        patch.setattr(tiles, "BLOCK_ROWS", 3)
        patch.setattr(tiles, "BLOCK_COLUMNS", 2)
        patch.setattr(gather, "SPREAD", spread)
        patch.setattr(gather, "LINE", 8)
        patch.setattr(gather, "_MOST_VIEWS", 3)
        patch.setattr(gather, "SOURCE_SPAN", budget)
        patch.setattr(gather, "SHORT_RUN", long_run)
        patch.setattr(gather, "LOOSE", loose)
        patch.setattr(gather, "LONG_GAP", 1 << 10 if long_run == 1 else budget)
        patch.setattr(units, "RANGE", max(1, budget // 3))
        patch.setattr(units, "RANGE", budget)
        _, found = bench.run()
    assert found["b"] == expected.tobytes()


def test_a_wrong_stride_is_seen_by_the_comparison_above(bench):
    source = noise((3, 5), 4)
    bench.source("a", "F32", (3, 5), source.tobytes())
    bench.target("b", "F32", (5, 3))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(5, 3, 3), Loop(3, 1, 1)), RUNS))
    _, found = bench.run()
    assert found["b"] != source.T.tobytes()


@pytest.mark.parametrize("item", sorted(DTYPE))
@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((1030, 700), (1, 0)),
        ((130, 5001), (1, 0)),
        ((4096, 514), (1, 0)),
        ((3, 520, 300), (2, 1, 0)),
        ((3, 520, 300), (0, 2, 1)),
        ((7, 64, 512), (1, 2, 0)),
    ],
)
def test_matrices_beyond_every_block_and_strip_are_turned(bench, item, shape, order):
    """Blocks, strips and spread rows as they are, and matrices that none of them divides."""
    source = noise(shape, item)
    expected = np.ascontiguousarray(source.transpose(order))
    out_of, into = strides(shape), strides(expected.shape)
    loops = coalesce([Loop(shape[axis], out_of[axis], into[place]) for place, axis in enumerate(order)])
    bench.source("a", DTYPE[item], shape, source.tobytes())
    bench.target("b", DTYPE[item], expected.shape)
    bench.copies.append(Copy("a", "a", "b", 0, 0, loops, TILE))
    _, found = bench.run(options=RunOptions(max_memory=8 << 20))
    assert found["b"] == expected.tobytes()


@pytest.mark.parametrize("item", sorted(DTYPE))
@pytest.mark.parametrize("kind", [RUNS, TILE])
def test_every_class_can_run_simpler_copies(bench, kind, item):
    source = noise((4, 6), item)
    bench.source("a", DTYPE[item], (4, 6), source.tobytes())
    bench.target("b", DTYPE[item], (4, 6))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(24, 1, 1),), kind))
    result, found = bench.run()
    assert found["b"] == source.tobytes()
    assert result.digests["model.safetensors"]


@pytest.mark.parametrize("item", sorted(DTYPE))
@pytest.mark.parametrize("n_head, head_dim, d_model", [(3, 5, 7), (2, 64, 130)])
def test_heads_with_the_head_dim_last_are_transposed(bench, item, n_head, head_dim, d_model):
    source = noise((n_head, d_model, head_dim), item)
    bench.source("q", DTYPE[item], source.shape, source.tobytes())
    bench.target("q", DTYPE[item], (n_head * head_dim, d_model))
    loops = (
        Loop(n_head, d_model * head_dim, head_dim * d_model),
        Loop(head_dim, 1, d_model),
        Loop(d_model, head_dim, 1),
    )
    bench.copies.append(Copy("q", "q", "q", 0, 0, loops, TILE))
    _, found = bench.run()
    assert found["q"] == source.transpose(0, 2, 1).tobytes()


def test_fused_and_interleaved_qkv_come_from_three_sources(bench):
    kv, per, dim, width = 2, 3, 4, 5
    q, k, v = (noise((kv, heads, dim, width), 2, seed) for seed, heads in enumerate([per, 1, 1]))
    fused = np.concatenate([q, k, v], axis=1)
    bench.target("qkv", "BF16", (fused.size // width, width))
    offset = 0
    for name, part in {"q": q, "k": k, "v": v}.items():
        bench.source(name, "BF16", part.shape, part.tobytes())
        run = part.size // kv
        loops = (Loop(kv, run, fused.size // kv), Loop(run, 1, 1))
        bench.copies.append(Copy(name, name, "qkv", 0, offset, loops, RUNS))
        offset += run
    result, found = bench.run()
    assert found["qkv"] == fused.tobytes()
    # Written out of order, and hashed nevertheless.
    whole = (result.out / "model.safetensors").read_bytes()
    assert result.digests["model.safetensors"] == "sha256:" + hashlib.sha256(whole).hexdigest()


def test_single_elements_interleaved_are_put_together_in_memory(bench, monkeypatch):
    gate, up = noise((300, 40), 2, 1), noise((300, 40), 2, 2)
    bench.target("gate_up", "BF16", (300, 80))
    for index, (name, part) in enumerate({"gate": gate, "up": up}.items()):
        bench.source(name, "BF16", part.shape, part.tobytes())
        bench.copies.append(Copy(name, name, "gate_up", 0, index, (Loop(12000, 1, 2),), TILE))
    calls = []
    write = FileWriter.write
    monkeypatch.setattr(FileWriter, "write", lambda self, *data: (calls.append(1), write(self, *data)))
    _, found = bench.run()
    assert found["gate_up"] == np.stack([gate, up], axis=-1).tobytes()
    assert len(calls) < 10


def test_a_dtype_is_never_relabelled(bench):
    bench.source("a", "F16", (4,), bytes(8))
    bench.target("b", "BF16", (4,))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(4, 1, 1),), EXTENT))
    with pytest.raises(PorterError, match="change the dtype"):
        bench.run()


def test_packed_dtypes_move_whole_bytes_only(bench):
    bench.source("a", "F4", (4, 8), bytes(range(16)))
    bench.target("b", "F4", (4, 4))
    bench.copies.append(Copy("a", "a", "b", 2, 0, (Loop(4, 8, 4), Loop(4, 1, 1)), RUNS))
    _, found = bench.run("good")
    assert found["b"] == bytes([1, 2, 5, 6, 9, 10, 13, 14])
    bench.copies[0] = Copy("a", "a", "b", 1, 0, (Loop(4, 8, 4), Loop(4, 1, 1)), RUNS)
    with pytest.raises(UnsupportedError):
        bench.run("bad")


@pytest.mark.parametrize("kind", [EXTENT, RUNS, TILE])
def test_tensors_without_elements_need_no_bytes(bench, kind):
    bench.source("a", "F32", (0, 3), b"")
    bench.target("b", "F32", (3, 0))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(0, 1, 1),), kind))
    _, found = bench.run()
    assert found["b"] == b""


@pytest.mark.parametrize(
    "offsets, loop", [((1, 0), Loop(6, 1, 1)), ((0, 1), Loop(6, 1, 1)), ((0, 0), Loop(4, 2, 1))]
)
def test_a_copy_that_leaves_its_tensors_is_refused(bench, offsets, loop):
    bench.source("a", "F32", (6,), bytes(24))
    bench.target("b", "F32", (6,))
    bench.copies.append(Copy("a", "a", "b", *offsets, (loop,), TILE))
    with pytest.raises(PorterError, match="leaves its tensors"):
        bench.run()


def test_bytes_that_no_copy_writes_are_noticed(bench):
    bench.source("a", "F32", (6,), bytes(24))
    bench.target("b", "F32", (6,))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(5, 1, 1),), EXTENT))
    with pytest.raises(PorterError, match="each byte once"):
        bench.run()


def test_a_source_cut_short_while_it_is_read_is_malformed(bench, monkeypatch):
    bench.source("a", "U8", (2000,), bytes(2000))
    bench.target("b", "U8", (2000,))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(2000, 1, 1),), EXTENT))
    read = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, at: 0 if at > 1000 else read(fd, [views[0][:300]], at)
    )
    with pytest.raises(MalformedError, match="cut short"):
        bench.run()
    assert [path.name for path in bench.root.iterdir()] == ["source"]
