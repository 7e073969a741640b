"""Torch files whose tensors are views: transposed, sliced, expanded. torch.load says what they hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import porter
from porter.errors import DifferenceError

D, F, H, K, HEAD, VOCAB = 12, 7, 4, 2, 5, 23
SHAPES = {
    "model.embed_tokens.weight": (VOCAB, D),
    "model.layers.0.input_layernorm.weight": (D,),
    "model.layers.0.self_attn.q_proj.weight": (H * HEAD, D),
    "model.layers.0.self_attn.k_proj.weight": (K * HEAD, D),
    "model.layers.0.self_attn.v_proj.weight": (K * HEAD, D),
    "model.layers.0.self_attn.o_proj.weight": (D, H * HEAD),
    "model.layers.0.post_attention_layernorm.weight": (D,),
    "model.layers.0.mlp.gate_proj.weight": (F, D),
    "model.layers.0.mlp.up_proj.weight": (F, D),
    "model.layers.0.mlp.down_proj.weight": (D, F),
    "model.norm.weight": (D,),
}
CONFIG = {
    "model_type": "gemma",
    "vocab_size": VOCAB,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": 1,
    "num_attention_heads": H,
    "num_key_value_heads": K,
    "head_dim": HEAD,
}


def transposed(values):
    return values.t().contiguous().t() if values.ndim == 2 else values


def sliced(values):
    """Every second element, in rows that lie farther apart still, behind others."""
    wide = torch.full((values.shape[0] + 1, 2 * values.shape[-1] + 3), 7.0, dtype=values.dtype)
    view = wide[1:, 1 : 1 + 2 * values.shape[-1] : 2] if values.ndim == 2 else wide[1:, 2]
    return view.copy_(values)


def expanded(values):
    return (
        values.reshape(-1)[:1].expand(values.shape) if values.ndim == 1 else values[:1].expand(values.shape)
    )


KINDS = {
    "as they are": lambda values: values,
    "transposed": transposed,
    "sliced": sliced,
    "expanded": expanded,
}


@pytest.fixture(params=KINDS)
def source(tmp_path, request):
    folder = tmp_path / "viewed"
    folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    state = {
        name: KINDS[request.param](torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()
    }
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def held(source):
    return torch.load(source / "pytorch_model.bin", weights_only=True)


def test_the_same_values_come_out(source, tmp_path):
    state = held(source)
    porter.convert(source, tmp_path / "hf", to="hf")
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("dtype", ["keep", "bfloat16"])
def test_they_are_fused_turned_and_cast_like_others(source, tmp_path, dtype):
    state = held(source)
    porter.convert(source, tmp_path / "lit", to="litgpt", dtype=dtype)
    found = load_file(tmp_path / "lit" / "lit_model.safetensors")
    parts = [state[f"model.layers.0.self_attn.{part}_proj.weight"] for part in "qkv"]
    cast = torch.float32 if dtype == "keep" else torch.bfloat16
    assert torch.equal(found["transformer.h.0.attn.qkv.weight"], torch.cat(parts).to(cast))
    porter.convert(source, tmp_path / "jax", to="flax", dtype=dtype)
    back = porter.load_state_dict(tmp_path / "jax", to="hf")
    assert all(torch.equal(back[name], state[name].to(cast)) for name in state)


@pytest.mark.parametrize("dtype", ["keep", "bfloat16"])
def test_layers_that_lie_differently_are_read_each_by_its_own_strides(tmp_path, dtype):
    """Tensors of one rule, the second layer transposed in memory, the third sliced."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    state = {}
    for name, shape in SHAPES.items():
        if ".layers." not in name:
            state[name] = torch.randn(shape)
            continue
        for layer, kind in enumerate(("as they are", "transposed", "sliced")):
            state[name.replace(".0.", f".{layer}.")] = KINDS[kind](torch.randn(shape))
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 3}))
    cast = torch.float32 if dtype == "keep" else torch.bfloat16
    porter.convert(folder, tmp_path / "hf", to="hf", dtype=dtype)
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert all(torch.equal(found[name], state[name].to(cast)) for name in state)
    porter.convert(folder, tmp_path / "lit", to="litgpt", dtype=dtype)
    found = load_file(tmp_path / "lit" / "lit_model.safetensors")
    for layer in range(3):
        parts = [state[f"model.layers.{layer}.self_attn.{part}_proj.weight"] for part in "qkv"]
        assert torch.equal(found[f"transformer.h.{layer}.attn.qkv.weight"], torch.cat(parts).to(cast))


def test_a_state_dict_holds_the_same(source):
    state = held(source)
    for as_, dtype in (("hf", torch.float32), ("gemma_pytorch", torch.bfloat16)):
        found = porter.load_state_dict(source, to=as_, dtype=str(dtype).removeprefix("torch."))
        name = "model.layers.0.self_attn.o_proj.weight"
        assert torch.equal(found[name], state[name].to(dtype))


def test_a_tie_of_two_orders_is_compared_by_value(tmp_path):
    folder = tmp_path / "tied"
    folder.mkdir()
    state = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    embedding = transposed(torch.randn(VOCAB, D))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    torch.save(
        {**state, "model.embed_tokens.weight": embedding, "lm_head.weight": embedding},
        folder / "pytorch_model.bin",
    )
    porter.convert(folder, tmp_path / "hf", to="hf")
    assert torch.equal(
        load_file(tmp_path / "hf" / "model.safetensors")["model.embed_tokens.weight"], embedding
    )
    head = embedding.contiguous()
    torch.save(
        {**state, "model.embed_tokens.weight": embedding, "lm_head.weight": head},
        folder / "pytorch_model.bin",
    )
    porter.convert(folder, tmp_path / "other", to="hf")
    head = head.clone()
    head[3, 4] += 1
    torch.save(
        {**state, "model.embed_tokens.weight": embedding, "lm_head.weight": head},
        folder / "pytorch_model.bin",
    )
    with pytest.raises(DifferenceError, match="have to be equal"):
        porter.convert(folder, tmp_path / "third", to="hf")


def test_strides_are_told_in_the_plan(source):
    made = porter.plan(source, to="hf")
    for tensor in made.sources:
        strides = held(source)[tensor.name].stride()
        shown = np.array(tensor.strides or strides)
        assert all(strides[axis] == shown[axis] for axis, size in enumerate(tensor.shape) if size > 1)
