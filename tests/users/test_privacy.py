"""What porter keeps to itself: a token is in no output and in no file, and `--offline` opens no socket."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_canaryCANARYcanaryCANARYcanary0"
REPO = "google/gemma-2b"

# Python calls an audit hook for every socket, whoever makes it.
_WATCHED = """
import runpy, sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)
sys.argv = ["porter", *sys.argv[1:]]
try:
    runpy.run_module("porter", run_name="__main__")
finally:
    print("SOCKETS", len(seen), file=sys.__stderr__)
"""


@pytest.fixture
def model(hub: Any, tiny_gemma: Path) -> Path:
    files = {path.name: path.read_bytes() for path in sorted(tiny_gemma.iterdir()) if path.is_file()}
    hub.server.add(REPO, files, gated=True)
    hub.server.token(TOKEN, REPO)
    return tiny_gemma


def porter(hub: Any, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WATCHED, *map(str, words)],
        env={**hub.env, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def sockets(ran: subprocess.CompletedProcess[str]) -> int:
    return int(ran.stderr.rpartition("SOCKETS ")[2])


def test_a_token_is_in_no_output_and_in_no_file(hub: Any, model: Path, tmp_path: Path) -> None:
    weights = next(path.name for path in model.iterdir() if path.suffix == ".safetensors")
    out = tmp_path / "out"
    runs = [
        (("inspect", REPO, "--json"), None, 0),
        (("convert", REPO, "--to", "litgpt", "-o", out), None, 0),
        (("download", REPO, "--debug"), "corrupt", 3),
        (("download", REPO, "--debug"), "403", 1),
        (("convert", REPO, "--to", "litgpt", "-o", tmp_path / "other", "--debug"), "500", 1),
        (("download", "org/unknown", "--debug"), None, 2),
        (("download", REPO), None, 0),
        (("doctor", "--json"), None, 0),
    ]
    for words, fault, code in runs:
        hub.server.faults.clear()
        if fault:
            hub.server.fault(weights, fault)
        ran = porter(hub, *words, HF_TOKEN=TOKEN)
        assert ran.returncode == code, (words, ran.stderr)
        assert TOKEN not in ran.stdout + ran.stderr, words
    assert any(request.authorized for request in hub.server.log), "the token was used"
    assert (out / "porter-receipt.json").is_file()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path


def test_offline_opens_no_socket(hub: Any, model: Path, tmp_path: Path) -> None:
    assert porter(hub, "download", REPO, HF_TOKEN=TOKEN).returncode == 0
    for words, code in (
        (("inspect", REPO), 0),
        (("convert", REPO, "--to", "litgpt", "-o", tmp_path / "out"), 0),
        (("inspect", model, "--json"), 0),
        (("download", REPO), 0),
        (("download", "org/other"), 2),
        (("inspect", "org/other"), 2),
        (("convert", "org/other", "--to", "litgpt", "-o", tmp_path / "none"), 2),
        (("doctor",), 0),
    ):
        ran = porter(hub, *words, "--offline", HF_TOKEN=TOKEN)
        assert (ran.returncode, sockets(ran)) == (code, 0), (words, ran.stderr)
    # The negative control: what is asked of the Hub is seen.
    ran = porter(hub, "download", "org/other", HF_TOKEN=TOKEN)
    assert ran.returncode == 2 and sockets(ran) > 0


def test_a_receipt_names_no_place_of_this_machine(hub: Any, model: Path, tmp_path: Path) -> None:
    """An output is handed on; where it was made is nobody's business."""
    out = tmp_path / "out"
    assert porter(hub, "convert", model, "--to", "litgpt", "-o", out).returncode == 0
    text = (out / "porter-receipt.json").read_text()
    assert str(tmp_path) not in text and str(Path.home()) not in json.dumps(json.loads(text))
