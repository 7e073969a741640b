"""Gemma 3n and Gemma 4, which LitGPT has no model for: from transformers to transformers."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import porter
from porter.errors import UnsupportedError

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
    "4 dense": ("gemma4_text", GEMMA4 | {"hidden_size_per_layer_input": 0}),
    "4 per layer": ("gemma4_text", GEMMA4 | {"num_kv_shared_layers": 2, "use_double_wide_mlp": True}),
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


@pytest.mark.parametrize("case", CASES)
def test_it_goes_to_transformers_and_litgpt_is_refused_with_the_reason(case, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, values = CASES[case]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values)).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1 + float("norm" in name))
    model.save_pretrained(tmp_path / "source")
    porter.convert(tmp_path / "source", tmp_path / "out", to="hf", max_shard_size="100KB")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    loaded, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values()), loading
    prompt = torch.randint(0, 97, (1, 300), generator=generator)
    with torch.inference_mode():
        wanted = model(prompt).logits
        assert torch.equal(loaded.eval()(prompt).logits, wanted)
        # The control: one weight that is another changes them.
        loaded.model.layers[1].self_attn.q_proj.weight.mul_(1.5)
        assert not torch.equal(loaded(prompt).logits, wanted)
    with pytest.raises(UnsupportedError) as caught:
        porter.convert(tmp_path / "source", tmp_path / "litgpt", to="litgpt")
    assert "LitGPT has no" in str(caught.value.cause)
    assert not (tmp_path / "litgpt").exists()


def test_a_tensor_that_the_layer_cannot_have_is_refused(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma4_text", **CASES["4 experts"][1]))
    model.save_pretrained(tmp_path / "source")
    weights = load_file(tmp_path / "source" / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    weights[name.replace("k_proj", "v_proj")] = weights[name].clone()
    save_file(weights, tmp_path / "source" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(porter.errors.PorterError):
        porter.convert(tmp_path / "source", tmp_path / "out", to="hf")
