"""Units tile a plan's files, hold all that is needed to run them, and give the same bytes in any order."""

import itertools
import pickle
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from porter.errors import PorterError
from porter.execution.buffers import Buffers
from porter.execution.frames import frame, frame_bytes
from porter.execution.kernels.boxes import Box, clip_to_target
from porter.execution.run_unit import run_unit
from porter.execution.sinks.directory import FileWriter
from porter.execution.units import units
from porter.layout.copies import Loop, runs
from porter.planning.plan import COMPUTE, EXTENT, RUNS, TILE, Copy, Zeros
from porter.sources.local_files import LocalSource

ROWS, COLUMNS = 60, 140


@pytest.fixture
def ready(bench):
    """Every class of copy, one tensor of two classes, and one with rows that are zeros."""
    noise = random.Random(3)
    for name in ("a", "b"):
        bench.source(name, "BF16", (ROWS, COLUMNS), noise.randbytes(2 * ROWS * COLUMNS))
    whole = (Loop(ROWS * COLUMNS, 1, 1),)
    turned = (Loop(COLUMNS, 1, ROWS), Loop(ROWS, COLUMNS, 1))
    bench.target("extent", "BF16", (ROWS, COLUMNS))
    bench.copies.append(Copy("x", "a", "extent", 0, 0, whole, EXTENT))
    bench.target("turned", "BF16", (COLUMNS, ROWS))
    bench.copies.append(Copy("x", "a", "turned", 0, 0, turned, TILE))
    bench.target("halves", "BF16", (2, ROWS, COLUMNS // 2))
    half = COLUMNS // 2
    loops = (Loop(2, half, ROWS * half), Loop(ROWS, COLUMNS, half), Loop(half, 1, 1))
    bench.copies.append(Copy("x", "b", "halves", 0, 0, loops, RUNS))
    bench.target("wide", "F32", (ROWS * COLUMNS,))
    bench.copies.append(Copy("x", "b", "wide", 0, 0, whole, COMPUTE))
    bench.target("mixed", "BF16", (2, COLUMNS, ROWS))
    bench.copies.append(Copy("x", "a", "mixed", 0, 0, turned, TILE))
    bench.copies.append(Copy("x", "b", "mixed", 0, ROWS * COLUMNS, whole, EXTENT))
    bench.target("padded", "BF16", (ROWS + 7, COLUMNS))
    bench.copies.append(Copy("x", "b", "padded", 0, 0, whole, EXTENT))
    plan = replace(bench.plan(), zeros=(Zeros("padded", ROWS * COLUMNS, (Loop(7 * COLUMNS, 1, 1),)),))
    return bench, plan


@pytest.mark.parametrize("limit", [64, 1000, 7777, 64 << 20])
def test_units_tile_every_file_and_are_bounded(ready, limit):
    _, plan = ready
    found = units(plan, limit)
    assert found == units(plan, limit), "they depend on the plan alone"
    for file in plan.files:
        own = [unit for unit in found if unit.file == file.name]
        assert own[0].start == 0 and own[-1].end == file.size
        assert all(one.end == two.start for one, two in itertools.pairwise(own))
        assert all(0 < unit.nbytes <= limit for unit in own)
        places = {(t.offset, t.offset + t.nbytes): t.name for t in file.tensors}
        for unit in own:
            inside = [name for (low, high), name in places.items() if low <= unit.start and unit.end <= high]
            assert inside == ([unit.tensor] if unit.tensor else [])


def made_by_units(bench, plan, order, limit=1000):
    (file,) = plan.files
    path = bench.root / "by-units"
    writer = FileWriter(path, file.name, file.size)
    pieces = frame(file)
    source = LocalSource(bench.source_root)
    files = {name: source.open(name) for name in plan.source_sizes}
    for unit in order(list(units(plan, limit))):
        if unit.tensor is None:
            writer.write(unit.start, frame_bytes(pieces, unit.start, unit.end, file.name))
        else:
            run_unit(unit, files, writer, Buffers(8 << 20))
    writer.close()
    for opened in files.values():
        opened.close()
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(4))
def test_in_any_order_they_make_the_file_of_a_plain_run(ready, seed):
    bench, plan = ready
    from porter.execution.publish import publish_plan

    out = publish_plan(plan, LocalSource(bench.source_root), bench.root / "out").out
    expected = (out / "model.safetensors").read_bytes()
    shuffled = made_by_units(bench, plan, lambda found: random.Random(seed).sample(found, len(found)))
    assert shuffled == expected
    # Negative control: a unit that is left out is missed.
    assert made_by_units(bench, plan, lambda found: found) == expected
    (bench.root / "by-units").unlink()
    assert made_by_units(bench, plan, lambda found: found[:-1]) != expected


PROGRAM = """
import pickle, sys
from pathlib import Path
from porter.execution.buffers import Buffers
from porter.execution.run_unit import run_unit
from porter.execution.sinks.directory import FileWriter
from porter.sources.local_files import LocalSource
root, path, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
source = LocalSource(root)
writer = FileWriter(path, path.name, size)
files = {}
for unit in pickle.loads(sys.stdin.buffer.read()):
    for part in unit.parts:
        if part.source is not None and part.source.file not in files:
            files[part.source.file] = source.open(part.source.file)
    run_unit(unit, files, writer, Buffers(8 << 20))
"""


def test_two_processes_make_the_file_of_a_plain_run(ready):
    """A process is given some units, pickled, and nothing else of the plan."""
    bench, plan = ready
    (file,) = plan.files
    out = made_by_units(bench, plan, lambda found: found)
    path = bench.root / "shared-by-two"
    data = [unit for unit in units(plan, 1000) if unit.tensor is not None]
    FileWriter(path, file.name, file.size).close()
    processes = []
    for part in (data[::2], data[1::2]):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(bench.source_root), str(path), str(file.size)],
            stdin=subprocess.PIPE,
        )
        process.stdin.write(pickle.dumps(part))
        process.stdin.close()
        processes.append(process)
    assert [process.wait(60) for process in processes] == [0, 0]
    start = min(tensor.offset for tensor in file.tensors)
    assert path.read_bytes()[start:] == out[start:]


def test_a_slice_of_a_plan_is_small(ready):
    """Under 1 KB a tensor, with names as long as a real model's."""
    _, plan = ready
    copies, tensors, targets = [], [], []
    for layer in range(200):
        name = f"model.layers.{layer}.self_attn.q_proj.weight"
        stored = plan.sources[0]._replace(name=name)
        tensors.append(stored)
        target = plan.files[0].tensors[0]._replace(name=f"transformer.h.{layer}.attn.qkv.weight")
        targets.append(target._replace(offset=target.offset + layer * target.nbytes))
        loops = (Loop(4, 1, 4), Loop(4, 4, 1))
        copies.append(Copy(f"{layer}.attn.q", name, target.name, 0, 0, loops, TILE, (), "x/litgpt.toml:12"))
    large = replace(
        plan,
        sources=tuple(tensors),
        copies=tuple(copies),
        zeros=(),
        files=(replace(plan.files[0], size=targets[-1].offset + targets[-1].nbytes, tensors=tuple(targets)),),
    )
    data = [unit for unit in units(large) if unit.tensor is not None]
    assert len(data) == 200
    assert len(pickle.dumps(data[:50])) < 50 * 1024
    assert len(pickle.dumps(data[:1])) < 2048


def test_a_frame_is_no_unit_to_run(ready):
    bench, plan = ready
    header = next(unit for unit in units(plan) if unit.tensor is None)
    with pytest.raises(PorterError, match="frame"):
        run_unit(header, {}, FileWriter(bench.root / "x", "x", 10), Buffers(1 << 20))


@pytest.mark.parametrize("seed", range(200))
def test_clipping_keeps_each_element_once(seed):
    """Against a list of all places, written out."""
    chance = random.Random(seed)
    sizes = [chance.randint(1, 4) for _ in range(chance.randint(0, 4))]
    order = chance.sample(range(len(sizes)), len(sizes))
    target, source = [0] * len(sizes), [0] * len(sizes)
    step = 1
    for axis in reversed(range(len(sizes))):
        target[axis] = step
        step *= sizes[axis] + chance.randint(0, 2)
    step = 1
    for axis in order:
        source[axis] = step
        step *= sizes[axis]
    loops = tuple(Loop(*loop) for loop in zip(sizes, source, target, strict=True))
    box = Box(loops, 3, 5)
    every = {(run.target + at, run.source + at) for run in runs(loops, 3, 5) for at in range(run.length)}
    low = chance.randint(0, 30)
    high = low + chance.randint(0, 40)
    kept = [
        (run.target + at, run.source + at)
        for part in clip_to_target(box, low, high)
        for run in runs(part.loops, part.source, part.target)
        for at in range(run.length)
    ]
    assert len(kept) == len(set(kept))
    assert set(kept) == {(to, of) for to, of in every if low <= to < high}


def test_the_oracle_of_the_bench_agrees(ready):
    """What the units make is what NumPy makes."""
    bench, plan = ready
    raw = made_by_units(bench, plan, lambda found: found)
    stored = {t.name: t for t in plan.files[0].tensors}
    a, b = (
        np.frombuffer(bytes(bench.content), np.uint16, ROWS * COLUMNS, t.offset).reshape(ROWS, COLUMNS)
        for t in bench.tensors
    )
    half = COLUMNS // 2
    expected = {
        "extent": a,
        "turned": a.T,
        "halves": np.stack([b[:, :half], b[:, half:]]),
        "wide": (b.astype(np.uint32) << 16).reshape(-1),
        "mixed": np.stack([a.T, b.reshape(COLUMNS, ROWS)]),
        "padded": np.concatenate([b, np.zeros((7, COLUMNS), np.uint16)]),
    }
    for name, array in expected.items():
        tensor = stored[name]
        assert raw[tensor.offset : tensor.offset + tensor.nbytes] == array.tobytes(), name
