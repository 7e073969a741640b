"""Whole plans, run as they are run for a user, against an executor that moves one element after the other.

On the file system that the tests run on, and on XFS and btrfs, which share blocks.
"""

import itertools
import stat
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from porter.containers.safetensors.safetensors_writer import place
from porter.execution import units
from porter.execution.kernels import gather, tiles
from porter.execution.publish import publish_plan
from porter.execution.run_options import LEAST_MEMORY, RunOptions
from porter.layout.copies import Loop, coalesce, run_length
from porter.planning.plan import EXTENT, RUNS, TILE, Copy
from porter.planning.sharing import residues
from porter.sources.local_files import LocalSource
from tests.execution.conftest import Workbench
from tests.execution.filesystems import mounted

DTYPE = {1: "U8", 2: "BF16", 4: "F32", 8: "I64"}


@pytest.fixture(scope="module", params=["here", "xfs", "btrfs"])
def root(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("root")
    if request.param == "here":
        yield directory
        return
    with mounted(request.param, directory) as mount:
        yield mount


def reference(plan, content):
    """Each target tensor's bytes, moved element by element."""
    made = {tensor.name: bytearray(tensor.nbytes) for tensor in plan.targets()}
    for copy in plan.copies:
        source, target = plan.source_by_name[copy.source], plan.target_by_name[copy.target]
        size = source.dtype.itemsize
        for steps in itertools.product(*(range(loop.size) for loop in copy.loops)):
            pairs = list(zip(steps, copy.loops, strict=True))
            read = copy.source_offset + sum(step * loop.source_stride for step, loop in pairs)
            write = copy.target_offset + sum(step * loop.target_stride for step, loop in pairs)
            at = source.offset + read * size
            made[target.name][write * size : (write + 1) * size] = content[at : at + size]
    return made


def kind_of(loops):
    total = 1
    for loop in loops:
        total *= loop.size
    if total == 0 or run_length(loops) == total:
        return EXTENT
    return RUNS if run_length(loops) > 1 else TILE


# One target tensor: its item size, the sizes of its axes in the source, their order in the target, and
# how many tensors are concatenated to it along the outermost axis.
tensors = st.tuples(
    st.sampled_from(sorted(DTYPE)),
    st.sampled_from(
        [(0, 3), (1,), (7,), (5, 9), (3, 4, 5), (2, 9, 4), (40, 120), (4096,), (9001,), (64, 96)]
    ),
    st.randoms(use_true_random=False),
    st.integers(1, 3),
)


def add(bench, number, item, shape, random, parts):
    order = list(range(len(shape)))
    random.shuffle(order)
    turned = [shape[axis] for axis in order]
    size = 1
    for dim in shape:
        size *= dim
    bench.target(f"t{number}", DTYPE[item], (parts * size,))
    for part in range(parts):
        bench.content += bytes(random.randrange(7))
        name = f"s{number}.{part}"
        bench.source(name, DTYPE[item], shape, random.randbytes(size * item))
        loops = []
        for place_, axis in enumerate(order):
            source_stride = 1
            for dim in shape[axis + 1 :]:
                source_stride *= dim
            target_stride = 1
            for dim in turned[place_ + 1 :]:
                target_stride *= dim
            loops.append(Loop(shape[axis], source_stride, target_stride))
        loops = coalesce(loops)
        bench.copies.append(Copy("c", name, f"t{number}", 0, part * size, loops, kind_of(loops)))


numbers = itertools.count()


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    wanted=st.lists(tensors, min_size=1, max_size=6),
    small=st.booleans(),
    aligned=st.booleans(),
    options=st.builds(
        RunOptions,
        reflink=st.sampled_from(["auto", "never"]),
        digest=st.sampled_from(["auto", "always", "never"]),
        resume=st.booleans(),
        max_memory=st.sampled_from([LEAST_MEMORY, 64 << 20]),
    ),
)
def test_any_plan_comes_out_as_the_reference_says(root, wanted, small, aligned, options):
    bench = Workbench(root / f"{next(numbers)}")
    bench.root.mkdir()
    for number, (item, shape, random, parts) in enumerate(wanted):
        add(bench, number, item, shape, random, parts)
    plan = bench.plan()
    if aligned:
        wanted_places = residues(plan.copies, plan.source_by_name)
        plan = replace(plan, files=(place("model.safetensors", bench.targets, {}, wanted_places),))
    (bench.source_root / "source.bin").chmod(stat.S_IRUSR)
    bench.source_root.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(units, "RANGE", 5000)
            patch.setattr(tiles, "TILE", 3000)
            patch.setattr(tiles, "SOURCE_RUN", 64)
            patch.setattr(gather, "SHORT_RUN", 16)
        publish_plan(plan, LocalSource(bench.source_root), bench.root / "out", options=options)
    raw = (bench.root / "out" / "model.safetensors").read_bytes()
    for name, expected in reference(plan, bytes(bench.content)).items():
        tensor = plan.target_by_name[name]
        assert raw[tensor.offset : tensor.offset + tensor.nbytes] == expected, name


def test_the_reference_differs_from_a_plan_with_another_stride(tmp_path):
    """A negative control."""
    bench = Workbench(tmp_path)
    bench.source("s", "BF16", (3, 5), bytes(range(30)))
    bench.target("t", "BF16", (15,))
    bench.copies.append(Copy("c", "s", "t", 0, 0, (Loop(5, 1, 3), Loop(3, 5, 1)), TILE))
    right = reference(bench.plan(), bytes(bench.content))
    bench.copies[0] = Copy("c", "s", "t", 0, 0, (Loop(5, 3, 3), Loop(3, 1, 1)), RUNS)
    assert reference(bench.plan(), bytes(bench.content)) != right
