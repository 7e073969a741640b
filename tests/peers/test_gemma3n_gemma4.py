"""Gemma 3n and Gemma 4, which LitGPT has no model for: from transformers to transformers."""

from __future__ import annotations

import itertools
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import porter
from porter.errors import PorterError, UnsupportedError

pytestmark = pytest.mark.peer

SIZES = {
    "vocab_size": 131,
    "vocab_size_per_layer_input": 97,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_attention_heads": 6,
    "head_dim": 10,
    "sliding_window": 7,
    "hidden_size_per_layer_input": 5,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "num_hidden_layers": 6,
}
GEMMA4 = SIZES | {"num_key_value_heads": 3, "global_head_dim": 14}
ROPE = {"rope_type": "proportional", "rope_theta": 5000.0, "factor": 2.0}
CASES = {
    "3n": (
        "gemma3n_text",
        SIZES
        | {
            "num_key_value_heads": 2,
            "altup_num_inputs": 3,
            "num_kv_shared_layers": 2,
            "laurel_rank": 9,
            "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0, 0.0],
        },
    ),
    "3n not shared": (
        "gemma3n_text",
        SIZES
        | {
            "num_key_value_heads": 2,
            "altup_num_inputs": 2,
            "altup_active_idx": 1,
            "num_kv_shared_layers": 0,
            "intermediate_size": [40, 40, 36, 36, 32, 44],
            "tie_word_embeddings": False,
            "laurel_rank": 9,
        },
    ),
    "4 dense": ("gemma4_text", GEMMA4 | {"hidden_size_per_layer_input": 0}),
    "4 per layer": ("gemma4_text", GEMMA4 | {"num_kv_shared_layers": 2, "use_double_wide_mlp": True}),
    "4 like the next": ("gemma4_text", GEMMA4),
    "4 not causal": ("gemma4_text", GEMMA4 | {"use_bidirectional_attention": "all"}),
    "4 for images": ("gemma4_text", GEMMA4 | {"use_bidirectional_attention": "vision"}),
    "4 without rotation": (
        "gemma4_text",
        GEMMA4
        | {
            "rope_parameters": {
                "full_attention": ROPE | {"partial_rotary_factor": 0.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            }
        },
    ),
    "4 experts": (
        "gemma4_text",
        GEMMA4
        | {
            "hidden_size_per_layer_input": 0,
            "enable_moe_block": True,
            "num_experts": 5,
            "top_k_experts": 2,
            "moe_intermediate_size": 12,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 2,
        },
    ),
}
PROMPT = torch.randint(0, 97, (1, 60), generator=torch.Generator().manual_seed(7))


def filled(model):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1 + float("norm" in name))
        # Gemma 4 keeps one scale a layer as a buffer.
        for name, weight in model.named_buffers():
            if name.endswith("layer_scalar"):
                weight.copy_(torch.rand(weight.shape, generator=generator) + 0.5)
    return model.eval()


def build(case, **changes):
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, values = CASES[case]
    return filled(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values | changes)))


def loaded(folder, **options):
    """The model that transformers reads there; every weight must be there, and no other."""
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(loading.values()), loading
    return model.eval()


def loaded_anyhow(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def logits(model):
    with torch.inference_mode():
        return model(PROMPT).logits


def changed(folder, change):
    """The config there, changed by a function."""
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    change(config)
    path.write_text(json.dumps(config), "utf-8")


@pytest.mark.parametrize("case", CASES)
def test_it_goes_to_transformers_and_litgpt_is_refused_with_the_reason(case, tmp_path):
    model = build(case)
    model.save_pretrained(tmp_path / "source")
    porter.convert(tmp_path / "source", tmp_path / "out", to="hf", max_shard_size="100KB")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    again, wanted = loaded(tmp_path / "out"), logits(model)
    assert torch.equal(logits(again), wanted)
    # The control: one row of one weight changes them.
    with torch.inference_mode():
        again.model.layers[1].self_attn.q_proj.weight[3] += 1
    assert not torch.equal(logits(again), wanted)
    with pytest.raises(UnsupportedError) as caught:
        porter.convert(tmp_path / "source", tmp_path / "litgpt", to="litgpt")
    assert "LitGPT has no" in str(caught.value.cause)
    assert not (tmp_path / "litgpt").exists()


def test_what_the_cases_vary_changes_the_logits():
    """Otherwise equal logits would not show that it was carried."""
    plain = logits(build("4 like the next"))
    assert torch.equal(logits(build("4 for images")), plain), "without images it is causal"
    assert not torch.equal(logits(build("4 not causal")), plain)
    assert not torch.equal(logits(build("4 without rotation")), plain)


@pytest.mark.parametrize("case", ["3n", "4 per layer"])
def test_a_torch_file_becomes_safetensors_of_bfloat16(case, tmp_path):
    model = build(case)
    model.save_pretrained(tmp_path / "source")
    wanted = logits(loaded(tmp_path / "source", dtype=torch.bfloat16))
    weights = load_file(tmp_path / "source" / "model.safetensors")
    (tmp_path / "source" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "source" / "pytorch_model.bin")
    porter.convert(tmp_path / "source", tmp_path / "out", to="hf", dtype="bfloat16")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(written[name], weight.to(torch.bfloat16)), name
    again = loaded(tmp_path / "out")
    assert again.dtype == torch.bfloat16
    assert torch.equal(logits(again), wanted)
    assert not torch.equal(logits(again).float(), logits(model)), "the control: rounding shows"


def with_idle(path, to=None):
    """The weights there with keys and values of the two layers that share those of others, and written."""
    weights = load_file(path)
    for layer in (4, 5):
        for part in ("k_proj", "v_proj", "k_norm"):
            name = f"model.layers.{layer}.self_attn.{part}.weight"
            assert name not in weights, "transformers saves none"
            weights[name] = weights[name.replace(f".{layer}.", f".{layer - 4}.")] + layer
    save_file(weights, to or path, metadata={"format": "pt"})
    return weights


@pytest.mark.parametrize("case", ["3n", "4 per layer"])
def test_keys_and_values_of_layers_that_share_them_are_kept_where_they_are_stored(case, tmp_path):
    """Published files hold them; transformers passes over them."""
    model = build(case)
    model.save_pretrained(tmp_path / "source")
    path = tmp_path / "source" / "model.safetensors"
    weights = with_idle(path)
    porter.convert(tmp_path / "source", tmp_path / "out", to="hf")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[name], weight) for name, weight in weights.items())
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(model))
    # The control: those of one layer alone fit neither way of storing them.
    del weights["model.layers.5.self_attn.k_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(PorterError):
        porter.convert(tmp_path / "source", tmp_path / "part", to="hf")


@pytest.mark.parametrize("case", ["3n", "4 per layer"])
def test_it_is_the_same_model_whatever_nothing_computes_with(case, tmp_path):
    """Keys of layers that share them: published files and KerasHub's have some, transformers saves none."""
    model = build(case)
    forms = {name: tmp_path / name for name in ("saved", "published", "others")}
    for folder in forms.values():
        model.save_pretrained(folder)
    weights = with_idle(forms["published"] / "model.safetensors")
    idle = {name: w * 3 for name, w in weights.items() if re.search(r"layers\.[45]\.self_attn\.k_norm", name)}
    assert idle
    path = forms["others"] / "model.safetensors"
    save_file(load_file(path) | idle, path, metadata={"format": "pt"})
    wanted = logits(model)
    assert all(torch.equal(logits(loaded_anyhow(folder)), wanted) for folder in forms.values())
    for name in ("saved", "published"):
        forms[f"keras of {name}"] = tmp_path / f"keras-{name}"
        porter.convert(forms[name], forms[f"keras of {name}"], to="keras")
    assert len({porter.fingerprint(folder).fingerprint for folder in forms.values()}) == 1
    for original, out in itertools.permutations(forms.values(), 2):
        verdict = porter.verify(original, out)
        assert verdict.right and verdict.weights.outcome == "equal", (original, out, verdict.says)
        assert porter.diff(original, out).same
    notes = porter.verify(forms["saved"], forms["published"]).notes
    assert any("6 tensors of the port that no framework computes with" in note for note in notes)


@pytest.mark.parametrize("case", ["3n", "4 per layer"])
def test_keys_that_are_computed_with_count(case, tmp_path):
    """The control: those of a layer that has its own, changed or missing beside the idle ones."""
    build(case).save_pretrained(tmp_path / "saved")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_bytes((tmp_path / "saved" / "config.json").read_bytes())
    weights = with_idle(tmp_path / "saved" / "model.safetensors", tmp_path / "out" / "model.safetensors")
    assert porter.verify(tmp_path / "saved", tmp_path / "out").right
    own = porter.fingerprint(tmp_path / "saved").fingerprint
    name = "model.layers.3.self_attn.k_norm.weight"
    for out in (weights | {name: weights[name] + 1}, {n: w for n, w in weights.items() if n != name}):
        save_file(out, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
        verdict = porter.verify(tmp_path / "saved", tmp_path / "out")
        assert not verdict.right
        found = verdict.weights.differing if name in out else verdict.weights.missing
        assert [tensor.name for tensor in found] == [name]
        assert not porter.diff(tmp_path / "saved", tmp_path / "out").same
        if name in out:
            assert porter.fingerprint(tmp_path / "out").fingerprint != own


@pytest.mark.parametrize("tied", [True, False])
def test_the_language_model_of_a_multimodal_one(tied, tmp_path):
    from transformers import Gemma4Config, Gemma4ForConditionalGeneration

    vision = {
        "hidden_size": 24,
        "intermediate_size": 20,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "patch_size": 4,
        "position_embedding_size": 16,
    }
    model = filled(
        Gemma4ForConditionalGeneration(
            Gemma4Config(
                # What the text's own part says of tying does not count.
                text_config=CASES["4 per layer"][1] | {"tie_word_embeddings": True},
                vision_config=vision,
                audio_config=None,
                tie_word_embeddings=tied,
                **{
                    f"{name}_token_id": 120 + at
                    for at, name in enumerate(("image", "boi", "eoi", "video", "boa"))
                },
            )
        )
    )
    model.save_pretrained(tmp_path / "source")
    stored = load_file(tmp_path / "source" / "model.safetensors")
    assert ("lm_head.weight" in stored) is not tied
    with pytest.raises(PorterError) as caught:
        porter.convert(tmp_path / "source", tmp_path / "out", to="hf")
    assert "text_only=True" in str(caught.value.hint)
    porter.convert(tmp_path / "source", tmp_path / "out", to="hf", text_only=True)
    again = loaded(tmp_path / "out")
    assert type(again).__name__ == "Gemma4ForCausalLM"
    wanted = logits(model)
    assert torch.equal(logits(again), wanted)
    with torch.inference_mode():
        again.lm_head.weight[:, 3] += 1
    assert not torch.equal(logits(again), wanted)


def test_a_tensor_that_the_layer_cannot_have_is_refused(tmp_path):
    build("4 experts").save_pretrained(tmp_path / "source")
    weights = load_file(tmp_path / "source" / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    weights[name.replace("k_proj", "v_proj")] = weights[name].clone()
    save_file(weights, tmp_path / "source" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PorterError):
        porter.convert(tmp_path / "source", tmp_path / "out", to="hf")


def test_heads_of_each_layer_may_stand_layer_by_layer(tmp_path):
    """As transformers writes them, or in the two fields that published files have: one model."""
    build("4 experts").save_pretrained(tmp_path / "source")
    config = json.loads((tmp_path / "source" / "config.json").read_text("utf-8"))
    assert config["per_layer_config"]["1"] == {"head_dim": 14, "num_key_value_heads": 2}
    first = porter.convert(tmp_path / "source", tmp_path / "first", to="hf")

    def in_two_fields(config):
        del config["per_layer_config"]
        config |= {"global_head_dim": 14, "num_global_key_value_heads": 2}

    changed(tmp_path / "source", in_two_fields)
    second = porter.convert(tmp_path / "source", tmp_path / "second", to="hf")
    assert first and second
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def _window(config):
    config["per_layer_config"]["1"]["sliding_window"] = 3


def _slides(config):
    config["layer_types"][-1] = "sliding_attention"
    config["per_layer_config"] = {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_window, "per_layer_config.1.sliding_window"),
        (_slides, "last_slides"),
        (lambda c: c.update(rope_scaling={"rope_type": "linear", "factor": 2.0}), "rope_scaling"),
        (
            lambda c: c["rope_parameters"]["sliding_attention"].update(rope_type="linear", factor=2.0),
            "linear",
        ),
    ],
)
def test_what_it_could_not_carry_is_refused_by_name(change, words, tmp_path):
    # Heads of one size where the kinds of layers are mixed up, so that no shape gives it away.
    dims = {"global_head_dim": 10} if change is _slides else {}
    build("4 dense", **dims).save_pretrained(tmp_path / "source")
    changed(tmp_path / "source", change)
    with pytest.raises(UnsupportedError) as caught:
        porter.convert(tmp_path / "source", tmp_path / "out", to="hf")
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["3n", "4 dense"])
def test_no_token_is_not_the_default_of_the_text_models_class(case, tmp_path):
    """A null in the text's own part of a multimodal config is carried into the config of the text model."""
    from transformers import AutoConfig

    build(case).save_pretrained(tmp_path / "text")
    weights = load_file(tmp_path / "text" / "model.safetensors")
    whole = {name.replace("model.", "model.language_model.", 1): weight for name, weight in weights.items()}
    (tmp_path / "source").mkdir()
    save_file(whole, tmp_path / "source" / "model.safetensors", metadata={"format": "pt"})
    inner = json.loads((tmp_path / "text" / "config.json").read_text("utf-8"))
    assert inner["bos_token_id"] == 2
    for value, name in ((None, "null"), (7, "stated")):
        config = {"model_type": f"gemma{case[:2].strip()}", "text_config": inner | {"bos_token_id": value}}
        (tmp_path / "source" / "config.json").write_text(json.dumps(config), "utf-8")
        porter.convert(tmp_path / "source", tmp_path / name, to="hf", text_only=True)
        assert AutoConfig.from_pretrained(tmp_path / name).bos_token_id == value
    # The control: without the field it is what the class has.
    del config["text_config"]["bos_token_id"]
    (tmp_path / "source" / "config.json").write_text(json.dumps(config), "utf-8")
    porter.convert(tmp_path / "source", tmp_path / "absent", to="hf", text_only=True)
    assert AutoConfig.from_pretrained(tmp_path / "absent").bos_token_id == 2


@pytest.mark.parametrize("case", ["3n", "4 per layer", "4 experts"])
def test_its_logits_are_compared_layer_by_layer(case, tmp_path):
    """Embeddings of each layer, shared keys, experts: and a layer that differs is named."""
    build(case).save_pretrained(tmp_path / "a")
    porter.convert(tmp_path / "a", tmp_path / "b", to="hf", max_shard_size="40KB")
    verdict = porter.verify(tmp_path / "a", tmp_path / "b", logits="float32")
    assert verdict.outcome == "equal" and verdict.logits.agree and verdict.logits.max_logit > 0.1
    path = tmp_path / "a" / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.3.mlp.down_proj.weight"] *= -1
    save_file(weights, path, metadata={"format": "pt"})
    verdict = porter.verify(tmp_path / "b", tmp_path / "a", logits="float32")
    assert verdict.logits.first_parted == "layer 3"
