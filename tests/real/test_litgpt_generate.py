"""`litgpt generate` as a process on a `.pth` directory that porter wrote: the real Gemma 3 270M."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.real, pytest.mark.peer, pytest.mark.xdist_group("gemma3_270m")]

PROMPT = "The capital of France is"
# What transformers and the stock LitGPT say in float32; test_gemma3_270m.py holds the two against each other.
CONTINUATION = (
    " the capital of the country of France. It is the largest city in France and the second largest city in"
    " Europe. It is"
)


@pytest.fixture(scope="module")
def pth(real_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command line, as a user would."""
    out: Path = tmp_path_factory.mktemp("real-pth") / "gemma-3-270m"
    words = ["--to", "litgpt", "--dtype", "float32", "--container", "pth", "-o", out]
    done = subprocess.run(
        [sys.executable, "-m", "porter", "convert", real_gguf, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"load     litgpt generate {out}" in done.stdout.splitlines()
    return out


def test_litgpt_generate_says_what_transformers_says(pth: Path, tmp_path: Path) -> None:
    litgpt = Path(sys.executable).with_name("litgpt")
    words = ["--prompt", PROMPT, "--precision", "32-true", "--temperature", "0", "--max_new_tokens", "25"]
    done = subprocess.run([litgpt, "generate", pth, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert PROMPT + CONTINUATION in done.stdout


def test_the_tie_shares_its_storage(pth: Path) -> None:
    state = torch.load(pth / "lit_model.pth", mmap=True, weights_only=True)
    assert state["lm_head.weight"].data_ptr() == state["transformer.wte.weight"].data_ptr()
    # 268,098,176 parameters of 4 bytes, the head counted once
    assert 0 < (pth / "lit_model.pth").stat().st_size - 4 * 268_098_176 < 1_000_000
