"""Shared blocks hold what a copy would hold, on file systems that share and on those that do not."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from porter.containers.base import StoredTensor
from porter.containers.safetensors.safetensors_writer import place
from porter.dtypes import DTYPES
from porter.errors import UnsupportedError
from porter.execution.publish import publish_plan
from porter.execution.run_options import RunOptions
from porter.layout.copies import Loop
from porter.planning.plan import EXTENT, TILE, Copy
from porter.planning.sharing import BLOCK, residues, shareable_bytes, shared_range
from porter.sources.local_files import LocalSource
from tests.execution.conftest import Workbench
from tests.execution.filesystems import mounted

KINDS = ["xfs", "btrfs"]


@pytest.fixture(scope="module", params=KINDS)
def sharing(request, tmp_path_factory):
    """The root of a file system that shares blocks."""
    with mounted(request.param, tmp_path_factory.mktemp("image")) as root:
        yield root


_numbers = itertools.count()


def bench_in(root, sizes, *, start=0):
    """A bench with one U8 tensor of each size, all copied, the source's data beginning at byte `start`."""
    bench = Workbench(root / f"{next(_numbers)}")
    bench.root.mkdir()
    bench.content = bytearray(start)
    noise = random.Random(start)
    for number, size in enumerate(sizes):
        bench.source(f"t{number}", "U8", (size,), noise.randbytes(size))
        bench.target(f"t{number}", "U8", (size,))
        bench.copies.append(Copy("c", f"t{number}", f"t{number}", 0, 0, (Loop(size, 1, 1),), EXTENT))
    return bench


def placed(bench):
    """The bench's plan, with its tensors where the source's blocks can be shared."""
    plan = bench.plan()
    wanted = residues(plan.copies, plan.source_by_name)
    return replace(plan, files=(place("model.safetensors", bench.targets, {}, wanted),))


def found(bench, plan, name, **options):
    out = bench.root / name
    result = publish_plan(plan, LocalSource(bench.source_root), out, options=RunOptions(**options))
    raw = (out / "model.safetensors").read_bytes()
    return result, {t.name: raw[t.offset : t.offset + t.nbytes] for t in plan.targets()}


def expected(bench):
    return {t.name: bytes(bench.content[t.offset : t.offset + t.nbytes]) for t in bench.tensors}


def test_whole_blocks_are_shared_and_edges_copied(sharing):
    bench = bench_in(sharing, [40 * BLOCK, 30 * BLOCK, 9 * BLOCK + 8, 5, 0, 5 * BLOCK + 1], start=1848)
    plan = placed(bench)
    result, tensors = found(bench, plan, "out", reflink="always")
    assert tensors == expected(bench)
    # Two edges make up a block of each. The odd sizes lie in the source's order, so that all agree.
    assert result.shared["model.safetensors"] == shareable_bytes(plan) == (39 + 29 + 8 + 4) * BLOCK
    assert result.digests["model.safetensors"] is None


def test_both_tensors_of_a_tie_share_one_source(sharing):
    bench = bench_in(sharing, [40 * BLOCK], start=808)
    bench.target("again", "U8", (40 * BLOCK,))
    bench.copies.append(Copy("c", "t0", "again", 0, 0, (Loop(40 * BLOCK, 1, 1),), EXTENT))
    result, tensors = found(bench, placed(bench), "out", reflink="always")
    assert tensors["again"] == tensors["t0"] == expected(bench)["t0"]
    assert result.shared["model.safetensors"] == 2 * 39 * BLOCK


def test_a_digest_that_is_asked_for_is_that_of_the_file(sharing):
    import hashlib

    bench = bench_in(sharing, [40 * BLOCK], start=808)
    result, _ = found(bench, placed(bench), "out", reflink="always", digest="always")
    whole = (result.out / "model.safetensors").read_bytes()
    assert result.digests["model.safetensors"] == "sha256:" + hashlib.sha256(whole).hexdigest()


def test_a_changed_output_leaves_the_source_alone(sharing):
    bench = bench_in(sharing, [40 * BLOCK], start=808)
    result, _ = found(bench, placed(bench), "out")
    with (result.out / "model.safetensors").open("r+b") as stream:
        stream.write(bytes(41 * BLOCK))
    assert (bench.source_root / "source.bin").read_bytes() == bench.content


def test_tiles_and_shared_extents_meet_in_one_file(sharing):
    bench = bench_in(sharing, [40 * BLOCK], start=808)
    bench.source("m", "U8", (70, 90), random.Random(1).randbytes(6300))
    bench.target("m", "U8", (90, 70))
    bench.copies.append(Copy("m", "m", "m", 0, 0, (Loop(90, 1, 70), Loop(70, 90, 1)), TILE))
    result, tensors = found(bench, placed(bench), "out")
    rows = [expected(bench)["m"][row * 90 : row * 90 + 90] for row in range(70)]
    assert tensors["m"] == bytes(rows[row][column] for column in range(90) for row in range(70))
    assert result.shared["model.safetensors"] == 39 * BLOCK


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(
        st.integers(0, 12 * BLOCK) | st.integers(1, 12).map(lambda n: n * BLOCK), min_size=1, max_size=6
    ),
    start=st.integers(0, BLOCK),
    reflink=st.sampled_from(["auto", "never"]),
)
def test_any_sizes_at_any_offset_come_out_equal(sharing, sizes, start, reflink):
    bench = bench_in(sharing, sizes, start=start)
    plan = placed(bench)
    result, tensors = found(bench, plan, "out", reflink=reflink)
    assert tensors == expected(bench)
    assert result.shared["model.safetensors"] == (shareable_bytes(plan) if reflink == "auto" else 0)


def test_always_says_why_where_no_block_agrees(sharing):
    bench = bench_in(sharing, [40 * BLOCK], start=3)
    with pytest.raises(UnsupportedError, match=r"cannot share blocks.*\n.*no whole block"):
        found(bench, placed(bench), "out", reflink="always")
    assert [path.name for path in bench.root.iterdir()] == ["source"]


def test_another_file_system_is_copied_from_or_refused(sharing, tmp_path):
    bench = bench_in(sharing, [40 * BLOCK], start=808)
    plan = placed(bench)
    result = publish_plan(plan, LocalSource(bench.source_root), tmp_path / "out")
    assert result.shared == {"model.safetensors": 0}
    with pytest.raises(UnsupportedError, match="cannot share blocks"):
        always = RunOptions(reflink="always")
        publish_plan(plan, LocalSource(bench.source_root), tmp_path / "two", options=always)


def test_a_refusal_half_way_copies_the_rest(tmp_path, monkeypatch):
    """The system shares the first tensor only; here sharing is played by a copy."""
    import os

    from porter.execution import shared

    calls = []

    def clone(source, source_offset, target, target_offset, length):
        calls.append(length)
        if len(calls) > 1:
            return "Invalid argument"
        os.pwrite(target, os.pread(source, length, source_offset), target_offset)
        return None

    monkeypatch.setattr(shared, "clone_range", clone)
    bench = bench_in(tmp_path, [40 * BLOCK, 41 * BLOCK, 42 * BLOCK], start=808)
    result, tensors = found(bench, placed(bench), "out")
    assert tensors == expected(bench)
    assert result.shared["model.safetensors"] == calls[0]
    assert len(calls) == 2


# --- where tensors are placed ----------------------------------------------------------------------

U8 = DTYPES["U8"]


def extent(nbytes, read_at, write_at):
    source = StoredTensor("s", U8, (nbytes,), "a", read_at)
    target = StoredTensor("t", U8, (nbytes,), "b", write_at)
    return shared_range(Copy("c", "s", "t", 0, 0, (Loop(nbytes, 1, 1),), EXTENT), source, target)


@pytest.mark.parametrize(
    ("nbytes", "read_at", "write_at", "blocks"),
    [(8192, 0, 4096, 2), (8192, 1, 4097, 1), (8192, 1, 2, None), (4096, 1, 1, None), (0, 0, 0, None)],
)
def test_only_whole_blocks_at_equal_places_are_shared(nbytes, read_at, write_at, blocks):
    range_ = extent(nbytes, read_at, write_at)
    assert (range_ and range_.length // BLOCK) == blocks
    if range_:
        assert range_.source % BLOCK == range_.target % BLOCK == 0


def spec(name, dtype, blocks, more=0):
    return (name, DTYPES[dtype], (blocks * BLOCK // DTYPES[dtype].itemsize + more,))


def test_the_residue_of_most_bytes_wins_and_odd_sizes_go_last():
    specs = [spec("a", "BF16", 20, 1), spec("b", "BF16", 30), spec("c", "BF16", 40), spec("d", "BF16", 10)]
    file = place("x", specs, {"format": "pt"}, {"a": 8, "b": 16, "c": 16, "d": 8})
    assert [tensor.name for tensor in file.tensors] == ["b", "c", "a", "d"]
    assert [tensor.offset % BLOCK for tensor in file.tensors[:3]] == [16, 16, 16]


def test_every_dtype_stays_aligned():
    specs = [spec("a", "U8", 20, 3), spec("b", "F32", 30, 1), spec("c", "BF16", 40), spec("d", "I64", 1, 1)]
    file = place("x", specs, {}, {"a": 8, "b": 16, "c": 16})
    assert all(tensor.offset % tensor.dtype.itemsize == 0 for tensor in file.tensors)


@pytest.mark.parametrize("wanted", [{}, {"b": 16}, {"a": 7, "b": 7}])
def test_without_enough_to_share_the_file_is_the_reference_writers(wanted):
    specs = [spec("b", "BF16", 3), spec("a", "BF16", 2)]
    assert place("x", specs, {}, wanted) == place("x", specs, {})


def test_the_reference_parser_reads_a_padded_header(tmp_path):
    from safetensors.torch import load_file

    bench = bench_in(tmp_path, [40 * BLOCK, 9], start=4000)
    plan = placed(bench)
    assert plan.target_by_name["t0"].offset == 4000
    result, _ = found(bench, plan, "out")
    loaded = load_file(result.out / "model.safetensors")
    assert {name: bytes(tensor.tolist()) for name, tensor in loaded.items()} == expected(bench)
