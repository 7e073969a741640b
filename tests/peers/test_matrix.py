"""Every dialect of Gemma to every other, and back: the same bytes, whichever way they went.

A goes to B and back to A: each tensor has the bytes, the dtype and the shape that it had. A to B is A to hf
to B. All sizes are different, and every weight is random; that each dialect means the right thing by its
bytes is shown elsewhere, against the frameworks themselves.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import porter
from porter.containers.checkpoint import open_checkpoint
from porter.sources.local import locate
from porter.tables import load_families

SIZES = {
    "vocab_size": 29,
    "hidden_size": 42,
    "intermediate_size": 17,
    "num_hidden_layers": 1,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
}
MODELS: dict[str, dict[str, Any]] = {
    "gemma-mqa": SIZES | {"model_type": "gemma", "num_key_value_heads": 1},
    "gemma-gqa": SIZES | {"model_type": "gemma"},
    "gemma-mha": SIZES | {"model_type": "gemma", "num_key_value_heads": 6},
    "gemma2": SIZES | {"model_type": "gemma2", "num_hidden_layers": 2, "query_pre_attn_scalar": 10},
    "gemma3": SIZES | {"model_type": "gemma3_text", "query_pre_attn_scalar": 10, "sliding_window": 512},
}
FAMILIES = load_families()
DIALECTS = {
    name: sorted(
        dialect.name
        for dialect in FAMILIES[config["model_type"]].dialects.values()
        if dialect.files.writable and dialect.files.weights is not None
    )
    for name, config in MODELS.items()
}
PAIRS = [(name, a, b) for name, dialects in DIALECTS.items() for a in dialects for b in dialects if a != b]

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def test_the_dialects_are_those_that_there_should_be():
    """Otherwise a table that is lost would only make the matrix smaller."""
    both = {"hf", "litgpt", "keras", "gemma_pytorch", "flax"}
    assert set(DIALECTS["gemma-gqa"]) == both | {"litgpt-legacy"}
    assert set(DIALECTS["gemma2"]) == both | {"litgpt-legacy", "flax-transposed"}
    assert set(DIALECTS["gemma3"]) == both | {"litgpt-legacy"}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, f, h = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * h, config["num_key_value_heads"] * h
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (queries, d),
        "self_attn.k_proj": (keys, d),
        "self_attn.v_proj": (keys, d),
        "self_attn.o_proj": (d, queries),
        "mlp.gate_proj": (f, d),
        "mlp.up_proj": (f, d),
        "mlp.down_proj": (d, f),
        "input_layernorm": (d,),
        "post_attention_layernorm": (d,),
    }
    if config["model_type"] != "gemma":
        layer |= {"pre_feedforward_layernorm": (d,), "post_feedforward_layernorm": (d,)}
    if config["model_type"] == "gemma3_text":
        layer |= {"self_attn.q_norm": (h,), "self_attn.k_norm": (h,)}
    return {
        "model.embed_tokens.weight": (config["vocab_size"], d),
        "model.norm.weight": (d,),
        **{
            f"model.layers.{number}.{part}.weight": shape
            for number in range(config["num_hidden_layers"])
            for part, shape in layer.items()
        },
    }


def stored(path: Path) -> Tensors:
    """Dtype, shape and bytes of every tensor of a directory."""
    found = {}
    for tensor in open_checkpoint(locate(path)).tensors.values():
        with (path / tensor.file).open("rb") as stream:
            stream.seek(tensor.offset)
            found[tensor.name] = (tensor.dtype.name, tensor.shape, stream.read(tensor.nbytes))
    return found


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`ways(name, "flax", "keras")`: the directory of a model that went from hf to flax and then to keras."""
    root = tmp_path_factory.mktemp("ways")

    @functools.cache
    def go(name: str, *dialects: str) -> Path:
        out = root / "-".join((name, *dialects))
        if dialects:
            porter.convert(go(name, *dialects[:-1]), out, to=dialects[-1])
            return out
        out.mkdir()
        generator = np.random.default_rng(len(name))
        weights = {
            key: generator.standard_normal(shape, np.float32) for key, shape in shapes(MODELS[name]).items()
        }
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
        (out / "config.json").write_text(json.dumps(MODELS[name]))
        return out

    # The source is hf already: the way to it is none.
    return lambda name, *dialects: go(name, *(dialects[1:] if dialects[0] == "hf" else dialects))


@pytest.mark.parametrize(("name", "a", "b"), PAIRS)
def test_every_way_gives_the_same_bytes(ways, name, a, b):
    start, there = stored(ways(name, a)), stored(ways(name, a, b))
    assert start != there
    assert stored(ways(name, a, b, a)) == start
    assert stored(ways(name, a, "hf", b) if "hf" not in (a, b) else ways(name, a, b)) == there
    assert stored(ways(name, "hf", b) if b != "hf" else ways(name, "hf")) == there
    verdict = porter.verify(ways(name, a), ways(name, a, b))
    assert (verdict.outcome, verdict.out_dialect, verdict.config.outcome) == ("equal", b, "equal"), verdict
