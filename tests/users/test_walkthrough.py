"""The walk through Mistral in docs/tables.md works as it is typed; a broken table beside it stops nothing."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.peer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tables.md"


def test_adding_mistral_as_the_page_says(porter: Any, here: Path) -> None:
    from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=47,
        hidden_size=24,
        intermediate_size=52,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=10,
        sliding_window=5,
    )
    torch.manual_seed(1)
    model = MistralForCausalLM(config).eval()
    model.save_pretrained(here / "Mistral-7B")

    section = PAGE.read_text().partition("## Adding Mistral in ten lines")[2].partition("\n## ")[0]
    commands = re.findall(r"^    porter (.+)$", section, re.MULTILINE)
    table = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)[0]
    assert len([line for line in table.splitlines() if line]) <= 10
    new, check, convert = map(shlex.split, commands)

    porter(*new)
    path = here / check[-1]
    assert path.is_file(), "the skeleton is where the page says"
    path.write_text(table)
    porter(*check)
    # A broken table beside it is named where it is asked for, and nowhere else.
    (here / "mappings" / "broken").mkdir()
    (here / "mappings" / "broken" / "hf.toml").write_text('extends = "llama/hf"\n[rules]\n"a" = "nothing"\n')
    assert "broken" not in porter(*convert).stderr
    assert json.loads((here / "out" / "porter-receipt.json").read_text())["family"] == "my_mistral"
    porter("convert", "out", "--to", "hf", "-o", "back", env={"PORTER_MAPPINGS": "mappings"})
    before, after = (load_file(here / name / "model.safetensors") for name in ("Mistral-7B", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    loaded = AutoModelForCausalLM.from_pretrained(here / "back").eval()
    prompt = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.equal(loaded(prompt).logits, model(prompt).logits)
    refused = porter("mappings", "check", "mappings/broken/hf.toml", code=2)
    assert "hf.toml:3: the rule has no `layout`" in refused.stderr
