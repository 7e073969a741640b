"""Gemma 3 27B by its shapes, from a source that makes bytes when they are read; and a real run's memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

GENERATED = Path(__file__).parent / "generated.py"
GIGABYTE = 10**9


def generated(*words):
    """What the program prints, run in a process of its own."""
    ran = subprocess.run(
        [sys.executable, GENERATED, *map(str, words)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("target", ["litgpt", "keras", "hf"])
def test_it_is_planned_and_partly_run(target):
    found = generated("compare", target, 5 * GIGABYTE)
    # 27.0 billion parameters of two bytes, and in LitGPT the head once more.
    assert found["written"] == sum(found["files"])
    assert 54e9 < found["written"] < (57e9 if target == "litgpt" else 54.1e9)
    assert found["tasks"] > 300
    assert sum(found["compared"]) > 40e6


def test_the_memory_of_a_worker_does_not_depend_on_the_shards():
    small, large = (generated("peak", "hf", size) for size in (GIGABYTE, 60 * GIGABYTE))
    assert large["largest"] > 15 * small["largest"]
    assert large["peak"] < 1.25 * small["peak"], "KiB"
    assert large["peak"] < 400 << 10


PROGRAM = """
import re, sys
from pathlib import Path
from porter.cli import main
try:
    main()
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("options", "least"),
    [
        (["--to", "litgpt"], 310e6),
        (["--to", "litgpt", "--dtype", "bfloat16"], 155e6),
        (["--to", "keras", "--dtype", "float16"], 75e6),
    ],
    ids=lambda options: " ".join(options[1:]) if isinstance(options, list) else "",
)
def test_a_run_between_buckets_stays_below_200_mb(bucket, tmp_path, checkpoint, options, least):
    source = checkpoint(tmp_path / "model", vocab=600_000)
    there = bucket.fill(source, "model")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, "convert", there, *options, "-o", f"{bucket.url}/out"],
        env=dict(bucket.env),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    listed = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix="out/")["Contents"]
    assert max(item["Size"] for item in listed) > least
    assert int(ran.stderr.splitlines()[-1]) < 200e6 / 1024, "KiB"
