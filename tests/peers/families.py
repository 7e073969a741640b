"""The families that LitGPT and transformers share, as data: a tiny config of each, and its variants.

A new family needs one entry to get every test of `test_families.py` and of `test_mutants.py`. Sizes are all
different; those of experts are multiples of 4, which transformers' grouped products ask for.
"""

from __future__ import annotations

from typing import Any

import torch

VOCAB = 211
WINDOW = 23
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 72,
    "intermediate_size": 104,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 400,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
# What does not have GQA: one kv head, or as many as query heads.
ONE, ALL = {"num_key_value_heads": 1}, {"num_key_value_heads": 6}
FALCON = {key: SIZES[key] for key in SIZES if key not in ("num_key_value_heads", "intermediate_size")}
SERIAL = {
    "num_kv_heads": None,
    "new_decoder_architecture": False,
    "multi_query": False,
    "parallel_attn": False,
    "bias": True,
}

Config = dict[str, Any]

# What a model with latent attention and experts in groups has besides.
LATENT_PARTS: Config = {
    "num_key_value_heads": 6,
    "q_lora_rank": 20,
    "kv_lora_rank": 28,
    "qk_nope_head_dim": 14,
    "qk_rope_head_dim": 10,
    "v_head_dim": 18,
    "n_routed_experts": 15,
    "n_group": 5,
    "topk_group": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 44,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
}
LATENT = SIZES | LATENT_PARTS

# By model_type: the config, and what variants of it change.
FAMILIES: dict[str, tuple[Config, dict[str, Config]]] = {
    "mistral": (
        SIZES | {"head_dim": 10, "sliding_window": WINDOW},
        {"no window": {"sliding_window": None}, "one kv head": ONE, "all kv heads": ALL},
    ),
    "mixtral": (
        SIZES | {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None},
        {"one kv head": ONE, "all kv heads": ALL, "a window": {"sliding_window": WINDOW}},
    ),
    "qwen2": (
        SIZES | {"num_hidden_layers": 4},
        {
            "windows on some layers": {
                "use_sliding_window": True,
                "sliding_window": WINDOW,
                "max_window_layers": 1,
            },
            "tied": {"tie_word_embeddings": True},
            "one kv head": ONE,
            "all kv heads": ALL,
        },
    ),
    "qwen3": (
        SIZES | {"head_dim": 10},
        {"biases": {"attention_bias": False}, "one kv head": ONE, "all kv heads": ALL},
    ),
    "qwen3_moe": (
        SIZES
        | {
            "head_dim": 10,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 44,
            "norm_topk_prob": True,
        },
        {"one kv head": ONE, "all kv heads": ALL},
    ),
    "deepseek_v3": (
        LATENT | {"num_mtp_layers": 0},
        {
            "halves rotated": {"rope_interleave": False},
            "no dense layer": {"first_k_dense_replace": 0, "norm_topk_prob": False},
            "tied": {"tie_word_embeddings": True, "routed_scaling_factor": 1.0, "n_shared_experts": 1},
        },
    ),
    "glm4": (
        SIZES | {"head_dim": 20, "partial_rotary_factor": 0.5},
        {"no biases": {"attention_bias": False}, "one kv head": ONE, "all kv heads": ALL},
    ),
    "glm": (
        SIZES | {"head_dim": 20, "partial_rotary_factor": 0.5},
        {"one kv head": ONE, "all kv heads": ALL},
    ),
    "olmoe": (
        SIZES | {"num_experts": 5, "num_experts_per_tok": 2, "norm_topk_prob": True, "intermediate_size": 44},
        {"one kv head": ONE, "all kv heads": ALL},
    ),
    "olmo": (SIZES, {"one kv head": ONE, "all kv heads": ALL, "tied": {"tie_word_embeddings": True}}),
    "olmo2": (SIZES, {"one kv head": ONE, "all kv heads": ALL}),
    "phi": (
        SIZES | {"partial_rotary_factor": 0.5},
        {"one kv head": ONE, "all kv heads": ALL, "exact GELU": {"hidden_act": "gelu"}},
    ),
    "phi3": (
        SIZES | {"sliding_window": WINDOW},
        {
            "partly rotated": {"partial_rotary_factor": 0.5, "sliding_window": None},
            "one kv head": ONE,
            "all kv heads": ALL,
        },
    ),
    "falcon": (
        FALCON | {"num_kv_heads": 2, "new_decoder_architecture": True},
        {
            "7B": {"num_kv_heads": None, "new_decoder_architecture": False, "multi_query": True},
            "11B": {"num_ln_in_parallel_attn": 1},
            "1B": SERIAL | {"parallel_attn": True},
            "one after the other": SERIAL,
            "a head of its own": {"tie_word_embeddings": False},
        },
    ),
    "stablelm": (
        SIZES | {"partial_rotary_factor": 0.5},
        {
            "side by side": {"use_parallel_residual": True, "use_qkv_bias": True},
            "one kv head": ONE,
            "all kv heads": ALL,
        },
    ),
    "starcoder2": (
        SIZES | {"sliding_window": WINDOW},
        {"no biases": {"use_bias": False, "sliding_window": None}, "one kv head": ONE, "all kv heads": ALL},
    ),
    "vaultgemma": (
        SIZES
        | {
            "num_hidden_layers": 4,
            "head_dim": 10,
            "query_pre_attn_scalar": 14,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        },
        {"one kv head": ONE, "all kv heads": ALL},
    ),
}
CASES = [(family, name) for family, (_, variants) in FAMILIES.items() for name in ("", *variants)]

GPT2 = {
    "vocab_size": VOCAB,
    "n_positions": 320,
    "n_embd": 72,
    "n_layer": 3,
    "n_head": 6,
    "n_inner": 104,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
# Those that LitGPT has no model for, or not with these settings; and a word of why it is refused.
WITHOUT_LITGPT: dict[str, tuple[Config, dict[str, Config], str]] = {
    "gpt2": (
        GPT2,
        {"a head of its own": {"tie_word_embeddings": False, "n_inner": None}},
        "has no learned positions",
    ),
    "deepseek_v2": (
        LATENT,
        {
            "groups": {"topk_method": "group_limited_greedy", "routed_scaling_factor": 2.5},
            "q at once": {"q_lora_rank": None, "first_k_dense_replace": 0},
        },
        "weighs experts by sigmoids",
    ),
    "qwen2_moe": (
        SIZES
        | {
            "num_hidden_layers": 4,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 44,
            "shared_expert_intermediate_size": 92,
        },
        {
            "windows on some layers": {
                "use_sliding_window": True,
                "sliding_window": WINDOW,
                "max_window_layers": 3,
            },
            "weights that add up": {"norm_topk_prob": True, "qkv_bias": False},
            "one kv head": ONE,
            "all kv heads": ALL,
        },
        "no switch on its shared experts",
    ),
    "gpt_oss": (
        SIZES
        | {
            "num_hidden_layers": 4,
            "head_dim": 10,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "intermediate_size": 44,
            "sliding_window": WINDOW,
        },
        {
            "plain RoPE": {
                "attention_bias": False,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            },
            "one kv head": ONE,
            "all kv heads": ALL,
            "no window": {"layer_types": ["full_attention"] * 4},
        },
        "neither attention sinks nor experts with biases",
    ),
}
CASES_WITHOUT_LITGPT = [
    (family, name) for family, (_, variants, _) in WITHOUT_LITGPT.items() for name in ("", *variants)
]
_GEMMA_LAYERS: Config = {
    "head_dim": 10,
    "sliding_window": WINDOW,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "hidden_size_per_layer_input": 5,
    "vocab_size_per_layer_input": 97,
}
# Families with suites of their own (`test_hf_litgpt.py`, `test_gemma3n_gemma4.py`), for `test_mutants.py`.
FIRST_FAMILIES: dict[str, tuple[Config, dict[str, Config]]] = {
    "gemma": (SIZES | {"head_dim": 10}, {}),
    "gemma2": (SIZES | {"head_dim": 10, "query_pre_attn_scalar": 14, "sliding_window": WINDOW}, {}),
    "gemma3_text": (SIZES | {"head_dim": 10, "query_pre_attn_scalar": 14, "sliding_window": WINDOW}, {}),
    "llama": (SIZES, {"biases": {"attention_bias": True, "mlp_bias": True}}),
    "gpt_neox": (
        {key: SIZES[key] for key in SIZES if key != "num_key_value_heads"} | {"rotary_pct": 0.5},
        {"one after the other": {"use_parallel_residual": False}},
    ),
    "gemma3n": (
        SIZES
        | _GEMMA_LAYERS
        | {"model_type": "gemma3n_text", "altup_num_inputs": 3, "num_kv_shared_layers": 2, "laurel_rank": 9},
        {},
    ),
    "gemma4": (
        SIZES | _GEMMA_LAYERS | {"model_type": "gemma4_text", "global_head_dim": 14},
        {
            "experts": {
                "enable_moe_block": True,
                "num_experts": 8,
                "top_k_experts": 4,
                "moe_intermediate_size": 12,
            },
        },
    ),
}
# What KerasHub can say of them, where heads have 4 dims each (`mutants.square`).
KERAS: dict[str, Config] = {
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 4},
    "gemma3_text": {"query_pre_attn_scalar": 4},
    "gemma3n": {},
    "gemma4": {
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": 5000.0,
                "partial_rotary_factor": 0.5,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
        "enable_moe_block": True,
        "num_experts": 8,
        "top_k_experts": 4,
        "moe_intermediate_size": 12,
    },
}
# What porter's own model does not compute.
BEYOND_PORTERS_MODEL = {"deepseek_v3": "latent_attention"}


def config_of(family: str, variant: str) -> Config:
    return {"model_type": family} | every_family()[family][0] | variants(family).get(variant, {})


def build(values: Config) -> Any:
    """transformers' model with random weights; norms scatter around what leaves alone what passes through."""
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(values)
    family = values.pop("model_type")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **values))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            norm = "norm" in name or ".ln_" in name
            offset = "gemma" in family and not family.startswith(("gemma3n", "gemma4"))
            centre = float(norm and name.endswith("weight") and not offset)
            weight.copy_(0.3 * noise + centre if weight.ndim == 1 else noise / weight.shape[-1] ** 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                # Not negative, where LitGPT chooses other experts.
                buffer.copy_(0.3 * torch.rand(buffer.shape, generator=generator))
    return model.float().eval()


def variants(family: str) -> dict[str, Config]:
    return every_family()[family][1]


def every_family() -> dict[str, tuple[Config, dict[str, Config]]]:
    """Those with a suite of their own too, and those that LitGPT has no model for."""
    without = {family: (config, variants) for family, (config, variants, _) in WITHOUT_LITGPT.items()}
    return FIRST_FAMILIES | FAMILIES | without
