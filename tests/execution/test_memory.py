"""The buffers keep to the memory that they are given, whatever the size of a tensor."""

import pickle
import subprocess
import sys

import pytest

from porter.errors import UsageError
from porter.execution.buffers import Buffers
from porter.execution.run_options import LEAST_MEMORY, RunOptions, memory_spoken
from porter.layout.copies import Loop
from porter.planning.plan import COMPUTE, EXTENT, RUNS, TILE, Copy

PROGRAM = """
import pickle, resource, sys
from pathlib import Path
import torch
from porter.execution.run_options import RunOptions
from porter.execution.publish import publish_plan
from porter.sources.local_files import LocalSource
root = Path(sys.argv[1])
torch.empty(2, 3).t().contiguous().float()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
plan = pickle.loads((root / "plan").read_bytes())
options = RunOptions(max_memory=int(sys.argv[2]))
publish_plan(plan, LocalSource(root / "source"), root / "out", options=options)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""

ROWS, COLUMNS = 9000, 10000

CASES = {
    EXTENT: ("BF16", (Loop(ROWS * COLUMNS, 1, 1),)),
    RUNS: ("BF16", (Loop(2, 5000, ROWS * 5000), Loop(ROWS, COLUMNS, 5000), Loop(5000, 1, 1))),
    TILE: ("BF16", (Loop(COLUMNS, 1, ROWS), Loop(ROWS, COLUMNS, 1))),
    COMPUTE: ("F32", (Loop(ROWS * COLUMNS, 1, 1),)),
}

# Bytes: what threads, the journal, and pages of mapped files take besides.
BESIDES = 48 << 20


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("memory", [16 << 20, 64 << 20])
def test_a_tensor_larger_than_the_memory_is_moved_within_it(bench, kind, memory):
    """180 MB of zeros, which take no room on disk."""
    dtype, loops = CASES[kind]
    bench.source("s", "BF16", (ROWS, COLUMNS), bytes(2 * ROWS * COLUMNS))
    bench.target("t", dtype, (ROWS * COLUMNS,))
    bench.copies.append(Copy("c", "s", "t", 0, 0, loops, kind))
    (bench.root / "plan").write_bytes(pickle.dumps(bench.plan()))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(bench.root), str(memory)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) <= memory + BESIDES
    assert (bench.root / "out" / "model.safetensors").stat().st_size > 2 * ROWS * COLUMNS


def test_a_buffer_is_used_again_and_grows_when_it_must():
    buffers = Buffers(100)
    first = buffers.take("a", 10)
    first[0] = 7
    assert buffers.take("a", 5)[0] == 7
    assert len(buffers.take("a", 20)) == 20
    assert buffers.take("b", 1).obj is not buffers.take("a", 1).obj


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512MB", 512_000_000), ("1 GiB", 1 << 30), ("1.5g", 1_500_000_000), ("9000000", 9_000_000)],
)
def test_memory_is_said_as_people_say_it(text, expected):
    assert memory_spoken(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1", "1TB", "1ib"])
def test_other_words_are_refused(text):
    with pytest.raises(UsageError, match="no amount of memory"):
        memory_spoken(text)


@pytest.mark.parametrize("wrong", [{"reflink": "yes"}, {"digest": "maybe"}, {"max_memory": LEAST_MEMORY - 1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        RunOptions(**wrong)
