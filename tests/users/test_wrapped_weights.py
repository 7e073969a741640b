"""Torch files as trainers leave them: the model behind an attribute, under a key, beside other things."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import porter
from porter.errors import MalformedError, UnsupportedError, UsageError

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
BUFFER = "model.layers.0.self_attn.rotary_emb.inv_freq"


def weights(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture
def write(tmp_path):
    def made(content, name="run"):
        folder = tmp_path / name
        folder.mkdir()
        torch.save(content, folder / "last.ckpt")
        (folder / "config.json").write_text(json.dumps(CONFIG))
        return folder

    return made


def ported(source, out, **options):
    porter.convert(source, out, to="hf", **options)
    return load_file(out / "model.safetensors")


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize(
    "prefix",
    [
        "model.",
        "net.",
        "module.model.",
        "_forward_module.model.",
        "base_model.model.",
        "lightning_module.network.inner.",
        "_forward_module._orig_mod.module.model.",
    ],
)
def test_the_model_may_be_an_attribute_of_a_module(write, tmp_path, prefix):
    """Lightning's, DeepSpeed's and PEFT's: all names begin alike, and so does a buffer's."""
    state = {prefix + name: tensor for name, tensor in {**weights(), BUFFER: torch.ones(3)}.items()}
    source = write({"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 1e-3}})
    assert porter.inspect(source).dialect == "hf"
    assert same(ported(source, tmp_path / "out"), weights())


def test_tensors_beside_the_attribute_are_not_passed_over(write, tmp_path):
    state = {"model." + name: tensor for name, tensor in weights().items()}
    with pytest.raises(UnsupportedError):
        ported(write({"state_dict": {**state, "critic.weight": torch.ones(2)}}), tmp_path / "out")


def test_markers_inside_names_are_taken_out(write, tmp_path):
    inside = {
        "layers.0": "layers.0._checkpoint_wrapped_module",
        "self_attn": "_fsdp_wrapped_module.self_attn",
    }
    state = {}
    for name, tensor in weights().items():
        for plain, wrapped in inside.items():
            name = name.replace(plain, wrapped)
        state["_orig_mod." + name] = tensor
    assert same(ported(write({"model": state}), tmp_path / "out"), weights())


@pytest.mark.parametrize("key", ["net", "params", "weights", "ema"])
def test_a_state_dict_is_found_under_the_usual_keys(write, tmp_path, key):
    assert same(ported(write({key: weights(), "step": 3}), tmp_path / "out"), weights())


def test_of_several_state_dicts_one_is_taken_and_the_others_are_said(write, tmp_path):
    source = write({"model": weights(1), "ema": weights(2), "runs": {"best": weights(3)}})
    assert same(ported(source, tmp_path / "first"), weights(1))
    (note,) = [note for note in porter.plan(source, to="hf").notes if "key=" in note]
    assert "'model'" in note and "'ema'" in note
    assert same(ported(source, tmp_path / "second", key="ema"), weights(2))
    assert same(ported(source, tmp_path / "third", key="runs.best"), weights(3))
    name = "model.norm.weight"
    assert torch.equal(porter.load_state_dict(source, key="ema")[name], weights(2)[name])
    with pytest.raises(UsageError, match="no state dict under 'nothing'") as refused:
        porter.inspect(source, key="nothing")
    assert "model, ema" in refused.value.hint
    with pytest.raises(UsageError, match="key= names a state dict of a torch file"):
        porter.inspect(tmp_path / "first", key="ema")


def test_what_is_no_weight_is_passed_over(write, tmp_path):
    beside = {
        "loss": np.float64(0.5),
        "device": torch.device("cpu"),
        "path": Path("/data"),
        "args": argparse.Namespace(lr=1e-3, dtype=torch.bfloat16, device=torch.device("cpu")),
        "when": datetime.datetime(2024, 5, 6),
        "seen": {1, 2},
    }
    assert same(ported(write({**weights(), **beside}), tmp_path / "out"), weights())
    assert same(ported(write({"model": weights(), **beside}, "other"), tmp_path / "second"), weights())

    with pytest.raises(UnsupportedError, match="is a NumPy array"):
        porter.inspect(write({**weights(), "model.norm.weight": np.ones(D, np.float32)}, "arrays"))
    with pytest.raises(MalformedError, match="not safe"):
        porter.inspect(write({**weights(), "model.norm.weight": _Evil()}, "evil"))
    assert not (tmp_path / "ran").exists()


class _Evil:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_placeholders_of_zero_3_are_named(write, tmp_path):
    """Parameters are partitioned; a buffer, and what is small, may be whole."""
    state = {name: torch.empty(0) if "proj" in name else tensor for name, tensor in weights().items()}
    with pytest.raises(MalformedError, match="7 tensors without elements, as ZeRO-3") as refused:
        ported(write({"module": state}), tmp_path / "out")
    assert "zero_to_fp32" in refused.value.hint


@pytest.fixture
def distributed(monkeypatch):
    """The state dict of rank 0 of a run, sharded by rows; a run that has no other process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def made(world):
        torch.distributed.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
        try:
            mesh = init_device_mesh("cpu", (world,))
            # Not sent by anybody: rank 0 cuts its own part.
            parts = {name: tensor.chunk(world)[0] for name, tensor in weights().items()}
            if world == 1:
                return {name: distribute_tensor(part, mesh, [Shard(0)]) for name, part in parts.items()}
            from torch.distributed.tensor import DTensor

            return {name: DTensor.from_local(part, mesh, [Shard(0)]) for name, part in parts.items()}
        finally:
            torch.distributed.destroy_process_group()

    return made


def test_distributed_tensors_of_one_rank_are_whole(write, tmp_path, distributed):
    assert same(ported(write({"model": distributed(1)}), tmp_path / "out"), weights())
    with pytest.raises(UnsupportedError, match="one rank's part") as refused:
        porter.inspect(write({"model": distributed(2)}, "two"))
    assert "full_state_dict" in refused.value.hint
