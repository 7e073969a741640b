"""Planning a checkpoint of a hundred thousand tensors, and how long it takes to start at all."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from benchmarks.conversions import PORTER
from benchmarks.measure import Subject, interleaved, run

# Nine tensors a layer and three more: 100,002.
LAYERS = 11_111
SHARDS = 20


def many_tensors(folder: Path, layers: int = LAYERS, shards: int = SHARDS) -> None:
    """A Llama of tiny layers in sparse shards: headers as they are, and no byte of weights on the disk."""
    folder.mkdir()
    width, inner, vocab, head, heads, kv_heads = 64, 128, 256, 16, 4, 2
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "vocab_size": vocab,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    }
    layer = {
        "self_attn.q_proj": [heads * head, width],
        "self_attn.k_proj": [kv_heads * head, width],
        "self_attn.v_proj": [kv_heads * head, width],
        "self_attn.o_proj": [width, heads * head],
        "mlp.gate_proj": [inner, width],
        "mlp.up_proj": [inner, width],
        "mlp.down_proj": [width, inner],
        "input_layernorm": [width],
        "post_attention_layernorm": [width],
    }
    tensors = {"model.embed_tokens.weight": [vocab, width], "model.norm.weight": [width]}
    tensors["lm_head.weight"] = [vocab, width]
    for number in range(layers):
        tensors |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    names = list(tensors)
    step = -(-len(names) // shards)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        entries, end = {}, 0
        for name in names[number * step : (number + 1) * step]:
            begin, end = end, end + 2 * math.prod(tensors[name])
            entries[name] = {"dtype": "BF16", "shape": tensors[name], "data_offsets": [begin, end]}
            weight_map[name] = file
        header = json.dumps(entries).encode()
        with (folder / file).open("wb") as stream:
            stream.write(len(header).to_bytes(8, "little") + header)
            stream.truncate(8 + len(header) + end)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def measured(work: Path, rounds: int) -> dict[str, object]:
    """Seconds and peak RSS of a plan, of the commands that should feel instant, and of Python itself."""
    many = work / "many"
    # In a process of its own: what this one holds would count for those that it starts.
    run([sys.executable, "-m", "benchmarks.plans", many])
    plan = [*PORTER, "convert", "--to", "litgpt", "--dry-run"]
    subjects: dict[str, Subject] = {
        "plan of 100,000 tensors": lambda: run([*plan, many]),
        "porter --help": lambda: run([*PORTER, "--help"]),
        "porter inspect": lambda: run([*PORTER, "inspect", work / "hf"]),
        "porter convert --dry-run": lambda: run([*plan, work / "hf"]),
        "python -c pass": lambda: run([sys.executable, "-c", "pass"]),
    }
    return {"subjects": {name: found.to_json() for name, found in interleaved(subjects, rounds).items()}}


if __name__ == "__main__":
    many_tensors(Path(sys.argv[1]))
