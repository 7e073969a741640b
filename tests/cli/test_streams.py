"""What becomes of a command whose stdout or stderr is closed, full, broken or of another encoding."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from safetensors.numpy import load_file

PORTER = f"{sys.executable} -m porter"


def shell(line, **environment):
    """A line of bash; `PIPESTATUS` of its first pipeline is the exit code that is returned."""
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "streams",
    ["2>&1 | true", "| true", ">/dev/full 2>/dev/full", ">&-", "<&- >&- 2>&-"],
)
def test_a_remark_that_cannot_be_printed_ends_no_conversion(gemma, tmp_path, streams):
    out = tmp_path / "out"
    code, _, stderr = shell(f"{PORTER} convert {gemma} --to litgpt -o {out} {streams}")
    assert (code, b"Traceback" in stderr) == (0, False), stderr
    assert (out / "porter-receipt.json").is_file()
    # Nothing that was printed landed in a file that took the place of a closed stream.
    if "&-" not in streams:
        return
    whole = tmp_path / "whole"
    assert shell(f"{PORTER} convert {gemma} --to litgpt -o {whole}")[0] == 0
    for name in ("lit_model.safetensors", "model_config.yaml"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_a_failure_stays_one_without_a_stream(gemma, tmp_path):
    """Negative control: exit 0 only with the output there."""
    (tmp_path / "out").write_text("in the way")
    for streams in ("2>&1 | true", ">&- 2>&-"):
        code, _, _ = shell(f"{PORTER} convert {gemma} --to litgpt -o {tmp_path / 'out'} {streams}")
        assert code == 2


@pytest.mark.parametrize("command", ["inspect {}", "convert {} --to litgpt --dry-run", "mappings ls"])
def test_data_that_cannot_be_printed_are_a_failure(gemma, command):
    line = f"{PORTER} {command.format(gemma)}"
    for streams in (">/dev/full", ">&-"):
        code, _, stderr = shell(f"{line} {streams}")
        assert (code, b"Traceback" in stderr) == (1, False), stderr
        assert b"error:" in stderr
    # But a reader that has seen enough is none.
    code, _, stderr = shell(f"{line} | true")
    assert (code, stderr.count(b"Traceback"), stderr.count(b"error:")) == (0, 0, 0), stderr


def test_version_and_help_without_a_stdout():
    for word, streams in (
        ("--version", ">&-"),
        ("--version", ">/dev/full"),
        ("--help", "| true"),
        ("--help", ">&-"),
    ):
        _, _, stderr = shell(f"{PORTER} {word} {streams}")
        assert b"Traceback" not in stderr, (word, streams)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_encoding_takes_what_is_printed(gemma, tmp_path, encoding):
    settings = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
    out = tmp_path / "ü…"
    for command in (
        f"inspect {gemma}",
        f"convert {gemma} --to litgpt --dry-run",
        f"convert {gemma} --to litgpt -o {out}",
    ):
        code, stdout, stderr = shell(f"{PORTER} {command}", **settings)
        assert (code, b"Traceback" in stderr) == (0, False), stderr
        stdout.decode(encoding)
    assert load_file(out / "lit_model.safetensors")
    code, stdout, _ = shell(f"{PORTER} inspect {gemma} --json", **settings)
    plain = shell(f"{PORTER} inspect {gemma} --json", PYTHONIOENCODING="utf-8")[1]
    assert json.loads(stdout.decode(encoding)) == json.loads(plain)
