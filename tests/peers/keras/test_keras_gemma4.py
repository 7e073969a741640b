"""Gemma 3n and 4 between transformers and KerasHub: the same logits there, and the same bytes back."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import porter
from porter.errors import UnsupportedError
from tests.peers.test_gemma3n_gemma4 import PROMPT, build, loaded, logits, with_idle

pytestmark = pytest.mark.peer

ROPE = {
    "full_attention": {"rope_type": "proportional", "rope_theta": 5000.0, "partial_rotary_factor": 0.5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
}
THETAS = {"full_attention": {"rope_theta": 5e3}, "sliding_attention": {"rope_theta": 300.0}}
PLAIN = {kind: {"rope_type": "default"} | theta for kind, theta in THETAS.items()}
LINEAR = {"rope_type": "linear", "factor": 4.0}
MODELS = {
    "dense": ("4 dense", {"final_logit_softcapping": 2.0, "rms_norm_eps": 1e-3}),
    "per layer": ("4 per layer", {"rope_parameters": ROPE}),
    "scaled": (
        "4 per layer",
        {
            "rope_parameters": ROPE
            | {"full_attention": {"rope_type": "linear", "rope_theta": 5e3, "factor": 4.0}}
        },
    ),
    "experts": ("4 experts", {"use_bidirectional_attention": "vision"}),
    "one head of keys": (
        "4 experts",
        {"num_global_key_value_heads": 1, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 5},
    ),
    "keys for values": ("4 dense", {"attention_k_eq_v": True}),
    "3n": ("3n", {"rms_norm_eps": 1e-3, "rope_parameters": PLAIN, "final_logit_softcapping": 2.0}),
    "3n not shared": ("3n not shared", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "3n scaled": ("3n", {"rope_parameters": {kind: LINEAR | theta for kind, theta in THETAS.items()}}),
    "3n, all kv heads": ("3n", {"num_key_value_heads": 6, "altup_coef_clip": 3.0}),
}


def keras_logits(folder):
    """What KerasHub computes from the preset there for the prompt."""
    from keras_hub.models import Backbone

    model = Backbone.from_preset(str(folder), load_weights=True, dtype="float32")
    length = PROMPT.shape[1]
    hidden = model(
        {
            "token_ids": PROMPT.numpy(),
            "padding_mask": np.ones((1, length), "int32"),
            "position_ids": np.arange(length)[None],
        }
    )
    embedding = model.token_embedding or model.language_model.token_embedding
    return embedding(hidden, reverse=True).detach()


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_the_same_in_kerashub_and_comes_back(name, tmp_path):
    case, changes = MODELS[name]
    model = build(case, **changes)
    model.save_pretrained(tmp_path / "source")
    porter.convert(tmp_path / "source", tmp_path / "keras", to="keras")
    with torch.inference_mode():
        found, wanted = keras_logits(tmp_path / "keras"), logits(model)
        assert (found - wanted).abs().max() < 2e-4 * wanted.abs().max()
        # The control: one row of a weight is further away than rounding (a factor would be normed away).
        model.model.layers[1].self_attn.q_proj.weight[3] += 1
        assert (found - logits(model)).abs().max() > 2e-3 * wanted.abs().max()
    porter.convert(tmp_path / "keras", tmp_path / "back", to="hf")
    stored, back = (load_file(tmp_path / at / "model.safetensors") for at in ("source", "back"))
    for weight in stored:
        assert torch.equal(stored[weight], back.pop(weight)), weight
    # What KerasHub has besides, and does not read: k, its norm, and v of layers that take those of others.
    assert len(back) == 3 * getattr(model.config, "num_kv_shared_layers", 0) * name.startswith("3n")
    assert all(re.search(r"layers\.[45]\.self_attn\.[kv]_", weight) for weight in back)
    assert not any(weight.any() for weight in back.values())
    # The config too: transformers computes the same from what has come back.
    assert torch.equal(logits(loaded(tmp_path / "back")), wanted)


NO_ROTATION = ROPE | {"full_attention": ROPE["full_attention"] | {"partial_rotary_factor": 0.1}}


@pytest.mark.parametrize(
    ("case", "changes", "words"),
    [
        ("4 dense", {"use_bidirectional_attention": "all"}, "attends_to = 'all'"),
        ("4 dense", {"tie_word_embeddings": False}, "tie_embeddings = False"),
        ("4 dense", {"rope_parameters": NO_ROTATION}, "no_rotation = True"),
        ("3n", {"tie_word_embeddings": False}, "tie_embeddings = False"),
        ("3n", {"altup_correct_scale": False}, "altup_correct_scale = False"),
        ("3n", {"rope_parameters": PLAIN | {"full_attention": LINEAR | {"rope_theta": 5e3}}}, "rope_local"),
    ],
)
def test_what_kerashub_computes_otherwise_is_refused_by_name(case, changes, words, tmp_path):
    build(case, **changes).save_pretrained(tmp_path / "source")
    with pytest.raises(UnsupportedError) as caught:
        porter.convert(tmp_path / "source", tmp_path / "out", to="keras")
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_transformers_computes_otherwise_is_refused_by_name(tmp_path):
    build("4 dense", rope_parameters=ROPE).save_pretrained(tmp_path / "source")
    porter.convert(tmp_path / "source", tmp_path / "keras", to="keras")
    path = tmp_path / "keras" / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["config"]["global_rope_partial_rotary_factor"] = 0.1
    path.write_text(json.dumps(config), "utf-8")
    with pytest.raises(UnsupportedError, match="no_rotation"):
        porter.convert(tmp_path / "keras", tmp_path / "out", to="hf")
    config["config"]["use_bidirectional_attention"] = True
    path.write_text(json.dumps(config), "utf-8")
    with pytest.raises(UnsupportedError, match="use_bidirectional_attention"):
        porter.convert(tmp_path / "keras", tmp_path / "out", to="hf")


@pytest.mark.parametrize("name", ["per layer", "experts", "3n not shared"])
def test_what_kerashub_saves_is_read(name, tmp_path):
    from keras_hub.models import Backbone

    case, changes = MODELS[name]
    build(case, **changes).save_pretrained(tmp_path / "source")
    porter.convert(tmp_path / "source", tmp_path / "keras", to="keras")
    saved = tmp_path / "saved"
    Backbone.from_preset(str(tmp_path / "keras"), dtype="float32").save_to_preset(str(saved))
    porter.convert(saved, tmp_path / "back", to="hf")
    stored, back = (load_file(tmp_path / at / "model.safetensors") for at in ("source", "back"))
    assert stored.keys() == back.keys()
    assert all(torch.equal(back[weight], stored[weight]) for weight in stored)


def test_projections_that_nothing_reads_are_left_out_where_kerashub_has_no_place(tmp_path):
    """Published files of Gemma 4 hold them for every layer, KerasHub's do not."""
    model = build("4 per layer", rope_parameters=ROPE)
    model.save_pretrained(tmp_path / "source")
    with_idle(tmp_path / "source" / "model.safetensors")
    done = porter.convert(tmp_path / "source", tmp_path / "keras", to="keras")
    assert any("left out: 6 tensors that no framework computes with" in note for note in done.plan.notes)
    wanted = logits(model)
    with torch.inference_mode():
        assert (keras_logits(tmp_path / "keras") - wanted).abs().max() < 2e-4 * wanted.abs().max()


def test_projections_that_nothing_reads_are_kept_where_there_are_any(tmp_path):
    """Published files of Gemma 3n hold them for every layer, as KerasHub's do."""
    build("3n").save_pretrained(tmp_path / "source")
    path = tmp_path / "source" / "model.safetensors"
    with_idle(path)
    porter.convert(tmp_path / "source", tmp_path / "keras", to="keras")
    porter.convert(tmp_path / "keras", tmp_path / "back", to="hf")
    assert path.read_bytes() == (tmp_path / "back" / "model.safetensors").read_bytes()


def test_the_logits_of_both_are_compared_block_by_block(tmp_path):
    source, out = tmp_path / "source", tmp_path / "keras"
    build("4 per layer", rope_parameters=ROPE).save_pretrained(source)
    porter.convert(source, out, to="keras")
    found = porter.verify(source, out, logits="float32").logits
    assert found is not None and found.agree and "Gemma4Backbone" in found.out_code
    weights = load_file(source / "model.safetensors")
    weights["model.layers.1.self_attn.q_proj.weight"][3] += 1
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    wrong = porter.verify(source, out, logits="float32").logits
    assert wrong is not None and wrong.first_parted == "layer 1"
    # Gemma 3n's blocks stand inside another layer.
    build("3n", rope_parameters=PLAIN).save_pretrained(tmp_path / "3n")
    porter.convert(tmp_path / "3n", tmp_path / "keras-3n", to="keras")
    with pytest.raises(UnsupportedError, match="Gemma3nBackbone cannot be run block by block"):
        porter.verify(tmp_path / "3n", tmp_path / "keras-3n", logits="float32")


def test_the_language_model_of_one_that_sees_and_hears(tmp_path):
    """KerasHub's presets of Gemma 3n hold towers for images and sounds."""
    from keras_hub.models import Gemma3nBackbone
    from keras_hub.src.models.gemma3n.gemma3n_audio_encoder import Gemma3nAudioEncoder
    from keras_hub.src.models.mobilenetv5.mobilenetv5_backbone import MobileNetV5Backbone
    from keras_hub.src.models.mobilenetv5.mobilenetv5_builder import convert_arch_def_to_stackwise

    build("3n").save_pretrained(tmp_path / "source")
    porter.convert(tmp_path / "source", tmp_path / "keras", to="keras")
    values = json.loads((tmp_path / "keras" / "config.json").read_text("utf-8"))["config"]
    vision = MobileNetV5Backbone(
        **convert_arch_def_to_stackwise([["er_r1_k3_s1_e1_c16"]]),
        num_features=4, image_shape=(32, 32, 3), use_msfa=False,
    )  # fmt: skip
    audio = Gemma3nAudioEncoder(
        hidden_size=8, input_feat_size=32, sscp_conv_channel_size=[4, 8], sscp_conv_kernel_size=[(3, 3)] * 2,
        sscp_conv_stride_size=[(2, 2)] * 2, sscp_conv_group_norm_eps=1e-5, num_hidden_layers=1,
        rms_norm_eps=1e-6, gradient_clipping=1.0, residual_weight=0.5, num_attention_heads=1,
        attention_chunk_size=4, num_attention_context_right=5, num_attention_context_left=5,
        attention_logit_cap=50.0, conv_kernel_size=5, reduction_factor=1,
    )  # fmt: skip
    towers = {"vision_encoder_config": vision.get_config(), "audio_encoder_config": audio.get_config()}
    whole = Gemma3nBackbone.from_config(values | towers | {"vision_hidden_size": 16, "audio_hidden_size": 8})
    language, generator = whole.language_model, torch.Generator().manual_seed(5)
    for weight in language.weights:
        noise = 0.1 * torch.randn(*weight.shape, generator=generator)
        weight.assign(noise + float(weight.name == "scale"))
    whole.save_to_preset(str(tmp_path / "whole"))
    with pytest.raises(UnsupportedError) as caught:
        porter.convert(tmp_path / "whole", tmp_path / "out", to="hf")
    assert "text_only=True" in str(caught.value.hint)
    porter.convert(tmp_path / "whole", tmp_path / "out", to="hf", text_only=True)
    with torch.inference_mode():
        tokens = PROMPT.int()
        embedded, of_layers = whole.embedding_processor({"token_ids": tokens})
        hidden = language(tokens, torch.ones_like(tokens), embedded, of_layers)
        wanted = language.token_embedding(hidden, reverse=True)
        found = logits(loaded(tmp_path / "out"))
        assert (found - wanted).abs().max() < 2e-4 * wanted.abs().max()
        language.transformer_layers[1].attention.q_proj.kernel.value[3] += 1
        hidden = language(tokens, torch.ones_like(tokens), embedded, of_layers)
        changed = language.token_embedding(hidden, reverse=True)
        assert (found - changed).abs().max() > 2e-3 * wanted.abs().max()
