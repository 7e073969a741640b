"""What no second framework here can check: weights that only transformers stores, cut by hand; and refusals.

A dialect made for the test stores each canonical weight alone. What porter writes there is compared with
slices of transformers' own tensors, and through them with what its modules compute.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import porter
from porter.errors import PorterError, UnsupportedError
from tests.peers.families import LATENT_PARTS

D, F, E = 72, 44, 5
GPT2 = """
family = "gpt2"
dialect = "plain"
extends = "gpt2/hf"
[files]
weights = "plain.safetensors"
sharded = false
[config]
file = "plain.json"
[rules]
"transformer.h.{layer}.attn.c_attn.weight" = false
"transformer.h.{layer}.attn.c_attn.bias" = false
"{layer}.q" = { ours = "{layer}.attn.q", layout = "(n_kv_head q_per_kv head_dim) d_model" }
"{layer}.k" = { ours = "{layer}.attn.k", layout = "(n_kv_head head_dim) d_model" }
"{layer}.v" = { ours = "{layer}.attn.v", layout = "(n_kv_head head_dim) d_model" }
"{layer}.qb" = { ours = "{layer}.attn.q_bias", layout = "(n_kv_head q_per_kv head_dim)" }
"{layer}.kb" = { ours = "{layer}.attn.k_bias", layout = "(n_kv_head head_dim)" }
"{layer}.vb" = { ours = "{layer}.attn.v_bias", layout = "(n_kv_head head_dim)" }
"transformer.h.{layer}.attn.c_proj.weight" = false
"{layer}.o" = { ours = "{layer}.attn.o", layout = "d_model (n_kv_head q_per_kv head_dim)" }
"transformer.h.{layer}.mlp.c_fc.weight" = "{layer}.mlp.up"
"transformer.h.{layer}.mlp.c_proj.weight" = { ours = "{layer}.mlp.down", layout = "d_model d_ff" }
"""
GPT_OSS = """
family = "gpt_oss"
dialect = "plain"
extends = "gpt_oss/hf"
[files]
weights = "plain.safetensors"
sharded = false
[config]
file = "plain.json"
[rules]
"model.layers.{layer}.mlp.experts.gate_up_proj" = false
"model.layers.{layer}.mlp.experts.gate_up_proj_bias" = false
"model.layers.{layer}.mlp.experts.down_proj" = false
"model.layers.{layer}.mlp.experts.down_proj_bias" = false
"{layer}.{expert}.gate" = "{layer}.mlp.experts.{expert}.gate"
"{layer}.{expert}.up" = "{layer}.mlp.experts.{expert}.up"
"{layer}.{expert}.down" = { ours = "{layer}.mlp.experts.{expert}.down", layout = "d_model d_expert" }
"{layer}.{expert}.gate_bias" = "{layer}.mlp.experts.{expert}.gate_bias"
"{layer}.{expert}.up_bias" = "{layer}.mlp.experts.{expert}.up_bias"
"{layer}.{expert}.down_bias" = "{layer}.mlp.experts.{expert}.down_bias"
"""


def made(model_type: str, folder: Path, **values: Any) -> Any:
    """transformers' model with random weights, saved."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **values))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    model = model.float().eval()
    model.save_pretrained(folder)
    return model


def gpt2(folder: Path) -> Any:
    sizes = {"vocab_size": 211, "n_positions": 64, "n_embd": D, "n_layer": 2, "n_head": 6, "n_inner": 104}
    return made("gpt2", folder, **sizes, bos_token_id=2, eos_token_id=1)


SIZES = {
    "vocab_size": 211,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 400,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def gpt_oss(folder: Path) -> Any:
    experts = {"num_local_experts": E, "num_experts_per_tok": 2}
    return made("gpt_oss", folder, **SIZES, **experts, head_dim=10)


def plain(table: str, source: Path, folder: Path) -> tuple[dict[str, Tensor], Path, Path]:
    """The weights in the dialect of the test, and transformers' again."""
    path = folder / "plain.toml"
    path.write_text(table, encoding="utf-8")
    porter.convert(source, folder / "plain", to="plain", maps=[path])
    porter.convert(folder / "plain", folder / "back", to="hf", source_dialect="plain", maps=[path])
    return load_file(folder / "plain" / "plain.safetensors"), folder / "back", path


@pytest.mark.peer
def test_gpt2s_transposed_and_fused_weights_are_cut_where_its_attention_cuts_them(tmp_path):
    model = gpt2(tmp_path / "hf")
    found, back, _ = plain(GPT2, tmp_path / "hf", tmp_path)
    block = model.transformer.h[1]
    fused = block.attn.c_attn.weight.detach()
    for at, name in enumerate("qkv"):
        assert torch.equal(found[f"1.{name}"], fused[:, at * D : (at + 1) * D].T)
        assert torch.equal(found[f"1.{name}b"], block.attn.c_attn.bias.detach()[at * D : (at + 1) * D])
    assert not torch.equal(found["1.k"], fused[:, :D].T), "the control: k is not q"
    # Conv1D multiplies from the other side.
    assert torch.equal(found["transformer.h.1.mlp.c_fc.weight"], block.mlp.c_fc.weight.detach().T)
    assert torch.equal(found["transformer.h.1.mlp.c_proj.weight"], block.mlp.c_proj.weight.detach().T)
    assert torch.equal(found["1.o"], block.attn.c_proj.weight.detach().T)
    x = torch.randn(3, D, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        by_hand = x @ torch.cat([found[f"1.{n}"] for n in "qkv"]).T + block.attn.c_attn.bias
        assert torch.allclose(by_hand, block.attn.c_attn(x), atol=1e-4)
    one, two = load_file(tmp_path / "hf" / "model.safetensors"), load_file(back / "model.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(two[n], w) for n, w in one.items())


@pytest.mark.peer
def test_gpt_oss_gate_and_up_are_every_other_column(tmp_path):
    model = gpt_oss(tmp_path / "hf")
    found, back, _ = plain(GPT_OSS, tmp_path / "hf", tmp_path)
    experts = model.model.layers[1].mlp.experts
    x = torch.randn(3, D, generator=torch.Generator().manual_seed(1))
    for at in range(E):
        name = f"1.{at}."
        fused = experts.gate_up_proj.detach()[at]
        assert torch.equal(found[name + "gate"], fused[:, ::2].T)
        assert torch.equal(found[name + "up"], fused[:, 1::2].T)
        assert torch.equal(found[name + "down"], experts.down_proj.detach()[at].T)
        assert torch.equal(found[name + "down_bias"], experts.down_proj_bias.detach()[at])
        with torch.inference_mode():
            gate = x @ found[name + "gate"].T + found[name + "gate_bias"]
            up = x @ found[name + "up"].T + found[name + "up_bias"]
            gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
            wanted = experts._apply_gate(x @ fused + experts.gate_up_proj_bias[at])
            assert torch.allclose((up + 1) * gate * torch.sigmoid(1.702 * gate), wanted, atol=1e-4)
            assert not torch.allclose((gate + 1) * up * torch.sigmoid(1.702 * up), wanted, atol=1e-1)
    one, two = load_file(tmp_path / "hf" / "model.safetensors"), load_file(back / "model.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(two[n], w) for n, w in one.items())


@pytest.mark.peer
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_gpt2_as_it_was_published(file, tmp_path):
    """A base model: no `transformer.` in front, and the masks of attention among the weights."""
    from transformers import AutoModelForCausalLM

    model = gpt2(tmp_path / "hf")
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    weights = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    for layer in range(2):
        weights[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64).tril().to(torch.uint8)
        weights[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    (tmp_path / "hf" / "model.safetensors").unlink()
    if file.endswith(".bin"):
        torch.save(weights, tmp_path / "hf" / file)
    else:
        save_file(weights, tmp_path / "hf" / file)
    porter.convert(tmp_path / "hf", tmp_path / "out", to="hf")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert not any(name.endswith((".attn.bias", "masked_bias")) for name in written)
    loaded, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values()), loading
    prompt = torch.arange(50)[None]
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(prompt).logits, model(prompt).logits)


@pytest.mark.peer
@pytest.mark.parametrize("config", [{"quant_method": "mxfp4"}, {"quant_method": "fp8"}, None])
def test_blocks_and_scales_are_refused_as_quantised(config, tmp_path):
    """OpenAI's own checkpoint, in small: bytes of blocks and scales in the place of the experts' weights."""
    gpt_oss(tmp_path / "hf")
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    for layer in range(2):
        del weights[f"model.layers.{layer}.mlp.experts.gate_up_proj"]
        name = f"model.layers.{layer}.mlp.experts.gate_up_proj"
        weights[f"{name}_blocks"] = torch.zeros(E, 2 * F, 3, 16, dtype=torch.uint8)
        weights[f"{name}_scales"] = torch.zeros(E, 2 * F, 3, dtype=torch.uint8)
    save_file(weights, tmp_path / "hf" / "model.safetensors")
    path = tmp_path / "hf" / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | ({"quantization_config": config} if config else {})))
    with pytest.raises(UnsupportedError) as caught:
        porter.convert(tmp_path / "hf", tmp_path / "out", to="hf")
    if config:
        assert f"quantization_config says {config['quant_method']!r}" in str(caught.value)
        assert "U8" in str(caught.value)
        assert config["quant_method"].upper() in caught.value.message
    else:
        assert "gate_up_proj_blocks" in str(caught.value) + str(caught.value.cause)
    assert not (tmp_path / "out").exists()


YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 100,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}


def deepseek(folder: Path, **changes: Any) -> Any:
    return made("deepseek_v3", folder, **{**SIZES, **LATENT_PARTS, "num_mtp_layers": 0, **changes})


@pytest.mark.peer
def test_of_its_routing_litgpts_plan_says_what_differs(tmp_path):
    deepseek(tmp_path / "hf")
    said = "masks the groups of experts that are not chosen with 0"
    assert any(said in note for note in porter.plan(tmp_path / "hf", to="litgpt").notes)
    porter.convert(tmp_path / "hf", tmp_path / "litgpt", to="litgpt")
    assert any(said in note for note in porter.plan(tmp_path / "litgpt", to="hf").notes)
    assert not any(said in note for note in porter.plan(tmp_path / "hf", to="hf").notes)


@pytest.mark.peer
@pytest.mark.parametrize(("correction", "same"), [(0.3, True), (-2.0, False)])
def test_the_routings_differ_where_corrections_are_negative(correction, same, tmp_path):
    """What is said above is so: the weights are equal, and the experts that are chosen are not."""
    from litgpt.config import Config
    from litgpt.model import GPT

    model = deepseek(tmp_path / "hf")
    order = torch.randperm(15, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(correction * torch.linspace(0.5, 1.0, 15)[order])
        for weight in model.parameters():
            weight.div_(weight.shape[-1] ** 0.5)
    model.save_pretrained(tmp_path / "hf")
    porter.convert(tmp_path / "hf", tmp_path / "litgpt", to="litgpt")
    other = GPT(Config.from_file(tmp_path / "litgpt" / "model_config.yaml"))
    other.load_state_dict(load_file(tmp_path / "litgpt" / "lit_model.safetensors"), strict=True)
    prompt = torch.arange(200)[None]
    with torch.inference_mode():
        wanted, found = model(prompt).logits, other.eval()(prompt)
    apart = float((found - wanted).abs().max() / wanted.abs().max())
    assert apart <= 2e-6 if same else apart > 1e-2, apart


@pytest.mark.peer
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": YARN}, "rope_type = 'yarn'.*blends the frequencies the other way round"),
        ({"n_group": 1, "topk_group": 1}, "expert_scores = 'sigmoid'"),
        ({"q_lora_rank": None}, "narrow_q = False"),
        ({"rms_norm_eps": 1e-5}, "latent_norm_eps = 1e-06.*and transformers with 1e-6"),
        ({"attention_bias": True}, "attention_out_bias|mlp_bias"),
    ],
)
def test_what_litgpt_lacks_of_latent_attention_is_refused_and_stays_with_transformers(
    changes, message, tmp_path
):
    from transformers import AutoModelForCausalLM

    model = deepseek(tmp_path / "hf", **changes)
    with pytest.raises(UnsupportedError) as caught:
        porter.convert(tmp_path / "hf", tmp_path / "litgpt", to="litgpt")
    assert re.search(message, f"{caught.value.message} {caught.value.cause}", re.DOTALL)
    # What is said of one value is not said where another is refused.
    assert ("frequencies" in (caught.value.cause or "")) == ("rope_parameters" in changes)
    porter.convert(tmp_path / "hf", tmp_path / "out", to="hf", dtype="bfloat16")
    porter.convert(tmp_path / "hf", tmp_path / "same", to="hf")
    loaded, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "same", output_loading_info=True)
    assert not any(loading.values()), loading
    prompt = torch.arange(150)[None]
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(prompt).logits, model(prompt).logits)


@pytest.mark.peer
def test_the_layer_that_transformers_does_not_load_is_left_out_and_said(tmp_path):
    """Published DeepSeek V3 models have a 62nd layer for predicting several tokens."""
    from transformers import AutoModelForCausalLM

    model = deepseek(tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    weights = load_file(path)
    extra = {f"model.layers.61.{part}.weight": torch.ones(D) for part in ("enorm", "input_layernorm")}
    save_file(weights | extra, path, metadata={"format": "pt"})
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval().config.num_hidden_layers == 2
    for to in ("hf", "litgpt"):
        notes = porter.plan(tmp_path / "hf", to=to).notes
        assert any("left out: 2 tensors such as model.layers.61." in note for note in notes)
    porter.convert(tmp_path / "hf", tmp_path / "out", to="hf")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[name], weight) for name, weight in weights.items())
    # The control: a layer that is missing from the config is no such layer.
    save_file(weights | {"model.layers.2.enorm.weight": torch.ones(D)}, path, metadata={"format": "pt"})
    with pytest.raises(UnsupportedError, match="not mapped"):
        porter.plan(tmp_path / "hf", to="hf")
    assert model.config.num_hidden_layers == 2


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "smollm3": ({"no_rope_layers": [1, 0]}, "no_rope_layers = \\[1, 0\\]"),
    "granite": ({"embedding_multiplier": 12.0}, "embedding_multiplier = 12.0"),
    "granite residual": ({"residual_multiplier": 0.22}, "residual_multiplier = 0.22"),
    "cohere": ({"logit_scale": 0.0625}, "logit_scale = 0.0625"),
}


@pytest.mark.peer
@pytest.mark.parametrize("name", ODD)
def test_what_a_cousin_computes_besides_is_refused_by_name(name, tmp_path):
    """No table fits; and where it is said to be a Llama, the field that is more is named."""
    changes, message = ODD[name]
    made(name.split()[0], tmp_path / "hf", **{**SIZES, **changes})
    for to in ("litgpt", "hf"):
        with pytest.raises(UnsupportedError, match="no mapping table fits"):
            porter.convert(tmp_path / "hf", tmp_path / "out", to=to)
        with pytest.raises(UnsupportedError, match=message):
            porter.convert(tmp_path / "hf", tmp_path / "out", to=to, family="llama")


@pytest.mark.peer
@pytest.mark.parametrize("name", ["mpt", "bloom"])
def test_alibi_has_no_table(name, tmp_path):
    sizes = {
        "mpt": {"vocab_size": 211, "d_model": D, "n_heads": 6, "n_layers": 2, "max_seq_len": 64},
        "bloom": {"vocab_size": 211, "hidden_size": D, "n_layer": 2, "n_head": 6},
    }[name]
    made(name, tmp_path / "hf", **sizes)
    for family in (None, "falcon", "gpt2"):
        with pytest.raises(PorterError) as caught:
            porter.convert(tmp_path / "hf", tmp_path / "out", to="hf", family=family)
        assert caught.value.exit_code in (5, 6)
