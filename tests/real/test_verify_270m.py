"""`porter verify` on the real Gemma 3 270M, whose embedding has 262,144 rows, many of them the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import porter

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("gemma3_270m")]


def test_a_right_port_is_right_and_three_mistakes_have_their_names(
    converted: dict[str, Path], tmp_path: Path
) -> None:
    assert porter.verify(converted["hf"], converted["litgpt"]).outcome == "equal"
    out = tmp_path / "wrong"
    shutil.copytree(converted["hf"], out)
    weights = load_file(out / "model.safetensors")
    embed, q, o = (
        "model.embed_tokens.weight",
        "model.layers.4.self_attn.q_proj.weight",
        "model.layers.9.self_attn.o_proj.weight",
    )
    weights[embed] = weights[embed].roll(-70_000, 0)
    draw = torch.Generator().manual_seed(1)
    left, right = (
        torch.randn(shape, generator=draw) for shape in ((weights[q].shape[0], 16), (16, weights[q].shape[1]))
    )
    weights[q] = weights[q] + 1e-3 * left @ right
    weights[o] = torch.randn(weights[o].shape, generator=draw) * 0.02
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    said = {mistake.says for mistake in porter.verify(converted["hf"], out).mistakes}
    shutil.rmtree(out)
    assert said == {
        "`embed_tokens`: vocabulary rows have changed places: rotated by 70000",
        "layer 4: `self_attn.q_proj`: the difference has rank 16, as a merged LoRA's has",
        "layer 9: `self_attn.o_proj`: nothing of the original is in it: another model's?",
    }
