"""A Hugging Face checkpoint with the full shapes of Gemma, random weights, and as many shards as the Hub's.

Promises the headers, config and sizes of a real checkpoint, and bytes that no file system compresses or
shares by itself. The values are noise: such a model converts like the real one and says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

# Bytes. Noise is made once a block and varied from block to block, since os.urandom alone takes 15 s.
BLOCK = 8 << 20

# The Hub's second shard of gemma-2b holds what is left after 4.95 GB.
SHARD = 4_950_000_000

CONFIGS = {
    "2b": {
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "vocab_size": 256000,
    },
    "7b": {
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 256000,
    },
    "tiny": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "vocab_size": 4096,
    },
}

_COMMON = {
    "architectures": ["GemmaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 256,
    "hidden_act": "gelu",
    "initializer_range": 0.02,
    "max_position_embeddings": 8192,
    "model_type": "gemma",
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}


def tensors(size: str) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order in which the Hub's files were filled."""
    config = CONFIGS[size]
    width, hidden = config["hidden_size"], config["intermediate_size"]
    queries, keys = config["num_attention_heads"] * 256, config["num_key_value_heads"] * 256
    found: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (config["vocab_size"], width))]
    for layer in range(config["num_hidden_layers"]):
        parts = {
            "input_layernorm": (width,),
            "mlp.down_proj": (width, hidden),
            "mlp.gate_proj": (hidden, width),
            "mlp.up_proj": (hidden, width),
            "post_attention_layernorm": (width,),
            "self_attn.k_proj": (keys, width),
            "self_attn.o_proj": (width, queries),
            "self_attn.q_proj": (queries, width),
            "self_attn.v_proj": (keys, width),
        }
        found += [(f"model.layers.{layer}.{name}.weight", shape) for name, shape in parts.items()]
    return [*found, ("model.norm.weight", (width,))]


def make(root: Path, size: str = "2b", *, sparse: bool = False) -> int:
    """Write the checkpoint into `root`; how many bytes of tensors it has. `sparse` leaves holes for data."""
    root.mkdir(parents=True, exist_ok=True)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in tensors(size):
        nbytes = _nbytes(shape)
        if filled + nbytes > SHARD and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += nbytes
    noise = bytearray(os.urandom(BLOCK))
    weight_map: dict[str, str] = {}
    total = 0
    for number, group in enumerate(shards, 1):
        file = (
            f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        )
        total += _write(root / file, sorted(group), noise, sparse=sparse)
        weight_map |= dict.fromkeys((name for name, _ in group), file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (root / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (root / "config.json").write_text(json.dumps({**_COMMON, **CONFIGS[size]}, indent=2))
    # Enough of a tokenizer for LitGPT's converter, which copies and never opens it.
    (root / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "GemmaTokenizer", "add_bos_token": true}'
    )
    return total


def _nbytes(shape: tuple[int, ...]) -> int:
    product = 2
    for dim in shape:
        product *= dim
    return product


def _write(path: Path, group: list[tuple[str, tuple[int, ...]]], noise: bytearray, *, sparse: bool) -> int:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in group:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + _nbytes(shape)]}
        end += _nbytes(shape)
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        if sparse:
            stream.truncate(8 + len(text) + end)
            return end
        left = end
        while left:
            # Another first word in every 4 KiB makes every block of the file its own.
            stamp = os.urandom(8)
            for page in range(0, BLOCK, 4096):
                noise[page : page + 8] = stamp
            piece = memoryview(noise)[: min(left, BLOCK)]
            stream.write(piece)
            left -= len(piece)
    return end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=CONFIGS, default="2b")
    parser.add_argument("--sparse", action="store_true", help="holes instead of noise")
    arguments = parser.parse_args()
    print(f"{make(arguments.out, arguments.size, sparse=arguments.sparse):,} bytes of tensors")


if __name__ == "__main__":
    main()
