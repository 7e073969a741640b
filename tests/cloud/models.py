"""A small Gemma in two shards: names and shapes are all that porter looks at."""

import json

import numpy as np
from safetensors.numpy import save_file

LAYERS = 3


def checkpoint(folder, *, vocab=211, seed=0):
    draw = np.random.default_rng(seed)
    dim, hidden, heads, size = 66, 101, 6, 10
    shapes = {"model.embed_tokens.weight": (vocab, dim), "model.norm.weight": (dim,)}
    for layer in range(LAYERS):
        own = {
            "input_layernorm": (dim,),
            "post_attention_layernorm": (dim,),
            "self_attn.q_proj": (heads * size, dim),
            "self_attn.k_proj": (2 * size, dim),
            "self_attn.v_proj": (2 * size, dim),
            "self_attn.o_proj": (dim, heads * size),
            "mlp.gate_proj": (hidden, dim),
            "mlp.up_proj": (hidden, dim),
            "mlp.down_proj": (dim, hidden),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    names = sorted(shapes)
    half = len(names) // 2
    shards = {
        "model-00001-of-00002.safetensors": names[:half],
        "model-00002-of-00002.safetensors": names[half:],
    }
    folder.mkdir(parents=True)
    for file, held in shards.items():
        values = {name: draw.standard_normal(shapes[name], np.float32) for name in held}
        save_file(values, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "gemma",
        "num_hidden_layers": LAYERS,
        "hidden_size": dim,
        "intermediate_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "head_dim": size,
        "vocab_size": vocab,
        "hidden_act": "gelu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"bos_token_id": 2, "eos_token_id": 1}')
    return folder
