"""The real Gemma 3 270M through LitGPT's own finetuning and back: `make finetune`, about five minutes.

What docs/litgpt.md shows, typed: to LitGPT with `--container pth`, `litgpt finetune_full` and
`litgpt finetune_lora` for two steps each, back to Hugging Face. Then transformers gives LitGPT's own logits,
and not the base model's. It is no part of `make test`, which has to end in minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.peer, pytest.mark.real]

ROOT = Path(__file__).resolve().parents[2]
STEPS = (
    *("--data", "JSON", "--data.json_path", "data.json", "--data.val_split_fraction", "0.25"),
    *("--train.max_steps", "2", "--train.epochs", "1", "--train.lr_warmup_steps", "1"),
    *("--train.global_batch_size", "1", "--train.micro_batch_size", "1", "--train.max_seq_length", "32"),
    *("--eval.max_iters", "1", "--eval.final_validation", "false", "--eval.initial_validation", "false"),
    *("--precision", "bf16-true", "--devices", "1"),
)
TOKENS = (2, 818, 5279, 529, 7001, 563)


def run(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    command = [sys.executable, "-m", *words] if words[0] == "porter" else list(words)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def ported(real_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base` (Hugging Face's), `lit` (LitGPT's, as lit_model.pth) and a little data."""
    folder = tmp_path_factory.mktemp("finetune")
    run(folder, "porter", "convert", str(real_gguf), "--to", "hf", "--dtype", "bfloat16", "-o", "base")
    run(folder, "porter", "convert", "base", "--to", "litgpt", "--container", "pth", "-o", "lit")
    rows = [{"instruction": f"Say {n}", "input": "", "output": f"The number {n}."} for n in range(8)]
    (folder / "data.json").write_text(json.dumps(rows))
    return folder


def litgpt_logits(folder: Path) -> Any:
    import torch
    from litgpt import GPT, Config

    model = GPT(Config.from_file(folder / "model_config.yaml")).eval()
    state = torch.load(folder / "lit_model.pth", weights_only=True)
    model.load_state_dict(state.get("model", state))
    with torch.no_grad():
        return model.float()(torch.tensor([TOKENS]))[0]


def hf_logits(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0]


def difference(one: Any, other: Any) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize(("how", "options"), [("full", ("--tied", "untie")), ("lora", ())])
def test_finetuned_by_litgpt_and_back(ported: Path, how: str, options: tuple[str, ...]) -> None:
    run(ported, "litgpt", f"finetune_{how}", "lit", *STEPS, "--out_dir", how)
    final = ported / how / "final"
    run(ported, "porter", "convert", str(final), "--to", "hf", *options, "-o", f"{how}_hf")
    expected = litgpt_logits(final)
    apart, moved = (difference(hf_logits(ported / name), expected) for name in (f"{how}_hf", "base"))
    print(f"{how}: {apart:.1e} of the largest logit apart; {moved:.1e} from the model before")
    assert apart < 1e-5
    assert moved > 1e-3, "two steps have changed nothing"
    shutil.rmtree(ported / f"{how}_hf")


def test_a_head_that_was_trained_apart_is_not_dropped(ported: Path) -> None:
    """LitGPT never ties: after `finetune_full` its head is another matrix than its embedding."""
    done = run(ported, "porter", "convert", "full/final", "--to", "hf", "-o", "refused", code=3)
    assert "--tied untie" in done.stderr
    assert not (ported / "refused").exists()


def test_an_adapter_alone_is_refused_with_the_way_to_merge_it(ported: Path) -> None:
    alone = ported / "alone"
    alone.mkdir()
    for name in ("lit_model.pth.lora", "model_config.yaml"):
        shutil.copy(ported / "lora" / "final" / name, alone)
    done = run(ported, "porter", "convert", "alone", "--to", "hf", "-o", "refused", code=5)
    assert "litgpt merge_lora" in done.stderr
