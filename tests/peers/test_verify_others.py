"""Ports that LitGPT's own converter makes, as `porter verify` tells them."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

import porter
from tests.peers import families

pytestmark = pytest.mark.peer


def converted(source, tmp_path, name):
    from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint

    folder = tmp_path / "converted"
    shutil.copytree(source, folder)
    convert_hf_checkpoint(folder, model_name=name)
    # Its own files alone: the original's lie beside them.
    for path in folder.iterdir():
        if path.suffix == ".safetensors" or path.name == "config.json":
            path.unlink()
    return folder


def test_gemma_2b_gets_the_names_of_gemma_2(models, tmp_path):
    """LitGPT (0.5.13) takes every name that begins with gemma-2 for one."""
    source = models.path("gemma-mqa")
    verdict = porter.verify(source, converted(source, tmp_path, "Gemma-2b"))
    assert verdict.out_dialect == "litgpt"
    assert [tensor.name for tensor in verdict.weights.missing] == [
        f"transformer.h.{layer}.norm_2.weight" for layer in range(3)
    ]
    assert verdict.weights.extra == tuple(
        f"transformer.h.{layer}.post_attention_norm.weight" for layer in range(3)
    )
    assert verdict.weights.differing == ()
    assert verdict.mistakes[0].says == (
        "`transformer.h.{n}.post_attention_norm.weight` holds what belongs to "
        "`transformer.h.{n}.norm_2.weight`: named otherwise"
    )
    assert verdict.mistakes[0].layers == (0, 1, 2)


def test_the_others_have_the_right_weights(models, tmp_path):
    """Negative control; that the config is the real model's, and not the tiny one's, is said too."""
    source = models.path("gemma2")
    verdict = porter.verify(source, converted(source, tmp_path, "Gemma-2-2b"))
    assert verdict.weights.outcome == "equal", verdict
    wrong = {difference.name for difference in verdict.config.differences}
    assert {"n_layer", "d_model", "n_head", "head_dim", "vocab_size"} <= wrong


def test_what_a_config_calls_the_model_counts_by_what_it_means(tmp_path):
    """A Mistral without windows is a Llama, and the GGUF of one is called so; a Gemma is none."""
    source, out = tmp_path / "llama", tmp_path / "out"
    families.build(families.config_of("llama", "")).save_pretrained(source)
    shutil.copytree(source, out)
    config = json.loads((out / "config.json").read_text())

    def called(**changes):
        (out / "config.json").write_text(json.dumps({**config, **changes}))
        return porter.verify(source, out)

    same = called(model_type="mistral", sliding_window=None)
    assert same.right and "config.json is in the words of mistral: compared by what they mean" in same.notes
    assert not any("in the words" in note for note in called().notes)
    windows = called(model_type="mistral", sliding_window=7).config.differences
    assert [one.name for one in windows] == ["model_type", "sliding_window", "sliding_layers"]
    gemma = {one.name for one in called(model_type="gemma").config.differences}
    assert {"model_type", "norm_offset", "scale_embeddings"} <= gemma
    # Phi-3 means the same by it, and has q, k and v in one tensor.
    assert [one.name for one in called(model_type="phi3").config.differences] == ["model_type"]


def test_what_transformers_does_not_load_is_passed_over_on_both_sides(tmp_path):
    """DeepSeek-V3's files hold a layer more, for guessing further tokens."""
    source, out = tmp_path / "source", tmp_path / "out"
    changes = {
        "num_hidden_layers": 61,
        "hidden_size": 12,
        "intermediate_size": 8,
        "first_k_dense_replace": 61,
    }
    families.build(families.config_of("deepseek_v3", "") | changes).save_pretrained(source)
    shutil.copytree(source, out)
    weights = load_file(out / "model.safetensors")
    weights["model.layers.61.eh_proj.weight"] = weights["model.layers.0.mlp.gate_proj.weight"].clone()
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    for one, two in ((source, out), (out, source), (out, out)):
        assert porter.verify(one, two).right, porter.verify(one, two).says
    weights["model.layers.62.eh_proj.weight"] = weights["model.layers.61.eh_proj.weight"].clone()
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    assert not porter.verify(source, out).right
