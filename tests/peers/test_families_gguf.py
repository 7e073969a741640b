"""GGUF files of every family that llama.cpp's converter writes, laid out here in NumPy as that does.

transformers makes a tiny model; names are gguf-py's. porter brings the file to Hugging Face's form, whose
tensors are those of the model to the byte, and so are the logits.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import porter
from porter.errors import PorterError, UnsupportedError
from tests.peers import families

pytestmark = pytest.mark.peer

SIZES = families.SIZES
NEOX = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}


@dataclass(frozen=True)
class Made:
    """How llama.cpp stores a family: gguf-py's architecture, what happens to q, k and v, further keys.

    `config` is what it has besides that of `families.py`; `whole` is latent attention with k and v in one
    tensor, as older files have it, or any with q, k and v in one; `called` is the family that the file is
    read as.
    """

    arch: gguf.MODEL_ARCH
    config: dict[str, Any] = field(default_factory=dict)
    pairs: bool = False
    taken_apart: bool = False
    whole: bool = False
    called: str = ""


LLAMA = gguf.MODEL_ARCH.LLAMA
PLAIN_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.03, 1.1, 1.25, 1.5, 2.0],
    "long_factor": [1.07, 1.5, 2.25, 4.1, 8.3, 16.5],
}
DEEP_YARN = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "beta_fast": 30.0,
        "beta_slow": 2.0,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 100,
    }
}
# No key says how long a head is: all together are as long as the model is wide.
OLD_GLM = {"hidden_size": 72, "head_dim": 12, "rms_norm_eps": 1e-5}
CASES = {
    "llama": Made(LLAMA, SIZES | {"head_dim": 10}, pairs=True),
    "llama with biases": Made(LLAMA, SIZES | {"attention_bias": True, "mlp_bias": True}, pairs=True),
    "llama, all kv heads": Made(LLAMA, SIZES | {"num_key_value_heads": 6}, pairs=True),
    "llama, tied": Made(LLAMA, SIZES | {"tie_word_embeddings": True}, pairs=True),
    "mistral": Made(LLAMA, {"sliding_window": None}, pairs=True, called="llama"),
    "mixtral": Made(LLAMA, pairs=True),
    "qwen2": Made(gguf.MODEL_ARCH.QWEN2),
    "qwen3": Made(gguf.MODEL_ARCH.QWEN3),
    "qwen3, YaRN": Made(
        gguf.MODEL_ARCH.QWEN3,
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 100,
            }
        },
    ),
    "qwen3_moe": Made(gguf.MODEL_ARCH.QWEN3MOE),
    "olmo": Made(gguf.MODEL_ARCH.OLMO, pairs=True),
    "olmo2": Made(gguf.MODEL_ARCH.OLMO2),
    "phi": Made(gguf.MODEL_ARCH.PHI2, {"num_key_value_heads": 6, "hidden_act": "gelu_new"}),
    "phi3": Made(gguf.MODEL_ARCH.PHI3),
    "phi3, partly rotated": Made(
        gguf.MODEL_ARCH.PHI3, {"partial_rotary_factor": 0.5, "sliding_window": None}
    ),
    "phi3, long": Made(
        gguf.MODEL_ARCH.PHI3,
        {"original_max_position_embeddings": 100, "sliding_window": None, "rope_parameters": LONG_ROPE},
    ),
    "phi3, not so long": Made(
        gguf.MODEL_ARCH.PHI3,
        {"original_max_position_embeddings": 360, "sliding_window": None, "rope_parameters": LONG_ROPE},
    ),
    "falcon": Made(gguf.MODEL_ARCH.FALCON, taken_apart=True),
    "falcon 7B": Made(
        gguf.MODEL_ARCH.FALCON,
        {"num_kv_heads": None, "new_decoder_architecture": False, "multi_query": True},
        taken_apart=True,
    ),
    "stablelm": Made(gguf.MODEL_ARCH.STABLELM),
    "stablelm, side by side": Made(
        gguf.MODEL_ARCH.STABLELM, {"use_parallel_residual": True, "use_qkv_bias": True}
    ),
    "starcoder2": Made(gguf.MODEL_ARCH.STARCODER2, {"sliding_window": None}),
    "olmoe": Made(gguf.MODEL_ARCH.OLMOE, {"norm_topk_prob": False}),
    "qwen2_moe": Made(gguf.MODEL_ARCH.QWEN2MOE),
    "qwen2_moe without biases": Made(gguf.MODEL_ARCH.QWEN2MOE, {"qkv_bias": False}),
    "glm4": Made(gguf.MODEL_ARCH.GLM4),
    "glm4 without biases": Made(gguf.MODEL_ARCH.GLM4, {"attention_bias": False}),
    "glm": Made(gguf.MODEL_ARCH.CHATGLM, OLD_GLM),
    "glm without biases, tied": Made(
        gguf.MODEL_ARCH.CHATGLM, OLD_GLM | {"attention_bias": False, "tie_word_embeddings": True}
    ),
    "glm, q and k and v in one": Made(gguf.MODEL_ARCH.CHATGLM, OLD_GLM | {"rms_norm_eps": 3e-7}, whole=True),
    "gpt2": Made(gguf.MODEL_ARCH.GPT2, {"n_inner": None}),
    "gpt2, a head of its own": Made(gguf.MODEL_ARCH.GPT2, {"n_inner": None, "tie_word_embeddings": False}),
    "gpt_oss": Made(gguf.MODEL_ARCH.GPT_OSS),
    "gpt_oss, plain RoPE": Made(gguf.MODEL_ARCH.GPT_OSS, PLAIN_ROPE),
    "deepseek_v2": Made(gguf.MODEL_ARCH.DEEPSEEK2),
    "deepseek_v2, groups": Made(
        gguf.MODEL_ARCH.DEEPSEEK2, {"topk_method": "group_limited_greedy", "routed_scaling_factor": 2.5}
    ),
    "deepseek_v2, q at once, whole": Made(
        gguf.MODEL_ARCH.DEEPSEEK2, {"q_lora_rank": None, "first_k_dense_replace": 0}, whole=True
    ),
    "deepseek_v2, YaRN": Made(gguf.MODEL_ARCH.DEEPSEEK2, DEEP_YARN),
    "deepseek_v3": Made(gguf.MODEL_ARCH.DEEPSEEK2),
    "deepseek_v3, whole": Made(gguf.MODEL_ARCH.DEEPSEEK2, {"norm_topk_prob": False}, whole=True),
    "deepseek_v3, YaRN": Made(gguf.MODEL_ARCH.DEEPSEEK2, DEEP_YARN),
    "gemma3n": Made(
        gguf.MODEL_ARCH.GEMMA3N, {"activation_sparsity_pattern": [0.95, 0.5, 0.0, 0.0]}, called="gemma3n_text"
    ),
    "gemma3n, not shared": Made(
        gguf.MODEL_ARCH.GEMMA3N,
        {"num_kv_shared_layers": 0, "intermediate_size": [104, 100, 96, 92], "num_key_value_heads": 1},
        called="gemma3n_text",
    ),
    "gemma4": Made(
        gguf.MODEL_ARCH.GEMMA4,
        {"num_kv_shared_layers": 2, "use_double_wide_mlp": True, "vocab_size_per_layer_input": 223},
        called="gemma4_text",
    ),
    "gemma4, experts": Made(
        gguf.MODEL_ARCH.GEMMA4,
        {
            "hidden_size_per_layer_input": 0,
            "enable_moe_block": True,
            "num_experts": 8,
            "top_k_experts": 4,
            "moe_intermediate_size": 12,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "final_logit_softcapping": 5.0,
        },
        called="gemma4_text",
    ),
    "gpt_neox": Made(gguf.MODEL_ARCH.GPTNEOX, NEOX | {"rotary_pct": 0.5}, taken_apart=True),
    "gpt_neox, one after the other": Made(
        gguf.MODEL_ARCH.GPTNEOX, NEOX | {"rotary_pct": 0.5, "use_parallel_residual": False}, taken_apart=True
    ),
}


def family_of(case: str) -> str:
    return re.split("[ ,]", case)[0]


def build(case: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    family = family_of(case)
    own = family in (*families.FAMILIES, *families.WITHOUT_LITGPT, "gemma3n", "gemma4")
    known = dict(families.every_family()[family][0] if own else {})
    kind = known.pop("model_type", family)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **known | CASES[case].config))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith(("e_score_correction_bias", "layer_scalar")):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(0.3 * noise + 1 if weight.ndim == 1 else noise / weight.shape[-1] ** 0.5)
    return model.float().eval()


def in_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Row 0 of a head's first half, row 0 of its second, row 1 of its first half, …"""
    rows = []
    for head in np.split(weight, heads):
        first, second = np.split(head, 2)
        rows += [row for pair in zip(first, second, strict=True) for row in pair]
    return np.stack(rows)


def all_q_then_k_then_v(weight: np.ndarray, heads: int, kv_heads: int) -> np.ndarray:
    q, k, v = [], [], []
    for group in np.split(weight, kv_heads):
        *queries, key, value = np.split(group, heads // kv_heads + 2)
        q, k, v = [*q, *queries], [*k, key], [*v, value]
    return np.concatenate([*q, *k, *v])


def q_k_v_together(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the names of GLM's first repositories."""
    found = {}
    for name, tensor in tensors.items():
        if ".self_attn.q_proj." in name:
            parts = [tensor, *(tensors[name.replace("q_proj", part)] for part in ("k_proj", "v_proj"))]
            found[name.replace("self_attn.q_proj", "self_attention.query_key_value")] = torch.cat(parts)
        elif ".self_attn.k_proj." not in name and ".self_attn.v_proj." not in name:
            found[name] = tensor
    return {re.sub(r"^model\.layers(?=.*query)", "encoder.layers", name): t for name, t in found.items()}


# What has keys of its own for sizes that others share.
FURTHER = (gguf.MODEL_ARCH.GPT2, gguf.MODEL_ARCH.DEEPSEEK2, gguf.MODEL_ARCH.GEMMA4)


def add_further_keys(case: str, writer: gguf.GGUFWriter, config: Any) -> None:
    arch, rope = CASES[case].arch, getattr(config, "rope_parameters", None) or {}
    if arch == gguf.MODEL_ARCH.GPT2:
        writer.add_feed_forward_length(4 * config.hidden_size)
    if arch == gguf.MODEL_ARCH.QWEN2MOE:
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    if arch == gguf.MODEL_ARCH.GPT_OSS:
        writer.add_sliding_window(config.sliding_window)
        writer.add_expert_feed_forward_length(config.intermediate_size)
    if arch == gguf.MODEL_ARCH.DEEPSEEK2:
        add_latent_keys(case, writer, config, rope)
    if arch in (gguf.MODEL_ARCH.GEMMA3N, gguf.MODEL_ARCH.GEMMA4):
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
        writer.add_shared_kv_layers(config.num_kv_shared_layers)
        writer.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input)
        if config.final_logit_softcapping:
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if arch == gguf.MODEL_ARCH.GEMMA3N:
        writer.add_altup_active_idx(config.altup_active_idx)
        writer.add_altup_num_inputs(config.altup_num_inputs)
        shares = torch.tensor(config.activation_sparsity_pattern, dtype=torch.float32)
        writer.add_activation_sparsity_scale(torch.distributions.Normal(0, 1).icdf(shares).tolist())
    if arch == gguf.MODEL_ARCH.GEMMA4:
        slides = [kind == "sliding_attention" for kind in config.layer_types]
        wide = config.use_double_wide_mlp * config.num_kv_shared_layers
        widths = [config.intermediate_size] * (len(slides) - wide) + [2 * config.intermediate_size] * wide
        writer.add_feed_forward_length(widths if wide else config.intermediate_size)
        # Two sizes of heads, and two numbers of them, which transformers' config keeps layer by layer.
        full = CASES[case].config.get("num_global_key_value_heads")
        kv_heads, narrow, long = SIZES["num_key_value_heads"], 10, 14
        writer.add_head_count_kv([kv_heads if s else full for s in slides] if full else kv_heads)
        writer.add_key_length(long)
        writer.add_value_length(long)
        writer.add_key_length_swa(narrow)
        writer.add_value_length_swa(narrow)
        writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
        writer.add_rope_dimension_count(long)
        writer.add_rope_dimension_count_swa(narrow)
        turning = int(long * rope["full_attention"]["partial_rotary_factor"] / 2)
        still = long // 2 - turning
        writer.add_tensor("rope_freqs.weight", np.array([1.0] * turning + [1e30] * still, np.float32))


def add_latent_keys(case: str, writer: gguf.GGUFWriter, config: Any, rope: dict[str, Any]) -> None:
    """One kv head of the narrow projection's width; in older files, as many as there are heads."""
    rotated, whole = config.qk_rope_head_dim, CASES[case].whole
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(rotated)
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    if config.q_lora_rank is not None:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    widths = (config.qk_nope_head_dim + rotated, config.v_head_dim)
    if whole:
        writer.add_head_count_kv(config.num_attention_heads)
        writer.add_key_length(widths[0])
        writer.add_value_length(widths[1])
    else:
        writer.add_head_count_kv(1)
        writer.add_key_length(config.kv_lora_rank + rotated)
        writer.add_value_length(config.kv_lora_rank)
        writer.add_key_length_mla(widths[0])
        writer.add_value_length_mla(widths[1])
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    if family_of(case) == "deepseek_v3":
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        if config.norm_topk_prob:
            writer.add_expert_weights_norm(True)
    if family_of(case) == "deepseek_v3" or config.topk_method == "group_limited_greedy":
        writer.add_expert_group_count(config.n_group)
        writer.add_expert_group_used_count(config.topk_group)
    if "mscale_all_dim" in rope:
        writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])


def as_converted(made: Made, config: Any, name: str, weight: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """What llama.cpp's converter makes of a tensor, under names that gguf-py knows, or its own."""
    layer = (re.findall(r"\.(\d+)\.", name) or [""])[0]
    if made.arch == gguf.MODEL_ARCH.GPT2 and re.search(r"c_(attn|proj|fc)\.weight$", name):
        weight = weight.T
    if name.endswith("kv_b_proj.weight") and not made.whole:
        heads = weight.reshape(config.num_attention_heads, -1, weight.shape[-1])
        k, v = np.split(heads, [config.qk_nope_head_dim], axis=1)
        of_k, of_v = (name.replace("kv_b", part) for part in ("k_b", "v_b"))
        return [(of_k, k.transpose(0, 2, 1)), (of_v, v)]
    if name.endswith("e_score_correction_bias"):
        return [(f"blk.{layer}.exp_probs_b.bias", weight)]
    if made.arch == gguf.MODEL_ARCH.GPT_OSS:
        if name.endswith("sinks"):
            return [(f"{name}.weight", weight)]
        if (found := re.search(r"experts\.(gate_up|down)_proj(_bias)?$", name)) is not None:
            end = "bias" if found[2] else "weight"
            if not found[2]:
                weight = weight.transpose(0, 2, 1)
            if found[1] == "down":
                return [(f"blk.{layer}.ffn_down_exps.{end}", weight)]
            return [
                (f"blk.{layer}.ffn_{part}_exps.{end}", weight[:, at::2])
                for at, part in enumerate(("gate", "up"))
            ]
    if name.endswith("correct_output_scale"):
        return [(f"{name}.weight", weight)]
    if made.arch == gguf.MODEL_ARCH.GEMMA4:
        for theirs, ours in (
            ("layer_scalar", "layer_output_scale.weight"),
            ("router.scale", "ffn_gate_inp.scale"),
            ("router.per_expert_scale", "ffn_down_exps.scale"),
            ("experts.gate_up_proj", "ffn_gate_up_exps.weight"),
            ("experts.down_proj", "ffn_down_exps.weight"),
        ):
            if name.endswith(theirs):
                return [(f"blk.{layer}.{ours}", weight)]
    return [(name, weight)]


def write(case: str, path: Path, model: Any, tensors: dict[str, torch.Tensor], *, pairs: bool = True) -> Path:
    made, config = CASES[case], model.config
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[made.arch])
    heads = config.num_attention_heads
    own_kv = family_of(case) not in ("gpt2", "gemma4") and getattr(config, "num_key_value_heads", None)
    kv_heads = own_kv or heads
    if family_of(case) == "falcon":
        kv_heads = (config.num_kv_heads or heads) if config.new_decoder_architecture else 1
    head_dim = config.hidden_size // heads
    if made.arch not in FURTHER:
        head_dim = getattr(config, "head_dim", None) or head_dim
    rope = getattr(config, "rope_parameters", None) or {}
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_head_count(heads)
    if made.arch not in FURTHER:
        writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
        writer.add_head_count_kv(kv_heads)
        writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
        writer.add_rope_dimension_count(int(rope.get("partial_rotary_factor", 1) * head_dim))
    for kind in ("bos", "eos", "pad"):
        if (token := getattr(config, f"{kind}_token_id")) is not None:
            getattr(writer, f"add_{kind}_token_id")(token)
    if head_dim * heads != config.hidden_size and made.arch not in FURTHER:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key in ("beta_fast", "beta_slow"):
            if key in rope:
                getattr(writer, f"add_rope_scaling_yarn_{key}")(rope[key])
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    layer_eps = [getattr(config, n, None) for n in ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")]
    if any(layer_eps) or family_of(case) == "olmo":
        writer.add_layer_norm_eps(next(filter(None, layer_eps), 1e-5))
    if family_of(case) in ("gpt_neox", "stablelm"):
        # For StableLM the key says nothing: older converters wrote true where the config left it out.
        writer.add_parallel_residual(family_of(case) == "stablelm" or config.use_parallel_residual)
    if family_of(case) == "phi3":
        writer.add_sliding_window(config.sliding_window or 0)
        original, context = config.original_max_position_embeddings, config.max_position_embeddings
        long = rope["rope_type"] == "longrope"
        writer.add_rope_scaling_orig_ctx_len(original if long else context)
        if long:
            writer.add_rope_scaling_attn_factors(
                math.sqrt(1 + math.log(context / original) / math.log(original))
            )
            for kind in ("long", "short"):
                writer.add_tensor(f"rope_factors_{kind}.weight", np.array(rope[f"{kind}_factor"], np.float32))
    counts = ("n_routed_experts", "num_local_experts", "num_experts")
    if experts := next(filter(None, (getattr(config, name, None) for name in counts)), None):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(getattr(config, "num_experts_per_tok", None) or config.top_k_experts)
        if hasattr(config, "moe_intermediate_size"):
            writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    add_further_keys(case, writer, config)
    names = gguf.get_tensor_name_map(made.arch, config.num_hidden_layers)
    stacks: dict[str, list[np.ndarray]] = {}
    if made.arch == gguf.MODEL_ARCH.CHATGLM and made.whole:
        tensors = q_k_v_together(tensors)
    for name, tensor in tensors.items():
        weight = tensor.numpy()
        if (numbered := re.search(r"\.(experts|altup_\w+)\.(\d+)\.", name)) is not None:
            stack = stacks.setdefault(name.replace(numbered[0], f".{numbered[1]}."), [])
            stack.extend([weight] * (int(numbered[2]) + 1 - len(stack)))
            stack[int(numbered[2])] = weight
            continue
        if made.pairs and pairs and re.search(r"\.[qk]_proj\.", name):
            weight = in_pairs(weight, heads if ".q_proj." in name else kv_heads)
        if made.taken_apart and ".query_key_value." in name:
            weight = all_q_then_k_then_v(weight, heads, kv_heads)
        for stored, piece in as_converted(made, config, name, weight):
            known = names.get_name(stored, try_suffixes=(".weight", ".bias"))
            writer.add_tensor(known or stored, np.ascontiguousarray(piece))
    for name, stack in stacks.items():
        known = re.sub(r"model\.(layers\.\d+)\.block_sparse_moe\.", r"\1.feed_forward.", name)
        writer.add_tensor(names.get_name(known, try_suffixes=(".weight",)), np.stack(stack))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.arange(300).reshape(1, -1) * 7 % families.VOCAB).logits
    return found


def prepared(case: str, root: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    model = build(case)
    model.save_pretrained(root / "own")
    return model, load_file(root / "own" / "model.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_a_gguf_is_the_model_that_it_was_made_of(case, tmp_path):
    from transformers import AutoModelForCausalLM

    model, tensors = prepared(case, tmp_path)
    source = write(case, tmp_path / "model.gguf", model, tensors)
    porter.convert(source, tmp_path / "hf", to="hf")
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], weight) for name, weight in tensors.items())
    # Of heads of 14 dims no quarter turns, which the file and the config round otherwise.
    if not case.startswith("gemma4"):
        for one, two in ((source, tmp_path / "own"), (tmp_path / "own", source)):
            assert porter.verify(one, two).right, porter.verify(one, two).says
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["model_type"] == (CASES[case].called or family_of(case))
    loaded, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(loading.values()), loading
    wanted = logits(model)
    assert float((logits(loaded.eval()) - wanted).abs().max() / wanted.abs().max()) <= 2e-6


@pytest.mark.parametrize("case", ["llama", "olmo", "mixtral"])
def test_rows_that_are_in_no_pairs_show_in_the_logits(case, tmp_path):
    """The control: a file whose q and k were left as they are is not taken for the same model."""
    from transformers import AutoModelForCausalLM

    model, tensors = prepared(case, tmp_path)
    source = write(case, tmp_path / "model.gguf", model, tensors, pairs=False)
    porter.convert(source, tmp_path / "hf", to="hf")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    wanted = logits(model)
    assert float((logits(loaded) - wanted).abs().max() / wanted.abs().max()) > 1e-2


@pytest.mark.parametrize("case", ["llama", "qwen2", "stablelm"])
def test_transformers_reads_the_same_from_it(case, tmp_path):
    """The file is one that transformers' own reader takes, and to the same weights."""
    from transformers import AutoModelForCausalLM

    model, tensors = prepared(case, tmp_path)
    write(case, tmp_path / "model.gguf", model, tensors)
    own = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").state_dict()
    porter.convert(tmp_path / "model.gguf", tmp_path / "hf", to="hf")
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert all(torch.equal(own[name], weight) for name, weight in found.items())


def test_a_tensor_that_is_missing_is_missed(tmp_path):
    model, tensors = prepared("qwen3", tmp_path)
    del tensors["model.layers.1.self_attn.k_norm.weight"]
    with pytest.raises(PorterError, match="missing"):
        porter.convert(write("qwen3", tmp_path / "model.gguf", model, tensors), tmp_path / "hf", to="hf")


def llama3(factor: float, theta: float = 5e5, dims: int = 10, context: int = 8192) -> np.ndarray:
    """What llama.cpp's converter writes for Llama 3.1 and later, in float32 as it computes there."""
    found = []
    for frequency in 1.0 / (theta ** (torch.arange(0, dims, 2, dtype=torch.float32) / dims)):
        wavelength = 2 * np.pi / frequency
        smooth = (context / wavelength - 1.0) / (4.0 - 1.0)
        between = 1 / ((1 - smooth) / factor + smooth)
        long, short = wavelength > context / 1.0, wavelength < context / 4.0
        found.append(float(1.0 if short else factor if long else between))
    return np.array(found, np.float32)


def with_factors(path: Path, factors: np.ndarray, keys: dict[str, float] | None = None) -> Path:
    """The same file with a tensor of what each frequency is divided by, and further keys."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_name("more.gguf"), "llama")
    for name, item in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, item.contents(), item.types[0])
    for name, value in (keys or {}).items():
        writer.add_float32(name, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.add_tensor("rope_freqs.weight", factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("more.gguf")


# Heads of 10 dims have a wavelength below 2048, one of 16,456 and one of 227,000.
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_scaling_of_llama_3_is_known_by_its_factors(factor, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    parameters = {"rope_parameters": SCALED | {"factor": factor}}
    monkeypatch.setitem(CASES, "llama", Made(LLAMA, CASES["llama"].config | parameters, pairs=True))
    model, tensors = prepared("llama", tmp_path)
    write("llama", tmp_path / "model.gguf", model, tensors)
    source = with_factors(tmp_path / "model.gguf", llama3(factor))
    porter.convert(source, tmp_path / "hf", to="hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    said = config.get("rope_parameters") or config["rope_scaling"] | {"rope_theta": config["rope_theta"]}
    assert said == SCALED | {"factor": factor}
    loaded, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(loading.values()), loading
    wanted = logits(model)
    assert float((logits(loaded.eval()) - wanted).abs().max() / wanted.abs().max()) <= 2e-6
    # The control: without the tensor it is another model.
    porter.convert(tmp_path / "model.gguf", tmp_path / "plain", to="hf")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    assert float((logits(plain) - wanted).abs().max() / wanted.abs().max()) > 1e-3


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_its_factors_are_what_transformers_divides_frequencies_by(factor):
    """With all 64 frequencies of a published Llama, some of which are between kept and scaled."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from porter.config.rope_factors import llama3_factor

    config = LlamaConfig(head_dim=128, rope_parameters=SCALED | {"factor": factor})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1.0 / (5e5 ** (torch.arange(0, 128, 2, dtype=torch.float32) / 128))
    divisors = llama3(factor, dims=128)
    assert np.allclose(plain / scaled, divisors, rtol=1e-5, atol=0)
    assert len({round(float(value), 3) for value in divisors}) > 5
    assert llama3_factor(divisors.tolist(), 5e5, [8.0, 32.0], 1.0, 4.0, 8192) == factor
    # One that is a thousandth off is of no scaling that is known.
    divisors[-1] *= 1.001
    assert llama3_factor(divisors.tolist(), 5e5, [8.0, 32.0], 1.0, 4.0, 8192) is None


def test_factors_that_change_after_they_were_read_are_noticed(tmp_path, monkeypatch):
    from porter.api.convert import prepare, run
    from porter.errors import ChangedError

    parameters = {"rope_parameters": SCALED | {"factor": 8.0}}
    monkeypatch.setitem(CASES, "llama", Made(LLAMA, CASES["llama"].config | parameters, pairs=True))
    model, tensors = prepared("llama", tmp_path)
    write("llama", tmp_path / "model.gguf", model, tensors)
    source = with_factors(tmp_path / "model.gguf", llama3(8.0))
    made = prepare(source, to="hf")
    assert made.plan.hyperparameters["rope_factor"] == 8.0
    raw = source.read_bytes()
    place = raw.rindex(llama3(8.0).tobytes())
    source.write_bytes(raw[:place] + llama3(32.0).tobytes() + raw[place + 20 :])
    with pytest.raises(ChangedError):
        run(made, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("factors", "keys", "said"),
    [
        (np.ones(5, np.float32), {}, "not those of Llama 3's scaling by 8 or 32"),
        (llama3(16.0), {}, "not those of Llama 3's scaling by 8 or 32"),
        (llama3(8.0, theta=1e4), {}, "not those of Llama 3's scaling by 8 or 32"),
        (llama3(8.0, context=4096), {}, "not those of Llama 3's scaling by 8 or 32"),
        (llama3(8.0, dims=8), {}, "its 4 values"),
        (llama3(8.0).astype(np.float16), {}, "5 elements of F16"),
        (llama3(8.0), {"llama.rope.scaling.factor": 2.0}, "states another scaling besides"),
    ],
)
def test_factors_of_frequencies_that_nobody_knows_are_refused(factors, keys, said, tmp_path, monkeypatch):
    """They change what the model computes, and must not be lost."""
    theta = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    monkeypatch.setitem(CASES, "llama", Made(LLAMA, CASES["llama"].config | theta, pairs=True))
    model, tensors = prepared("llama", tmp_path)
    write("llama", tmp_path / "model.gguf", model, tensors)
    source = with_factors(tmp_path / "model.gguf", factors, keys)
    with pytest.raises(UnsupportedError, match="rope_freqs") as caught:
        porter.convert(source, tmp_path / "hf", to="hf")
    assert said in caught.value.cause


def test_a_rotation_that_is_no_share_of_the_dims_is_refused(tmp_path):
    """Gemma 4 stops the last pairs of its long heads, and scales none."""
    model, tensors = prepared("gemma4", tmp_path)
    source = write("gemma4", tmp_path / "model.gguf", model, tensors)
    reader = gguf.GGUFReader(source, "r+")
    (factors,) = [tensor.data for tensor in reader.tensors if tensor.name == "rope_freqs.weight"]
    assert list(factors) == [1.0, *[np.float32(1e30)] * 6]
    factors[1] = 2.0
    reader.data.flush()
    with pytest.raises(UnsupportedError, match="rope_freqs"):
        porter.convert(source, tmp_path / "hf", to="hf")


def test_groups_of_experts_that_are_not_stated_are_not_guessed(tmp_path, monkeypatch):
    """Older files of DeepSeek V2 (160 experts) and V3 (256) do not say them, and others had none."""
    changes = {"n_routed_experts": 160, "moe_intermediate_size": 4}
    monkeypatch.setitem(CASES, "deepseek_v2", Made(gguf.MODEL_ARCH.DEEPSEEK2, changes))
    model, tensors = prepared("deepseek_v2", tmp_path)
    source = write("deepseek_v2", tmp_path / "model.gguf", model, tensors)
    with pytest.raises(UnsupportedError, match="in what groups experts are chosen"):
        porter.convert(source, tmp_path / "hf", to="hf")


def test_a_vaultgemma_that_llama_cpp_has_not_written_is_refused(tmp_path):
    """gguf-py knows no such architecture: what a file of that name holds is anybody's guess."""
    assert "vaultgemma" not in gguf.MODEL_ARCH_NAMES.values()
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "vaultgemma")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((7, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedError, match="no mapping table fits") as caught:
        porter.convert(tmp_path / "model.gguf", tmp_path / "hf", to="hf")
    assert "llama.cpp has no architecture" in caught.value.cause


def test_what_the_converter_guesses_of_an_older_glm_is_said(tmp_path, monkeypatch):
    known = {"rms_norm_eps": 1e-5, "max_position_embeddings": 72}
    monkeypatch.setitem(CASES, "glm", Made(gguf.MODEL_ARCH.CHATGLM, OLD_GLM | known))
    model, tensors = prepared("glm", tmp_path)
    made = porter.plan(write("glm", tmp_path / "model.gguf", model, tensors), to="hf")
    assert any("1e-05 for the epsilon" in note for note in made.notes)
    assert any("width for its context length" in note for note in made.notes)
    monkeypatch.setitem(CASES, "glm", Made(gguf.MODEL_ARCH.CHATGLM, OLD_GLM | {"rms_norm_eps": 3e-7}))
    model, tensors = prepared("glm", tmp_path / "other")
    made = porter.plan(write("glm", tmp_path / "other.gguf", model, tensors), to="hf")
    assert not any("taken to be as the file has it" in note for note in made.notes)
