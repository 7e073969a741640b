"""Multimodal Gemma 3: its language model is taken out, and computes what it computed inside."""

from __future__ import annotations

import importlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import porter
from porter.errors import UnsupportedError

pytestmark = pytest.mark.peer

BOUND = 2e-6
TEXT = {
    "hidden_size": 40,
    "intermediate_size": 51,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "query_pre_attn_scalar": 10,
    "sliding_window": 11,
    "max_position_embeddings": 128,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
VISION = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
PROMPT = [[int(token) for token in np.random.default_rng(5).integers(0, 90, 50)]]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Write a model with this many rows in its embedding; its directory, and logits for text alone."""
    transformers = importlib.import_module("transformers")

    def make(rows):
        config = transformers.Gemma3Config(
            text_config=TEXT | {"vocab_size": rows},
            vision_config=VISION,
            mm_tokens_per_image=1,
            image_token_index=rows - 1,
        )
        model = transformers.Gemma3ForConditionalGeneration(config)
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for weight in model.parameters():
                noise = torch.randn(weight.shape, generator=generator)
                weight.copy_(noise / weight.shape[-1] ** 0.5 if weight.ndim >= 2 else 0.3 * noise)
            path = tmp_path_factory.mktemp(f"rows-{rows}")
            model.save_pretrained(path)
            return path, model.eval()(torch.tensor(PROMPT)).logits

    return make


@pytest.fixture(scope="module")
def small(build):
    return build(97)


def logits(path):
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(loading.values()), loading
    assert type(model).__name__ == "Gemma3ForCausalLM"
    with torch.inference_mode():
        return model.eval()(torch.tensor(PROMPT)).logits


def difference(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def test_the_language_model_computes_what_it_did_inside(small, tmp_path):
    source, expected = small
    done = porter.convert(source, tmp_path / "out", to="hf", text_only=True, target_model="transformers")
    assert done.plan.source_dialect == "hf-multimodal"
    assert any("text only" in note and "vision" in note for note in done.plan.notes)
    assert difference(logits(tmp_path / "out"), expected) <= BOUND


@pytest.mark.parametrize("dialect", ["litgpt", "gemma_pytorch", "flax"])
def test_it_goes_to_every_other_dialect(small, tmp_path, dialect):
    source, expected = small
    porter.convert(source, tmp_path / "out", to=dialect, text_only=True)
    porter.convert(tmp_path / "out", tmp_path / "hf", to="hf")
    assert difference(logits(tmp_path / "hf"), expected) <= BOUND


@pytest.mark.parametrize(
    ("model", "head"),
    [("language_model.model.", "language_model.lm_head."), ("model.language_model.", "lm_head.")],
)
def test_both_spellings_are_one_model(small, tmp_path, model, head):
    """With a copy of the head, as some files have it: it is tied, and dropped."""
    source, _ = small
    respelled = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        for prefix in ("language_model.model.", "model.language_model."):
            if name.startswith(prefix):
                name = model + name.removeprefix(prefix)
        respelled[name] = tensor
    respelled[f"{head}weight"] = respelled[f"{model}embed_tokens.weight"].clone()
    folder = tmp_path / "respelled"
    folder.mkdir()
    save_file(respelled, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    porter.convert(folder, tmp_path / "out", to="hf", text_only=True)
    porter.convert(source, tmp_path / "expected", to="hf", text_only=True)
    expected = load_file(tmp_path / "expected" / "model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_without_being_asked_nothing_is_left_out(small, tmp_path):
    source, _ = small
    with pytest.raises(UnsupportedError, match="belong to no language model") as caught:
        porter.plan(source, to="litgpt")
    assert "vision_tower" in caught.value.cause and "multi_modal_projector" in caught.value.cause
    assert "text_only=True" in caught.value.hint


def test_rows_for_images_are_left_out_and_said(build, tmp_path):
    source, expected = build(262208)
    done = porter.convert(source, tmp_path / "out", to="hf", text_only=True, dtype="keep")
    assert any("last 64 of 262208 rows are left out" in note for note in done.plan.notes)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 262144
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert tensors["model.embed_tokens.weight"].shape == (262144, 40)
    assert difference(logits(tmp_path / "out"), expected[..., :262144]) <= BOUND


def test_what_stands_at_the_top_goes_before_the_text_models_own(small, tmp_path):
    """transformers ties, and stops, by the outer fields."""
    source, _ = small
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    config = json.loads((source / "config.json").read_text())
    head = torch.randn(97, 40, generator=torch.Generator().manual_seed(2)) / 40**0.5
    tensors = load_file(source / "model.safetensors") | {"lm_head.weight": head}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "generation_config.json").unlink(missing_ok=True)

    def taken_out(outer, inner, out):
        config["text_config"] |= {"tie_word_embeddings": inner, "eos_token_id": 1}
        config.update(tie_word_embeddings=outer, eos_token_id=[1, 7])
        if outer == "left out":
            del config["tie_word_embeddings"]
        (folder / "config.json").write_text(json.dumps(config))
        model = importlib.import_module("transformers").Gemma3ForConditionalGeneration.from_pretrained(folder)
        with torch.inference_mode():
            expected = model.eval()(torch.tensor(PROMPT)).logits
        porter.convert(folder, tmp_path / out, to="hf", text_only=True)
        assert json.loads((tmp_path / out / "config.json").read_text())["eos_token_id"] == [1, 7]
        assert model.generation_config.eos_token_id == [1, 7]
        return logits(tmp_path / out), expected

    found, untied = taken_out(False, True, "untied")
    assert difference(found, untied) <= BOUND
    found, untied = taken_out(None, True, "null")
    assert difference(found, untied) <= BOUND
    # Negative control: tied, the stored head is another one, and transformers passes over it.
    with pytest.raises(porter.PorterError, match="tied"):
        taken_out(True, False, "tied")
    # A field that is left out at the top means that they are tied, whatever the text model's own says.
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found, tied = taken_out("left out", False, "tied")
    assert difference(found, tied) <= BOUND < difference(tied, untied)
