"""`porter inspect` on models of full size: from afar in kilobytes, in another dialect, as CSV and Markdown.

The sizes are those of the published configs; the expected numbers are worked out beside them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

Shapes = dict[str, tuple[int, ...]]

_COMMON = {"hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "head_dim": 256}
GEMMA_2B: dict[str, Any] = _COMMON | {
    "model_type": "gemma",
    "num_hidden_layers": 18,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
}
GEMMA_7B = GEMMA_2B | {
    "num_hidden_layers": 28,
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}
GEMMA2_2B = GEMMA_2B | {
    "model_type": "gemma2",
    "num_hidden_layers": 26,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_key_value_heads": 4,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
GEMMA3_1B = GEMMA_2B | {
    "model_type": "gemma3_text",
    "num_hidden_layers": 26,
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "num_attention_heads": 4,
    "vocab_size": 262144,
    "max_position_embeddings": 32768,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "query_pre_attn_scalar": 256,
    "rope_theta": 1_000_000,
    "rope_local_base_freq": 10_000,
}


def layer_shapes(config: dict[str, Any], layer: int) -> Shapes:
    d, f = config["hidden_size"], config["intermediate_size"]
    q, kv = config["num_attention_heads"] * 256, config["num_key_value_heads"] * 256
    block: Shapes = {
        "self_attn.q_proj": (q, d),
        "self_attn.k_proj": (kv, d),
        "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, q),
        "mlp.gate_proj": (f, d),
        "mlp.up_proj": (f, d),
        "mlp.down_proj": (d, f),
        "input_layernorm": (d,),
        "post_attention_layernorm": (d,),
    }
    if config["model_type"] != "gemma":
        block |= {"pre_feedforward_layernorm": (d,), "post_feedforward_layernorm": (d,)}
    if config["model_type"] == "gemma3_text":
        block |= {"self_attn.q_norm": (256,), "self_attn.k_norm": (256,)}
    return {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}


def all_shapes(config: dict[str, Any]) -> Shapes:
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], config["hidden_size"])}
    for layer in range(config["num_hidden_layers"]):
        shapes |= layer_shapes(config, layer)
    return shapes | {"model.norm.weight": (config["hidden_size"],)}


@pytest.fixture
def gemma_2b(full_size_on_the_hub: Any) -> None:
    """google/gemma-2b on the Hub, 5 GB in two shards."""
    shapes = all_shapes(GEMMA_2B)
    last = {name: shape for name, shape in shapes.items() if ".17." in name or name == "model.norm.weight"}
    first = {name: shape for name, shape in shapes.items() if name not in last}
    full_size_on_the_hub("google/gemma-2b", GEMMA_2B, [first, last])


@pytest.mark.parametrize("name", ["gemma-2b", "hf://google/gemma-2b", "hf://google/gemma-2b@main"])
def test_five_gigabytes_in_kilobytes(hub: Any, porter: Any, gemma_2b: None, name: str) -> None:
    shown = porter("inspect", name).stdout
    assert shown.startswith(
        "google/gemma-2b · gemma (hf) · 2 files · 164 tensors · 2.506 B parameters · BF16 · 5.01 GB\n"
    )
    assert re.search(r"model\.embed_tokens\.weight +\[256000, 2048\] +BF16 +1 +524\.3 M +20\.9\n", shown)
    assert re.search(
        r"model\.layers\.\{0\.\.17\}\.self_attn\.q_proj\.weight +\[2048, 2048\] +BF16 +18 ", shown
    )
    # config, index and two headers; two requests for them, to the storage
    assert hub.server.sent < 60_000
    assert len([request for request in hub.server.log if request.server == "storage"]) == 2
    assert all(request.range for request in hub.server.log if request.server == "storage")


def test_what_has_been_looked_at_is_not_taken_for_a_download(porter: Any, gemma_2b: None) -> None:
    porter("inspect", "gemma-2b")
    told = porter("convert", "gemma-2b", "--to", "litgpt", "--offline", code=2).stderr
    assert "porter download gemma-2b" in told
    assert "none has been downloaded" in porter("inspect", code=2).stderr


def test_the_numbers_from_afar(porter: Any, gemma_2b: None) -> None:
    found = json.loads(porter("inspect", "gemma-2b", "--json").stdout)
    assert found["parameters"] == 2_506_172_416
    assert found["nbytes"] == 2 * 2_506_172_416
    assert found["ties"] == {"lm_head.weight": "model.embed_tokens.weight"}
    assert {tensor["name"]: tuple(tensor["shape"]) for tensor in found["tensors"]} == all_shapes(GEMMA_2B)


# k and v in bfloat16: 4 bytes for each layer, kv head, dim and token.
MEMORY = {
    # 18 layers · 1 head · 256 · 1000 · 4
    "2b": (GEMMA_2B, 2_506_172_416, 18_432_000, 0, None),
    # 28 · 16 · 256 · 1000 · 4
    "7b": (GEMMA_7B, 8_537_680_896, 458_752_000, 0, None),
    # 26 · 4 · 256 · 1000 · 4; every other layer looks back 4,096 tokens
    "gemma-2-2b": (GEMMA2_2B, 2_614_341_888, 106_496_000, 53_248_000, 4096),
    # 26 · 1 · 256 · 1000 · 4; all layers but the 6th, 12th, 18th and 24th look back 512 tokens
    "gemma-3-1b": (GEMMA3_1B, 999_885_952, 26_624_000, 22_528_000, 512),
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory(porter: Any, full_size: Any, here: Path, name: str) -> None:
    config, parameters, cache, sliding, window = MEMORY[name]
    shapes = all_shapes(config)
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters, "as published"
    folder = full_size(here / name, config, shapes)
    memory = json.loads(porter("inspect", folder, "--json").stdout)["memory"]
    assert memory == {
        "weights": {
            "float32": parameters * 4,
            "bfloat16": parameters * 2,
            "8 bit": parameters,
            "4 bit": parameters // 2,
        },
        "kv_cache": cache,
        "sliding": sliding,
        "window": window,
    }
    (folder / "model.safetensors").unlink()
    twice = full_size(
        here / "twice", config, shapes | {"lm_head.weight": shapes["model.embed_tokens.weight"]}
    )
    again = json.loads(porter("inspect", twice, "--json").stdout)
    assert again["memory"] == memory, "a tied head that is stored takes no memory of its own"
    assert again["parameters"] > parameters


def test_the_lines_about_memory(porter: Any, full_size: Any, here: Path) -> None:
    lines = porter("inspect", full_size(here / "2b", GEMMA_2B, all_shapes(GEMMA_2B))).stdout.splitlines()
    assert lines[-2:] == [
        "weights   float32 10.02 GB · bfloat16 5.01 GB · 8 bit 2.51 GB · 4 bit 1.25 GB",
        "KV cache  18.43 MB per 1,000 tokens (bfloat16)",
    ]
    lines = porter("inspect", full_size(here / "3", GEMMA3_1B, all_shapes(GEMMA3_1B))).stdout.splitlines()
    assert lines[-1] == (
        "KV cache  26.62 MB per 1,000 tokens (bfloat16), of which 22.53 MB stop growing at 512 tokens"
    )


# In another dialect.

LITGPT_2B: Shapes = {
    "transformer.wte.weight": (256000, 2048),
    "transformer.ln_f.weight": (2048,),
    "lm_head.weight": (256000, 2048),
    **{
        f"transformer.h.{layer}.{name}.weight": shape
        for layer in range(18)
        for name, shape in {
            "norm_1": (2048,),
            "norm_2": (2048,),
            "attn.qkv": (2560, 2048),
            "attn.proj": (2048, 2048),
            "mlp.fc_1": (16384, 2048),
            "mlp.fc_2": (16384, 2048),
            "mlp.proj": (2048, 16384),
        }.items()
    },
}


def test_as_litgpt(hub: Any, porter: Any, gemma_2b: None) -> None:
    shown = porter("inspect", "gemma-2b", "--as", "litgpt").stdout
    line = next(line for line in shown.splitlines() if "attn.qkv" in line)
    assert re.match(r"transformer\.h\.\{0\.\.17\}\.attn\.qkv\.weight +\[2560, 2048\] +BF16 +18 ", line)
    for projection in ("q_proj", "k_proj", "v_proj"):
        assert f"model.layers.{{0..17}}.self_attn.{projection}.weight" in line
    assert "(n_kv_head q_per_kv head_dim | n_kv_head head_dim | n_kv_head head_dim) d_model" in line
    assert hub.server.sent < 60_000

    found = json.loads(porter("inspect", "gemma-2b", "--as", "litgpt", "--json").stdout)
    assert (found["schema"], found["family"], found["from"], found["as"]) == (1, "gemma", "hf", "litgpt")
    assert {tensor["name"]: tuple(tensor["shape"]) for tensor in found["tensors"]} == LITGPT_2B
    qkv = next(tensor for tensor in found["tensors"] if tensor["name"] == "transformer.h.7.attn.qkv.weight")
    assert qkv["from"] == [f"model.layers.7.self_attn.{name}_proj.weight" for name in "qkv"]
    assert qkv["layout"].startswith("(n_kv_head q_per_kv head_dim | ") and qkv["dtype"] == "BF16"
    assert re.fullmatch(r"[^/]*/litgpt\.toml:\d+", qkv["rule"])


def test_as_litgpt_for_the_eye_and_the_spreadsheet(porter: Any, gemma_2b: None) -> None:
    rows = list(
        csv.reader(io.StringIO(porter("inspect", "gemma-2b", "--as", "litgpt", "--csv", "--full").stdout))
    )
    assert rows[0][:3] == ["Target", "Shape", "Dtype"]
    assert {row[0]: tuple(json.loads(row[1])) for row in rows[1:]} == LITGPT_2B
    filtered = porter("inspect", "gemma-2b", "--as", "litgpt", "--filter", "*attn*", "--full").stdout
    assert len(filtered.splitlines()) == 1 + 36
    told = porter("inspect", "gemma-2b", "--as", "pytorch", code=2).stderr
    assert "'pytorch'" in told and "litgpt" in told


# CSV and Markdown.


def test_csv(porter: Any, gemma_2b: None) -> None:
    rows = list(csv.DictReader(io.StringIO(porter("inspect", "gemma-2b", "--csv", "--full").stdout)))
    assert {row["Tensor"]: tuple(json.loads(row["Shape"])) for row in rows} == all_shapes(GEMMA_2B)
    assert sum(int(row["Params"]) for row in rows) == 2_506_172_416, "numbers, not words"
    few = list(csv.DictReader(io.StringIO(porter("inspect", "gemma-2b", "--csv").stdout)))
    assert sum(int(row["×"]) for row in few) == 164 and len(few) == 11


def test_markdown(porter: Any, gemma_2b: None) -> None:
    lines = porter("inspect", "gemma-2b", "--markdown").stdout.splitlines()
    assert len(lines) == 2 + 11
    assert lines[0] == "| Tensor | Shape | Dtype | × | Params | % |"
    assert re.fullmatch(r"\|( -+:? \|)+", lines[1]) and lines[1].count("|") == 7
    assert "| model.embed_tokens.weight | [256000, 2048] | BF16 | 1 | 524.3 M | 20.9 |" in lines
    assert all(re.sub(r"\\\|", "", line).count("|") == 7 for line in lines)
    other = porter("inspect", "gemma-2b", "--as", "litgpt", "--markdown").stdout.splitlines()
    assert all(re.sub(r"\\\|", "", line).count("|") == 8 for line in other), "a rule's | is escaped"
    assert "choose one" in porter("inspect", "gemma-2b", "--csv", "--markdown", code=2).stderr
