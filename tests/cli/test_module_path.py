"""Modules that lie beside a checkpoint are never imported, wherever porter is started."""

import os
import subprocess
import sys
from pathlib import Path

import porter

REPOSITORY = Path(porter.__file__).parents[1]

# What porter would import to read such a checkpoint, or to show it.
NAMES = ("h5py", "gguf", "yaml", "numpy", "safetensors", "tensorstore", "json", "huggingface_hub", "typer")

# A line at its end, so that it may be imported first and fail afterwards.
PLANTED = "import pathlib\npathlib.Path({canary!r}).write_text('imported ' + __name__)\n"


def checkpoint(tmp_path):
    folder, canary = tmp_path / "checkpoint", tmp_path / "canary"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(PLANTED.format(canary=str(canary)), "utf-8")
    (folder / "model.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    return folder, canary


def started(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def test_started_as_a_module_inside_of_a_checkpoint(tmp_path):
    folder, canary = checkpoint(tmp_path)
    done = started(folder, "-m", "porter", "inspect", ".")
    assert done.returncode == 6 and "model.weights.h5" in done.stderr
    assert not canary.exists()


def test_negative_control_python_itself_imports_what_lies_there(tmp_path):
    folder, canary = checkpoint(tmp_path)
    started(folder, "-c", "import h5py")
    assert canary.read_text() == "imported h5py"


def test_a_target_model_lies_beside_the_user_and_replaces_nothing(tmp_path):
    """Only `--target-model` looks there, last."""
    folder, canary = checkpoint(tmp_path)
    (folder / "mine.py").write_text("def model():\n    raise SystemExit(77)\n", "utf-8")
    program = (
        "import sys; sys.path = [entry for entry in sys.path if entry]\n"
        "from porter.verification.modules import _module\n"
        "print(_module('mine').model, _module('yaml').__file__)"
    )
    done = started(folder, "-c", program)
    assert done.returncode == 0 and "function model" in done.stdout, done.stderr
    assert str(folder) not in done.stdout.split()[-1]
    assert not canary.exists()
