"""What must be on the disk after a fault, found without any code of porter's.

A checkpoint is made up in Hugging Face's shape; what LitGPT's has to hold is worked out with NumPy from
LitGPT's own description of its fused matrix; and a directory is known by the names and bytes of all that is
in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

LAYERS, DIM, HIDDEN, HEADS, GROUPS, SIZE, VOCAB = 2, 48, 100, 6, 2, 10, 499

CONFIG = {
    "model_type": "gemma",
    "architectures": ["GemmaForCausalLM"],
    "num_hidden_layers": LAYERS,
    "hidden_size": DIM,
    "intermediate_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "head_dim": SIZE,
    "vocab_size": VOCAB,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "torch_dtype": "float32",
}

Arrays = Mapping[str, np.ndarray]


def tensors(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, DIM),
        "model.norm.weight": (DIM,),
    }
    for layer in range(LAYERS):
        own = {
            "input_layernorm": (DIM,),
            "post_attention_layernorm": (DIM,),
            "self_attn.q_proj": (HEADS * SIZE, DIM),
            "self_attn.k_proj": (GROUPS * SIZE, DIM),
            "self_attn.v_proj": (GROUPS * SIZE, DIM),
            "self_attn.o_proj": (DIM, HEADS * SIZE),
            "mlp.gate_proj": (HIDDEN, DIM),
            "mlp.up_proj": (HIDDEN, DIM),
            "mlp.down_proj": (DIM, HIDDEN),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write_checkpoint(folder: Path, seed: int, *, shards: int = 2) -> Path:
    """A Gemma in Hugging Face's shape, each of whose bytes follows from `seed`."""
    folder.mkdir(parents=True)
    weights = tensors(seed)
    names = sorted(weights)
    step = -(-len(names) // shards)
    files = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        held = names[number * step : (number + 1) * step]
        write_safetensors(folder / name, {key: weights[key] for key in held})
        files |= dict.fromkeys(held, name)
    if shards > 1:
        index = {"metadata": {}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 2, "eos_token_id": 1, "top_k": seed})
    )
    return folder


def write_safetensors(path: Path, arrays: Arrays) -> None:
    header, at = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(
        struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in arrays.values())
    )


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    data = raw[8 + length :]
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
    }


def litgpt_tensors(seed: int) -> dict[str, np.ndarray]:
    """The same model as LitGPT (0.5.5 and later) stores it: all queries, then all keys, then all values."""
    ours = tensors(seed)
    found = {
        "transformer.wte.weight": ours["model.embed_tokens.weight"],
        "lm_head.weight": ours["model.embed_tokens.weight"],
        "transformer.ln_f.weight": ours["model.norm.weight"],
    }
    names = {
        "norm_1": "input_layernorm",
        "norm_2": "post_attention_layernorm",
        "attn.proj": "self_attn.o_proj",
        "mlp.fc_1": "mlp.gate_proj",
        "mlp.fc_2": "mlp.up_proj",
        "mlp.proj": "mlp.down_proj",
    }
    for layer in range(LAYERS):
        near, far = f"transformer.h.{layer}", f"model.layers.{layer}"
        for name, theirs in names.items():
            found[f"{near}.{name}.weight"] = ours[f"{far}.{theirs}.weight"]
        parts = [ours[f"{far}.self_attn.{part}_proj.weight"] for part in "qkv"]
        found[f"{near}.attn.qkv.weight"] = np.concatenate(parts)
    return found


def same(one: Arrays, other: Arrays) -> bool:
    """Whether the same names hold the same bytes."""
    return one.keys() == other.keys() and all(
        one[name].shape == other[name].shape and one[name].tobytes() == other[name].tobytes() for name in one
    )


def tree(path: Path) -> str:
    """What a directory, or a file, is known by; empty where there is nothing, or an empty directory."""
    if not os.path.lexists(path):
        return ""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(found for found in path.rglob("*") if not found.is_dir())
    for file in files:
        content = file.readlink().as_posix().encode() if file.is_symlink() else file.read_bytes()
        digest.update(f"{file.relative_to(path).as_posix()} {len(content)}\0".encode() + content)
    return digest.hexdigest() if files else ""


def tree_now(path: Path) -> str:
    """As `tree`, of a directory that others may exchange for another one meanwhile."""
    while True:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Through what is open, so that all of it is of one directory.
            found = tree(Path(f"/proc/self/fd/{held}/."))
            if os.path.samestat(os.fstat(held), path.stat()):
                return found
        except FileNotFoundError:
            # It has been replaced, and is being removed.
            continue
        finally:
            os.close(held)
