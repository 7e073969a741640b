"""Hugging Face to LitGPT and back, judged by the real transformers and the real LitGPT.

Bytes say that nothing was lost, a strict load that nothing is missing, logits that everything is where it
belongs. 600 tokens are many times the sliding window and long enough for RoPE to matter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import porter
from porter.errors import UnsupportedError

pytestmark = pytest.mark.peer

# Relative to max |logit|. Both compute the same operations in float32, whose resolution is 1.2e-7, but their
# kernels sum in different orders where shapes or masks are passed differently: 5e-7 was the most seen, and
# most models agree to the last bit.
BOUND = 2e-6

NAMES = (
    "gemma-mqa",
    "gemma-gqa",
    "gemma-mha",
    "gemma2",
    "gemma3",
    "llama",
    "llama-rope",
    "llama-biases",
    "llama-tied",
    "gpt-neox",
    "gemma-equal",
    "gemma2-equal",
    "gemma3-equal",
    "llama-equal",
)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "porter", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", NAMES)
def test_litgpt_computes_what_transformers_does(models, difference, tmp_path, name):
    source = models.path(name)
    porter.convert(source, tmp_path / "out", to="litgpt", target_model="litgpt")
    expected = models.hf(source)
    assert difference(models.litgpt(tmp_path / "out"), expected) <= BOUND
    assert difference(models.porter(tmp_path / "out"), expected) <= BOUND


@pytest.mark.parametrize("name", NAMES)
def test_the_way_back_gives_the_same_bytes_and_the_same_logits(models, stored, tmp_path, name):
    source = models.path(name)
    porter.convert(source, tmp_path / "lit", to="litgpt")
    porter.convert(tmp_path / "lit", tmp_path / "back", to="hf", target_model="transformers")
    assert stored(tmp_path / "back") == stored(source)
    assert torch.equal(models.hf(tmp_path / "back"), models.hf(source))


def test_the_command_line_goes_both_ways(models, stored, difference, tmp_path):
    source = models.path("gemma3")
    there = command("convert", source, "--to", "litgpt", "--target-model", "porter", "-o", tmp_path / "lit")
    assert there.returncode == 0, there.stderr
    assert "porter accepts all" in there.stderr
    assert difference(models.litgpt(tmp_path / "lit"), models.hf(source)) <= BOUND
    back = command("convert", tmp_path / "lit", "--to", "hf", "-o", tmp_path / "back")
    assert back.returncode == 0, back.stderr
    assert stored(tmp_path / "back") == stored(source)


@pytest.mark.parametrize(
    ("name", "to", "model"),
    [
        ("gemma2", "litgpt", "litgpt"),
        ("gemma2", "litgpt", "porter"),
        ("gemma2", "hf", "transformers"),
        ("gpt-neox", "litgpt", "litgpt"),
        ("gpt-neox", "litgpt", "porter"),
        ("gpt-neox", "hf", "transformers"),
        ("llama-biases", "litgpt", "porter"),
        ("llama-tied", "hf", "transformers"),
    ],
)
def test_every_live_model_accepts_its_plan(models, tmp_path, name, to, model):
    porter.convert(models.path(name), tmp_path / "out", to=to, target_model=model)


# --- shards ------------------------------------------------------------------------------------------


def test_q_k_and_v_of_one_layer_may_lie_in_three_files(models, stored, difference, tmp_path):
    # k and v take 20 * 66 * 4 = 5280 bytes each: no two tensors of a layer's attention share a file.
    source = models.path("gemma-gqa", shard=5300)
    weight_map = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]
    homes = {weight_map[f"model.layers.1.self_attn.{part}_proj.weight"] for part in "qkv"}
    assert len(homes) == 3

    porter.convert(source, tmp_path / "out", to="litgpt")
    whole = models.path("gemma-gqa")
    assert difference(models.litgpt(tmp_path / "out"), models.hf(whole)) <= BOUND
    porter.convert(tmp_path / "out", tmp_path / "back", to="hf")
    assert stored(tmp_path / "back") == stored(whole) == stored(source)


@pytest.mark.parametrize("name", ["gemma-mqa", "gemma3", "gpt-neox"])
def test_sharded_output_follows_the_hubs_rule(models, stored, tmp_path, name):
    source, limit = models.path(name), 100_000
    porter.convert(source, tmp_path / "lit", to="litgpt")
    out = tmp_path / "sharded"
    done = command("convert", tmp_path / "lit", "--to", "hf", "--max-shard-size", "100KB", "-o", out)
    assert done.returncode == 0, done.stderr

    assert stored(out) == stored(source)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    sizes = {tensor: len(data) for tensor, (_, _, data) in stored(source).items()}
    assert index["metadata"]["total_size"] == sum(sizes.values())
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert files == [f"model-{at:05d}-of-{len(files):05d}.safetensors" for at in range(1, len(files) + 1)]
    assert len(files) > 3
    for file in files:
        inside = [tensor for tensor, home in index["weight_map"].items() if home == file]
        assert sorted(inside) == sorted(load_file(out / file))
        assert sum(sizes[tensor] for tensor in inside) <= limit or len(inside) == 1
    assert sorted(index["weight_map"]) == sorted(sizes)

    # Loaded by transformers: nothing missing, nothing unexpected, and the same logits.
    assert torch.equal(models.hf(out), models.hf(source))


def test_the_shards_are_those_that_the_hubs_client_would_make(models, tmp_path):
    from huggingface_hub import split_torch_state_dict_into_shards

    out = tmp_path / "out"
    plan = porter.convert(models.path("gemma3"), out, to="hf", max_shard_size=100_000).plan
    # The rule depends on the order of the tensors; within a file ours is that of their data.
    state = {tensor.name: torch.empty(tensor.shape, device="meta") for tensor in plan.targets()}
    theirs = split_torch_state_dict_into_shards(state, max_shard_size=100_000)
    groups = {frozenset(names) for names in theirs.filename_to_tensors.values()}
    weight_map = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    ours = {frozenset(t for t, home in weight_map.items() if home == f) for f in set(weight_map.values())}
    assert ours == groups


# --- dtypes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gemma-gqa", "llama-tied", "gpt-neox"])
def test_bfloat16_stays_as_it_is(models, stored, tmp_path, name):
    source = models.path(name, dtype=torch.bfloat16)
    porter.convert(source, tmp_path / "lit", to="litgpt")
    porter.convert(tmp_path / "lit", tmp_path / "back", to="hf")
    assert {dtype for dtype, _, _ in stored(tmp_path / "back").values()} == {"BF16"}
    assert stored(tmp_path / "back") == stored(source)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_cast_rounds_as_torch_does(models, tmp_path, dtype):
    source = models.path("gemma3")
    porter.convert(source, tmp_path / "wide", to="litgpt")
    porter.convert(source, tmp_path / "cast", to="litgpt", dtype=dtype)
    wide = load_file(tmp_path / "wide" / "lit_model.safetensors")
    cast = load_file(tmp_path / "cast" / "lit_model.safetensors")
    wanted = getattr(torch, dtype)
    assert cast.keys() == wide.keys()
    for name, tensor in cast.items():
        assert tensor.dtype == wanted
        assert torch.equal(tensor, wide[name].to(wanted)), name


# --- a table that is wrong ---------------------------------------------------------------------------

# `o` in q's order, and the up-projection under a name of its own.
BROKEN = """\
extends = "gemma/litgpt"
family  = "gemma"
dialect = "litgpt"
remove  = ["transformer.h.{layer}.mlp.fc_2.weight"]

[[rule]]
theirs = "transformer.h.{layer}.attn.proj.weight"
ours   = "{layer}.attn.o"
layout = "(n_kv_head q_per_kv head_dim) d_model"

[[rule]]
theirs = "transformer.h.{layer}.mlp.fc_3.weight"
ours   = "{layer}.mlp.up"
"""


@pytest.mark.parametrize("model", ["litgpt", "porter"])
def test_a_live_model_refuses_a_broken_table_and_says_which_rule_it_is(models, tmp_path, model):
    table = tmp_path / "broken.toml"
    table.write_text(BROKEN)
    # Named by the rule's first line.
    proj, fc_3 = (f"{tmp_path.name}/broken.toml:{line}" for line in (6, 11))
    with pytest.raises(UnsupportedError) as caught:
        porter.convert(
            models.path("gemma-gqa"), tmp_path / "out", to="litgpt", maps=[table], target_model=model
        )
    assert caught.value.exit_code == 5
    assert "9 tensors differ" in caught.value.message
    said = caught.value.cause or ""
    for layer in range(3):
        block = f"transformer.h.{layer}"
        misshapen = f"{block}.attn.proj.weight: the model has [66, 60], the plan [60, 66] ({proj})"
        assert f"misshapen {misshapen}" in said
        assert f"missing {block}.mlp.fc_2.weight [101, 66]" in said
        assert f"unexpected {block}.mlp.fc_3.weight [101, 66] ({fc_3})" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.toml"]


def test_the_command_line_refuses_it_with_exit_code_5(models, tmp_path):
    table = tmp_path / "broken.toml"
    table.write_text(BROKEN)
    options = ("--map", table, "--target-model", "porter", "-o", tmp_path / "out")
    done = command("convert", models.path("gemma-gqa"), "--to", "litgpt", *options)
    assert done.returncode == 5
    assert done.stdout == ""
    assert "misshapen transformer.h.2.attn.proj.weight" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.toml"]
