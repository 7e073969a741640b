"""A small Gemma in Hugging Face's words and its port to LitGPT, both written out by hand with NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.torch import save_file

HEADS, KV, HEAD, WIDE, FF, VOCAB, LAYERS = 6, 2, 10, 42, 17, 29, 3
CONFIG: dict[str, Any] = {
    "model_type": "gemma",
    "vocab_size": VOCAB,
    "hidden_size": WIDE,
    "intermediate_size": FF,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "head_dim": HEAD,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
}
# What LitGPT's own config of such a model says; what is left out has the default of its Config.
LITGPT: dict[str, Any] = {
    "name": "Gemma-tiny",
    "block_size": 8192,
    "padded_vocab_size": VOCAB,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_query_groups": KV,
    "head_size": HEAD,
    "n_embd": WIDE,
    "intermediate_size": FF,
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "bias": False,
    "norm_class_name": "RMSNorm",
    "norm_eps": 1e-6,
    "mlp_class_name": "GemmaMLP",
    "gelu_approximate": "tanh",
    "scale_embeddings": True,
}
Tensors = dict[str, Any]


def hf_weights(seed: int = 0) -> Tensors:
    draw = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, WIDE),
        "model.norm.weight": (WIDE,),
    }
    for layer in range(LAYERS):
        parts = {
            "input_layernorm": (WIDE,),
            "self_attn.q_proj": (HEADS * HEAD, WIDE),
            "self_attn.k_proj": (KV * HEAD, WIDE),
            "self_attn.v_proj": (KV * HEAD, WIDE),
            "self_attn.o_proj": (WIDE, HEADS * HEAD),
            "post_attention_layernorm": (WIDE,),
            "mlp.gate_proj": (FF, WIDE),
            "mlp.up_proj": (FF, WIDE),
            "mlp.down_proj": (WIDE, FF),
        }
        shapes |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in parts.items()}
    return {name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def litgpt_weights(hf: Tensors) -> Tensors:
    found = {
        "transformer.wte.weight": hf["model.embed_tokens.weight"],
        "lm_head.weight": hf["model.embed_tokens.weight"].copy(),
        "transformer.ln_f.weight": hf["model.norm.weight"],
    }
    for layer in range(LAYERS):
        old, new = f"model.layers.{layer}.", f"transformer.h.{layer}."
        fused = [hf[f"{old}self_attn.{part}_proj.weight"] for part in "qkv"]
        found[f"{new}attn.qkv.weight"] = np.concatenate(fused)
        for theirs, ours in {
            "input_layernorm": "norm_1",
            "self_attn.o_proj": "attn.proj",
            "post_attention_layernorm": "norm_2",
            "mlp.gate_proj": "mlp.fc_1",
            "mlp.up_proj": "mlp.fc_2",
            "mlp.down_proj": "mlp.proj",
        }.items():
            found[f"{new}{ours}.weight"] = hf[f"{old}{theirs}.weight"]
    return found


def write(folder: Path, weights: Tensors, config: dict[str, Any]) -> Path:
    """A directory as transformers or LitGPT has it; which, the config tells. Arrays may be torch's."""
    import torch

    folder.mkdir()
    tensors = {
        name: (value if isinstance(value, torch.Tensor) else torch.from_numpy(value)).contiguous().clone()
        for name, value in weights.items()
    }
    if "model_type" in config:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    else:
        save_file(tensors, folder / "lit_model.safetensors")
        (folder / "model_config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder
