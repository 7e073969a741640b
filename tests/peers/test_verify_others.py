"""Ports that LitGPT's own converter makes, as `porter verify` tells them."""

from __future__ import annotations

import shutil

import pytest

import porter

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
