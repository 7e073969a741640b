"""A sample of faults, in a process of its own: what is traced is forked, and must not inherit what other
tests have imported and set up in this one (the Hub's client reads its environment once)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import traced

SAMPLE = Path(__file__).with_name("sample_of_faults.py")
# In two halves, so that two workers share them.
HALVES = ("test_nothing_is_lost", "not test_nothing_is_lost")


@pytest.mark.skipif(not traced.AVAILABLE, reason="system calls are met on Linux on x86-64 alone")
@pytest.mark.parametrize("half", HALVES)
def test_a_sample_of_faults(half):
    words = ["-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-rs", "-k", half, str(SAMPLE)]
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=env, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= 4
