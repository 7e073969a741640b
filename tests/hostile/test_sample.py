"""A sample of `make hostile`, and negative controls for what its hook, its clock and its scales can see."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import inputs
import runner

# One of so many; over all parsers, since each has more than that.
STEP = 60

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a child took is told by Linux alone")


# In a process of its own: what runs in this one (threads of tensorstore, torch) must not be forked.
SAMPLE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import gguf, h5py, yaml  # h5py asks `uname` when it is imported, whatever the input is
import inputs, run
folder = Path(sys.argv[2])
made = run.make_seeds(folder)
chosen = inputs.every()[:: int(sys.argv[3])]
wrong = {}
for one in chosen:
    found = run.run_one(one, made, folder / "scratch")
    # How long it takes and how large it is, is measured by `make hostile`, where nothing else runs.
    faults = found.faults(10, 2_000_000_000)
    if faults:
        wrong[str(one)] = faults
print(json.dumps([len(chosen), sorted({one.parser for one in chosen}), wrong]))
"""


def test_a_sample_of_hostile_inputs_is_refused_or_read_in_bounds(tmp_path):
    words = [sys.executable, "-c", SAMPLE, str(Path(__file__).parent), str(tmp_path), str(STEP)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    number, parsers, wrong = json.loads(done.stdout.splitlines()[-1])
    assert number >= 30 and len(parsers) >= 9
    assert wrong == {}


def test_there_are_as_many_inputs_as_promised():
    every = inputs.every()
    assert len(every) >= 1_500
    assert len({(str(one), one.seed) for one in every}) == len(every)


def ran(act, folder):
    return runner.in_child(act, [folder], folder)


FORBIDDEN = {
    "a program": lambda outcome: os.system("true"),
    "a socket": lambda outcome: __import__("socket").socket(),
    "a file elsewhere": lambda outcome: Path("/etc/passwd").read_bytes(),
    "a file elsewhere, to be written": lambda outcome: Path("/tmp/elsewhere-of-porter").write_bytes(b""),
    "code out of a file": lambda outcome: exec(compile("1", "/etc/evil.py", "exec")),
    "a pickle": lambda outcome: __import__("pickle").loads(b"cos\nsystem\n."),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_negative_control_the_hook_sees(tmp_path, name):
    outcome = ran(FORBIDDEN[name], tmp_path)
    Path("/tmp/elsewhere-of-porter").unlink(missing_ok=True)
    assert outcome.events, outcome
    assert any(fault.startswith("did ") for fault in outcome.faults())


def test_negative_control_a_link_out_is_a_file_elsewhere(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert ran(lambda outcome: (tmp_path / "link").read_bytes(), tmp_path).events
    (tmp_path / "plain").write_bytes(b"x")
    assert not ran(lambda outcome: (tmp_path / "plain").read_bytes(), tmp_path).events


def refuse(outcome, seconds=0.0, held=0):
    end = time.process_time() + seconds
    content = bytearray(held)
    content[::4096] = b"x" * len(content[::4096])
    while time.process_time() < end:
        pass
    raise SystemExit(6)


def test_negative_control_time_memory_tracebacks_and_signals_are_seen(tmp_path):
    assert ran(refuse, tmp_path).faults(2, 2**40) == []
    assert "refused after" in str(ran(lambda o: refuse(o, seconds=1.2), tmp_path).faults(peak=2**40))
    base = ran(refuse, tmp_path).peak
    assert ran(lambda o: refuse(o, held=100_000_000), tmp_path).peak > base + 90_000_000
    assert "traceback: KeyError" in str(ran(lambda outcome: {}["x"], tmp_path).faults())
    assert "signal 11" in str(ran(lambda outcome: os.kill(os.getpid(), signal.SIGSEGV), tmp_path).faults())
    assert "printed" in str(ran(lambda outcome: print("\x1b[2J"), tmp_path).faults())
