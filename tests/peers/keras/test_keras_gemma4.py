"""Gemma 4 between transformers and KerasHub: the same logits there, and the same bytes back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import porter
from porter.errors import UnsupportedError
from tests.peers.test_gemma3n_gemma4 import PROMPT, build, loaded, logits

pytestmark = pytest.mark.peer

ROPE = {
    "full_attention": {"rope_type": "proportional", "rope_theta": 5000.0, "partial_rotary_factor": 0.5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
}
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
    return model.token_embedding(hidden, reverse=True).detach()


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
    assert stored.keys() == back.keys()
    for weight in stored:
        assert torch.equal(stored[weight], back[weight]), weight
    # The config too: transformers computes the same from what has come back.
    assert torch.equal(logits(loaded(tmp_path / "back")), wanted)


NO_ROTATION = ROPE | {"full_attention": ROPE["full_attention"] | {"partial_rotary_factor": 0.1}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_bidirectional_attention": "all"}, "attends_to = 'all'"),
        ({"tie_word_embeddings": False}, "tie_embeddings = False"),
        ({"rope_parameters": NO_ROTATION}, "no_rotation = True"),
    ],
)
def test_what_kerashub_computes_otherwise_is_refused_by_name(changes, words, tmp_path):
    build("4 dense", **changes).save_pretrained(tmp_path / "source")
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


@pytest.mark.parametrize("name", ["per layer", "experts"])
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
