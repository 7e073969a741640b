"""The execution suite again, in a process from which everything is taken that CPython lacks on macOS."""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

# They start processes of their own, which have all that this system has; or they take long, and ask
# nothing of the system that the others do not.
LEFT_OUT = " and ".join(
    f"not {name}"
    for name in (
        "killed",
        "many_at_once",
        "without_torch",
        "as_on_macos",
        "within_it",
        "any_box",
        "dequantised",
        "any_sizes",
    )
)


def run(*arguments):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n0",
            "-p",
            "as_on_macos",
            "-p",
            "no:cacheprovider",
            *arguments,
        ],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}", "OMP_NUM_THREADS": "1"},
    )


def test_the_suite_passes_as_on_macos():
    done = run("-x", "-k", LEFT_OUT, "--ignore", str(HERE / "test_reference.py"), str(HERE))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) > 150


def test_what_is_taken_is_missed(tmp_path):
    """A negative control: what uses fdatasync, /proc or a call of Linux' C library fails there."""
    (tmp_path / "test_uses.py").write_text(
        "import os\nfrom pathlib import Path\nfrom porter import system\n"
        "def test_sync(): os.fdatasync(1)\n"
        "def test_proc(): Path('/proc/self/status').read_text()\n"
        "def test_exchange(tmp_path):\n"
        "    (tmp_path / 'a').mkdir(), (tmp_path / 'b').mkdir()\n"
        "    assert system.exchange(tmp_path / 'a', tmp_path / 'b')\n"
    )
    done = run(str(tmp_path))
    assert "3 failed" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
