"""Wrong ports, made on purpose: plain torch on state dicts, one function a mistake. `make mutants` runs all.

Nothing here knows how porter looks for mistakes. A mistake is made in a tiny model in Hugging Face's names
and stored in each dialect, or in the stored tensors of one dialect; `porter verify` must find it (`found`)
and say it in the words of `says` (`named`). Sound ports of the same models must not be called wrong.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import porter

State = dict[str, Tensor]
Dims = SimpleNamespace
LAYERS = 12

# heads * dims = width, so that a transposed q fits; all else is different.
GEMMA = {
    "model_type": "gemma",
    "vocab_size": 97,
    "hidden_size": 60,
    "intermediate_size": 44,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma": GEMMA,
    "gemma2": GEMMA | {"model_type": "gemma2", "query_pre_attn_scalar": 10, "sliding_window": 64},
    "gemma3_text": GEMMA | {"model_type": "gemma3_text", "query_pre_attn_scalar": 10, "sliding_window": 64},
    "llama": GEMMA | {"model_type": "llama", "rms_norm_eps": 1e-5, "hidden_act": "silu"},
    "gpt_neox": {
        "model_type": "gpt_neox",
        "vocab_size": 97,
        "hidden_size": 60,
        "intermediate_size": 44,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 6,
        "max_position_embeddings": 700,
        "rotary_pct": 0.4,
        "hidden_act": "gelu",
    },
    "mixtral": GEMMA
    | {
        "model_type": "mixtral",
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "sliding_window": None,
        "hidden_act": "silu",
    },
}
DIALECTS = {
    name: ("hf", "litgpt", "keras") if name.startswith("gemma") else ("hf", "litgpt") for name in FAMILIES
}


def dims(config: dict[str, Any]) -> Dims:
    heads = config["num_attention_heads"]
    return Dims(
        H=heads,
        K=config.get("num_key_value_heads", heads),
        D=config.get("head_dim", config["hidden_size"] // heads),
        M=config["hidden_size"],
        F=config["intermediate_size"],
        V=config["vocab_size"],
        L=config["num_hidden_layers"],
        E=config.get("num_local_experts", 0),
        family=config["model_type"],
    )


def weights(config: dict[str, Any], seed: int = 0) -> State:
    """Random weights in Hugging Face's names. Norms scatter around what leaves things alone."""
    d = dims(config)
    shapes: dict[str, tuple[int, ...]] = {}
    if d.family == "gpt_neox":
        shapes |= {"gpt_neox.embed_in.weight": (d.V, d.M), "embed_out.weight": (d.V, d.M)}
        shapes |= {f"gpt_neox.final_layer_norm.{part}": (d.M,) for part in ("weight", "bias")}
        for n in range(d.L):
            for name, shape in {
                "attention.query_key_value": (3 * d.H * d.D, d.M),
                "attention.dense": (d.M, d.H * d.D),
                "mlp.dense_h_to_4h": (d.F, d.M),
                "mlp.dense_4h_to_h": (d.M, d.F),
                "input_layernorm": (d.M,),
                "post_attention_layernorm": (d.M,),
            }.items():
                shapes[f"gpt_neox.layers.{n}.{name}.weight"] = shape
                shapes[f"gpt_neox.layers.{n}.{name}.bias"] = shape[:1]
    else:
        shapes |= {"model.embed_tokens.weight": (d.V, d.M), "model.norm.weight": (d.M,)}
        if d.family in ("llama", "mixtral"):
            shapes["lm_head.weight"] = (d.V, d.M)
        for n in range(d.L):
            parts: dict[str, tuple[int, ...]] = {
                "self_attn.q_proj": (d.H * d.D, d.M),
                "self_attn.k_proj": (d.K * d.D, d.M),
                "self_attn.v_proj": (d.K * d.D, d.M),
                "self_attn.o_proj": (d.M, d.H * d.D),
                "input_layernorm": (d.M,),
                "post_attention_layernorm": (d.M,),
            }
            if d.family == "mixtral":
                parts["block_sparse_moe.gate"] = (d.E, d.M)
                for e in range(d.E):
                    stem = f"block_sparse_moe.experts.{e}."
                    parts |= {stem + "w1": (d.F, d.M), stem + "w2": (d.M, d.F), stem + "w3": (d.F, d.M)}
            else:
                parts |= {"mlp.gate_proj": (d.F, d.M), "mlp.up_proj": (d.F, d.M), "mlp.down_proj": (d.M, d.F)}
            if d.family in ("gemma2", "gemma3_text"):
                parts |= {"pre_feedforward_layernorm": (d.M,), "post_feedforward_layernorm": (d.M,)}
            if d.family == "gemma3_text":
                parts |= {"self_attn.q_norm": (d.D,), "self_attn.k_norm": (d.D,)}
            shapes |= {f"model.layers.{n}.{name}.weight": shape for name, shape in parts.items()}
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=draw)
        found[name] = value / shape[-1] ** 0.5 if len(shape) > 1 else 1 + 0.3 * value
    return found


def layer(n: int, d: Dims) -> str:
    return f"{'gpt_neox' if d.family == 'gpt_neox' else 'model'}.layers.{n}."


@dataclass(frozen=True)
class Mutant:
    """`change(state, d)` makes the mistake in place; `says` is a pattern of the words that name it.

    `dialect` is that whose stored tensors it changes, None where it changes Hugging Face's before they are
    stored. `families` are those that it can be made in.
    """

    name: str
    says: str
    change: Callable[[State, Dims], None]
    dialect: str | None = None
    families: tuple[str, ...] = tuple(FAMILIES)


MUTANTS: list[Mutant] = []
GATED = ("gemma", "gemma2", "gemma3_text", "llama")
SPLIT = (*GATED, "mixtral")


def mutant(
    says: str, *, dialect: str | None = None, families: tuple[str, ...] = tuple(FAMILIES)
) -> Callable[[Callable[[State, Dims], None]], Callable[[State, Dims], None]]:
    def add(change: Callable[[State, Dims], None]) -> Callable[[State, Dims], None]:
        MUTANTS.append(Mutant(change.__name__.replace("_", " "), says, change, dialect, families))
        return change

    return add


def swap(state: State, one: str, other: str) -> None:
    state[one], state[other] = state[other], state[one]


def apply(state: State, d: Dims, part: str, change: Callable[[Tensor], Tensor], layers: Any = None) -> None:
    for n in range(d.L) if layers is None else layers:
        name = layer(n, d) + part
        state[name] = change(state[name]).contiguous()


def norms(state: State) -> list[str]:
    return [name for name in state if "norm" in name and name.endswith(".weight")]


def every(state: State, change: Callable[[Tensor], Tensor]) -> None:
    for name in state:
        state[name] = change(state[name])


# --- tensors in each other's place -------------------------------------------------------------------------


@mutant("gate and up are swapped", families=GATED)
def gate_and_up_swapped(state, d):
    for n in range(d.L):
        swap(state, layer(n, d) + "mlp.gate_proj.weight", layer(n, d) + "mlp.up_proj.weight")


@mutant("layer 4: .*gate and up are swapped", families=GATED)
def gate_and_up_swapped_in_one_layer(state, d):
    swap(state, layer(4, d) + "mlp.gate_proj.weight", layer(4, d) + "mlp.up_proj.weight")


@mutant("gate and up are swapped", families=("mixtral",))
def gate_and_up_of_experts_swapped(state, d):
    for n in range(d.L):
        for e in range(d.E):
            stem = f"{layer(n, d)}block_sparse_moe.experts.{e}."
            swap(state, stem + "w1.weight", stem + "w3.weight")


@mutant("k and v are swapped", families=SPLIT)
def k_and_v_swapped(state, d):
    for n in range(d.L):
        swap(state, layer(n, d) + "self_attn.k_proj.weight", layer(n, d) + "self_attn.v_proj.weight")


@mutant("k and v are swapped", families=("gpt_neox",))
def k_and_v_of_fused_swapped(state, d):
    for part, tail in (("weight", (d.M,)), ("bias", ())):
        apply(
            state,
            d,
            f"attention.query_key_value.{part}",
            lambda w, tail=tail: w.view(d.H, 3, d.D, *tail)[:, [0, 2, 1]].reshape(w.shape),
        )


@mutant("norms? .*exchanged", families=("gemma2", "gemma3_text"))
def norm_after_attention_for_norm_before_mlp(state, d):
    for n in range(d.L):
        names = ("post_attention_layernorm.weight", "pre_feedforward_layernorm.weight")
        swap(state, *(layer(n, d) + name for name in names))


@mutant("norms before attention and before the MLP are exchanged", families=("gemma", "llama", "gpt_neox"))
def input_norm_for_norm_before_mlp(state, d):
    for n in range(d.L):
        names = ("input_layernorm.weight", "post_attention_layernorm.weight")
        swap(state, *(layer(n, d) + name for name in names))


@mutant("norms of q and k are swapped", families=("gemma3_text",))
def q_norm_and_k_norm_swapped(state, d):
    for n in range(d.L):
        swap(state, layer(n, d) + "self_attn.q_norm.weight", layer(n, d) + "self_attn.k_norm.weight")


@mutant("layers are off by one")
def layers_off_by_one(state, d):
    moved_layers(state, lambda n: (n + 1) % d.L)


@mutant("sorted as strings")
def layers_sorted_as_strings(state, d):
    order = sorted(range(d.L), key=str)
    moved_layers(state, lambda n: order[n])


@mutant("opposite order")
def layers_reversed(state, d):
    moved_layers(state, lambda n: d.L - 1 - n)


@mutant("layers 3 and 7 are swapped")
def two_layers_swapped(state, d):
    moved_layers(state, lambda n: {3: 7, 7: 3}.get(n, n))


def moved_layers(state: State, of: Callable[[int], int]) -> None:
    old = dict(state)
    for name in old:
        found = re.match(r"(.*\.layers\.)(\d+)(\..*)", name)
        if found:
            state[name] = old[f"{found[1]}{of(int(found[2]))}{found[3]}"]


@mutant("experts are off by one", families=("mixtral",))
def experts_off_by_one(state, d):
    old = dict(state)
    for name in old:
        found = re.match(r"(.*experts\.)(\d+)(\..*)", name)
        if found:
            state[name] = old[f"{found[1]}{(int(found[2]) + 1) % d.E}{found[3]}"]


# --- elements in another order -----------------------------------------------------------------------------


@mutant("interleaved", families=GATED)
def gate_and_up_interleaved(state, d):
    for n in range(d.L):
        names = [layer(n, d) + f"mlp.{part}_proj.weight" for part in ("gate", "up")]
        fused = torch.stack([state[name] for name in names], 1).view(2 * d.F, d.M)
        state[names[0]], state[names[1]] = (half.clone() for half in fused.chunk(2))


@mutant("interleaved", families=GATED)
def gate_and_up_split_alternately(state, d):
    for n in range(d.L):
        names = [layer(n, d) + f"mlp.{part}_proj.weight" for part in ("gate", "up")]
        fused = torch.cat([state[name] for name in names])
        state[names[0]], state[names[1]] = fused[0::2].clone(), fused[1::2].clone()


@mutant("transposed", families=SPLIT)
def square_q_transposed(state, d):
    apply(state, d, "self_attn.q_proj.weight", lambda w: w.t())


@mutant("transposed", families=SPLIT)
def square_o_transposed(state, d):
    apply(state, d, "self_attn.o_proj.weight", lambda w: w.t())


@mutant("transposed", families=GATED)
def down_reshaped_and_not_transposed(state, d):
    apply(state, d, "mlp.down_proj.weight", lambda w: w.t().reshape(w.shape))


@mutant("transposed", families=GATED)
def gate_reshaped_and_not_transposed(state, d):
    apply(state, d, "mlp.gate_proj.weight", lambda w: w.t().reshape(w.shape))


@mutant("query heads are grouped", families=SPLIT)
def q_heads_regrouped(state, d):
    apply(
        state,
        d,
        "self_attn.q_proj.weight",
        lambda w: w.view(d.K, d.H // d.K, d.D, d.M).transpose(0, 1).reshape(w.shape),
    )


@mutant("RoPE rows are interleaved", families=SPLIT)
def rope_interleaved(state, d):
    for part in ("q", "k"):
        apply(state, d, f"self_attn.{part}_proj.weight", lambda w: interleave(w, d.D))


@mutant("RoPE rows are interleaved", families=SPLIT)
def rope_interleaved_back(state, d):
    for part in ("q", "k"):
        apply(
            state,
            d,
            f"self_attn.{part}_proj.weight",
            lambda w: w.view(-1, d.D // 2, 2, d.M).transpose(1, 2).reshape(w.shape),
        )


@mutant("layer 2: .*RoPE rows are interleaved", families=SPLIT)
def rope_interleaved_in_q_of_one_layer(state, d):
    apply(state, d, "self_attn.q_proj.weight", lambda w: interleave(w, d.D), [2])


def interleave(w: Tensor, head: int) -> Tensor:
    return w.view(-1, 2, head // 2, w.shape[1]).transpose(1, 2).reshape(w.shape)


@mutant("one kv head is repeated", families=SPLIT)
def kv_head_repeated(state, d):
    for part in ("k", "v"):
        apply(
            state,
            d,
            f"self_attn.{part}_proj.weight",
            lambda w: w.view(d.K, d.D, d.M)[:1].expand(d.K, d.D, d.M).reshape(w.shape),
        )


@mutant("rotated")
def vocabulary_rotated(state, d):
    name = "gpt_neox.embed_in.weight" if d.family == "gpt_neox" else "model.embed_tokens.weight"
    state[name] = state[name].roll(1, 0)


@mutant("have changed places|are in another order")
def vocabulary_rows_permuted(state, d):
    name = "gpt_neox.embed_in.weight" if d.family == "gpt_neox" else "model.embed_tokens.weight"
    state[name] = state[name][torch.randperm(d.V, generator=torch.Generator().manual_seed(1))]


# --- other values ------------------------------------------------------------------------------------------


@mutant(r"\+1 is folded in")
def norms_plus_one(state, d):
    for name in norms(state):
        state[name] = state[name] + 1


@mutant("1 is taken off")
def norms_minus_one(state, d):
    for name in norms(state):
        state[name] = state[name] - 1


@mutant(r"\(w \+ 1\) - 1 in bfloat16")
def norms_through_one_more(state, d):
    for name in norms(state):
        state[name] = ((state[name] + 1).bfloat16() - 1).float()


@mutant(r"scaled by sqrt\(d_model\)|multiplied by 7.7")
def embedding_scaled(state, d):
    name = "gpt_neox.embed_in.weight" if d.family == "gpt_neox" else "model.embed_tokens.weight"
    state[name] = state[name] * torch.tensor(d.M).sqrt()


@mutant(r"divided by sqrt\(d_model\)|multiplied by 0.129")
def embedding_unscaled(state, d):
    name = "gpt_neox.embed_in.weight" if d.family == "gpt_neox" else "model.embed_tokens.weight"
    state[name] = state[name] / torch.tensor(d.M).sqrt()


@mutant("rounded through bfloat16")
def rounded_through_bfloat16(state, d):
    every(state, lambda w: w.bfloat16().float())


@mutant("rounded through float16")
def rounded_through_float16(state, d):
    every(state, lambda w: w.half().float())


@mutant("cut off at bfloat16")
def cut_to_bfloat16(state, d):
    every(state, lambda w: (w.view(torch.int32) & -65536).view(torch.float32))


@mutant("multiplied by 0.5", families=SPLIT)
def o_halved(state, d):
    apply(state, d, "self_attn.o_proj.weight", lambda w: w * 0.5)


@mutant("1 value is another")
def one_value_changed(state, d):
    name = layer(5, d) + ("attention.dense" if d.family == "gpt_neox" else "self_attn.o_proj") + ".weight"
    state[name] = state[name].clone()
    state[name][7, 3] *= 1.01


@mutant("rank 2")
def lora_in_one_tensor(state, d):
    name = layer(6, d) + ("attention.dense" if d.family == "gpt_neox" else "self_attn.o_proj") + ".weight"
    draw = torch.Generator().manual_seed(5)
    w = state[name]
    delta = torch.randn(w.shape[0], 2, generator=draw) @ torch.randn(2, w.shape[1], generator=draw)
    state[name] = w + 0.01 * delta


@mutant("another model")
def one_tensor_of_another_checkpoint(state, d):
    name = layer(6, d) + ("attention.dense" if d.family == "gpt_neox" else "self_attn.o_proj") + ".weight"
    state[name] = torch.randn(state[name].shape, generator=torch.Generator().manual_seed(9)) / 8


@mutant("zeros")
def a_tensor_of_zeros(state, d):
    name = layer(1, d) + ("attention.dense" if d.family == "gpt_neox" else "self_attn.o_proj") + ".weight"
    state[name] = torch.zeros_like(state[name])


@mutant("zeros")
def last_vocabulary_rows_zero(state, d):
    name = "gpt_neox.embed_in.weight" if d.family == "gpt_neox" else "model.embed_tokens.weight"
    state[name] = state[name].clone()
    state[name][-3:] = 0


# --- two at once -------------------------------------------------------------------------------------------


@mutant(
    "gate and up are swapped.*rounded through bfloat16|rounded through bfloat16.*gate and up", families=GATED
)
def gate_and_up_swapped_and_rounded(state, d):
    gate_and_up_swapped(state, d)
    rounded_through_bfloat16(state, d)


@mutant(r"off by one.*\+1 is folded in|\+1 is folded in.*off by one")
def layers_off_by_one_and_norms_plus_one(state, d):
    layers_off_by_one(state, d)
    norms_plus_one(state, d)


@mutant("k and v.*RoPE|RoPE.*k and v", families=SPLIT)
def k_and_v_swapped_and_rope_on_q(state, d):
    k_and_v_swapped(state, d)
    apply(state, d, "self_attn.q_proj.weight", lambda w: interleave(w, d.D))


@mutant("query heads.*RoPE|RoPE.*query heads", families=SPLIT)
def q_heads_regrouped_and_rope(state, d):
    q_heads_regrouped(state, d)
    apply(state, d, "self_attn.q_proj.weight", lambda w: interleave(w, d.D))


# --- by another hand, after the search was written: what nobody had thought of ------------------------------


def embedding(d: Dims) -> str:
    return "gpt_neox.embed_in.weight" if d.family == "gpt_neox" else "model.embed_tokens.weight"


@mutant("rows of each head have changed places", families=("gpt_neox",))
def rope_of_the_rotated_part_interleaved(state, d):
    turned = int(d.D * 0.4)

    def change(w: Tensor) -> Tensor:
        w = w.clone().view(d.H, 3, d.D, -1)
        for part in (0, 1):
            rows = w[:, part, :turned].clone()
            w[:, part, :turned] = rows.view(d.H, 2, turned // 2, -1).transpose(1, 2).reshape(rows.shape)
        return w.view(3 * d.H * d.D, -1)

    apply(state, d, "attention.query_key_value.weight", change)


@mutant("not grouped by kv head|holds rows of", families=("gpt_neox",))
def bias_not_grouped(state, d):
    apply(
        state,
        d,
        "attention.query_key_value.bias",
        lambda w: w.view(d.H, 3, d.D).transpose(0, 1).reshape(-1),
    )


@mutant("experts have changed places: rotated", families=("mixtral",))
def router_off_by_one(state, d):
    apply(state, d, "block_sparse_moe.gate.weight", lambda w: w.roll(1, 0))


@mutant("expert 3 holds what belongs to expert 2", families=("mixtral",))
def expert_repeated(state, d):
    for n in range(d.L):
        for part in ("w1", "w2", "w3"):
            stem = layer(n, d) + "block_sparse_moe.experts."
            state[f"{stem}3.{part}.weight"] = state[f"{stem}2.{part}.weight"]


@mutant("transposed", families=("mixtral",))
def expert_w2_reshaped(state, d):
    for n in range(d.L):
        for e in range(d.E):
            name = f"{layer(n, d)}block_sparse_moe.experts.{e}.w2.weight"
            state[name] = state[name].t().reshape(state[name].shape).contiguous()


@mutant("layers 1, 3, 5, .*k and v are swapped", families=SPLIT)
def k_and_v_swapped_in_every_other_layer(state, d):
    for n in range(1, d.L, 2):
        swap(state, layer(n, d) + "self_attn.k_proj.weight", layer(n, d) + "self_attn.v_proj.weight")


@mutant("the embedding holds the head", families=("llama",))
def embedding_and_head_swapped(state, d):
    swap(state, "model.embed_tokens.weight", "lm_head.weight")


@mutant("holds input_layernorm", families=SPLIT)
def last_norm_of_the_last_layer(state, d):
    state["model.norm.weight"] = state[layer(d.L - 1, d) + "input_layernorm.weight"]


@mutant(r"layers 1, 3, 5, .*\+1 is folded in", families=SPLIT)
def norms_plus_one_in_every_other_layer(state, d):
    for name in norms(state):
        found = re.search(r"layers\.(\d+)\.", name)
        if found and int(found[1]) % 2:
            state[name] = state[name] + 1


@mutant("rows of each head have changed places: rotated", families=SPLIT)
def halves_of_heads_swapped(state, d):
    for part in ("q", "k"):
        apply(
            state,
            d,
            f"self_attn.{part}_proj.weight",
            lambda w: w.view(-1, 2, d.D // 2, d.M).flip(1).reshape(w.shape),
        )


@mutant("kv heads have changed places", families=SPLIT)
def kv_heads_in_the_opposite_order(state, d):
    for part in ("k", "v"):
        apply(
            state,
            d,
            f"self_attn.{part}_proj.weight",
            lambda w: w.view(d.K, d.D, d.M).flip(0).reshape(w.shape),
        )


@mutant("query heads have changed places", families=SPLIT)
def query_heads_in_the_opposite_order(state, d):
    apply(state, d, "self_attn.q_proj.weight", lambda w: w.view(d.H, d.D, d.M).flip(0).reshape(w.shape))


@mutant("rows have changed places|transposed", families=SPLIT)
def heads_and_dims_of_o_exchanged(state, d):
    apply(
        state,
        d,
        "self_attn.o_proj.weight",
        lambda w: w.view(d.M, d.H, d.D).transpose(1, 2).reshape(w.shape),
    )


@mutant("holds rows of gate and up", families=GATED)
def halves_of_a_split_model_joined_wrong(state, d):
    for n in range(d.L):
        names = [layer(n, d) + f"mlp.{part}_proj.weight" for part in ("gate", "up")]
        (a, b), half = (state[name] for name in names), d.F // 2
        state[names[0]], state[names[1]] = torch.cat([a[:half], b[:half]]), torch.cat([a[half:], b[half:]])


@mutant("(columns|rows) have changed places: rotated", families=GATED)
def halves_of_down_joined_in_the_other_order(state, d):
    apply(state, d, "mlp.down_proj.weight", lambda w: w.roll(d.F // 2, 1))


@mutant("rounded otherwise")
def through_int8_and_back(state, d):
    for name in state:
        if state[name].dim() == 2:
            factor = state[name].abs().amax(1, keepdim=True) / 127
            state[name] = (state[name] / factor).round() * factor


@mutant("big-endian")
def big_endian(state, d):
    every(state, lambda w: torch.from_numpy(w.numpy().byteswap()))


@mutant("columns have changed places")
def embedding_flipped(state, d):
    state[embedding(d)] = state[embedding(d)].flip(1)


@mutant("average with layer 6's", families=SPLIT)
def layer_merged_of_two(state, d):
    for name in list(state):
        if ".layers.5." in name:
            state[name] = (state[name] + state[name.replace(".5.", ".6.")]) / 2


@mutant("rotated by -1; .* values differ besides")
def vocabulary_behind_a_new_row(state, d):
    w = state[embedding(d)]
    state[embedding(d)] = torch.cat([w.mean(0, keepdim=True), w[:-1]])


@mutant("layers are in another order: 4 holds 5")
def a_layer_dropped_and_the_last_twice(state, d):
    moved_layers(state, lambda n: n if n < 4 else min(n + 1, d.L - 1))


@mutant("another model's")
def attention_of_another_model(state, d):
    draw = torch.Generator().manual_seed(3)
    for name in state:
        if "attn" in name or "attention" in name:
            state[name] = torch.randn(state[name].shape, generator=draw) / 8


# --- in the stored tensors of one dialect ------------------------------------------------------------------


def stored(state: State, ending: str) -> list[str]:
    return [name for name in state if name.endswith(ending)]


@mutant("grouped by kv head", dialect="litgpt", families=SPLIT)
def litgpt_qkv_interleaved(state, d):
    for name in stored(state, "attn.qkv.weight"):
        q, k, v = state[name].split([d.H * d.D, d.K * d.D, d.K * d.D])
        parts = (q.view(d.K, -1, d.D, d.M), k.view(d.K, 1, d.D, d.M), v.view(d.K, 1, d.D, d.M))
        state[name] = torch.cat(parts, 1).reshape(-1, d.M).contiguous()


@mutant("grouped by kv head", dialect="litgpt", families=("gpt_neox",))
def litgpt_qkv_left_interleaved(state, d):
    for name in stored(state, "attn.qkv.weight") + stored(state, "attn.qkv.bias"):
        tail = state[name].shape[1:]
        q, k, v = (part.view(d.H, 1, d.D, *tail) for part in state[name].chunk(3))
        state[name] = torch.cat((q, k, v), 1).reshape(-1, *tail).contiguous()


@mutant("order k, q, v", dialect="litgpt")
def litgpt_qkv_in_another_order(state, d):
    for name in stored(state, "attn.qkv.weight"):
        q, k, v = state[name].split([d.H * d.D, d.K * d.D, d.K * d.D])
        state[name] = torch.cat((k, q, v)).contiguous()


@mutant("transposed", dialect="litgpt", families=SPLIT)
def litgpt_proj_transposed(state, d):
    for name in stored(state, "attn.proj.weight"):
        state[name] = state[name].t().contiguous()


@mutant("not the embed that it is tied to", dialect="litgpt", families=("gemma", "gemma2", "gemma3_text"))
def litgpt_stale_head(state, d):
    draw = torch.Generator().manual_seed(7)
    state["lm_head.weight"] = state["lm_head.weight"] + 0.01 * torch.randn(d.V, d.M, generator=draw)


@mutant("rows? (are|is) missing", dialect="litgpt")
def litgpt_vocabulary_cut(state, d):
    for name in ("transformer.wte.weight", "lm_head.weight"):
        state[name] = state[name][:-2].contiguous()


@mutant("transposed", dialect="hf", families=GATED)
def hf_down_stored_transposed(state, d):
    for name in stored(state, "mlp.down_proj.weight"):
        state[name] = state[name].t().contiguous()


@mutant("follow one another", dialect="hf", families=("gpt_neox",))
def hf_qkv_not_grouped(state, d):
    for name in stored(state, "query_key_value.weight"):
        w = state[name].view(d.H, 3, d.D, d.M)
        state[name] = w.transpose(0, 1).reshape(state[name].shape).contiguous()


@mutant("reshaped and not transposed|transposed", dialect="keras")
def keras_query_only_reshaped(state, d):
    for name in stored(state, "attention/query/kernel") + stored(state, "attention/query_dense/vars/0"):
        w = state[name]
        state[name] = w.transpose(1, 2).reshape(w.shape).contiguous()


@mutant("transposed", dialect="keras")
def keras_gate_only_reshaped(state, d):
    for name in stored(state, "gating_ffw/vars/0"):
        state[name] = state[name].t().reshape(state[name].shape).contiguous()


def mutants(family: str, dialect: str) -> list[Mutant]:
    return [m for m in MUTANTS if family in m.families and m.dialect in (None, dialect)]


# --- configs -----------------------------------------------------------------------------------------------

# By dialect: families, the field, another value for it, and the words that name it.
CONFIGS: dict[str, list[tuple[tuple[str, ...], str, Any, str]]] = {
    "hf": [
        (("gemma2", "gemma3_text"), "hidden_activation", "gelu", "exact GELU"),
        (("llama", "mixtral"), "hidden_act", "gelu", "another activation"),
        (("gpt_neox",), "hidden_act", "gelu_new", "tanh GELU"),
        (SPLIT, "rms_norm_eps", 1e-4, "epsilon"),
        (("gpt_neox",), "layer_norm_eps", 1e-4, "epsilon"),
        (SPLIT, "rope_theta", 500000.0, "RoPE base"),
        (("gpt_neox",), "rotary_pct", 1.0, "part of each head"),
        (("gemma3_text",), "rope_local_base_freq", 20000.0, "RoPE base in sliding"),
        (("llama",), "rope_scaling", {"rope_type": "linear", "factor": 2.0}, "scaling of RoPE"),
        (("gemma2",), "attn_logit_softcapping", 20.0, "soft-cap of attention"),
        (("gemma2",), "final_logit_softcapping", None, "soft-cap of the logits"),
        (("gemma2", "gemma3_text"), "query_pre_attn_scalar", 20, "scale of queries"),
        (("gemma2", "gemma3_text"), "sliding_window", 32, "sliding window"),
        (("gemma2", "gemma3_text"), "layer_types", ["full_attention"] + ["sliding_attention"] * 11, "window"),
        (("llama", "mixtral"), "tie_word_embeddings", True, "tied"),
        (SPLIT, "eos_token_id", 7, "ends a text"),
        (SPLIT, "vocab_size", 98, "vocabulary size"),
        (("gpt_neox",), "use_parallel_residual", False, "added in another way"),
    ],
    "litgpt": [
        (("gemma", "gemma2", "gemma3_text"), "name", "tiny", r"\+1 is lost"),
        (("llama",), "name", "Gemma-tiny", r"\+1 that they should not"),
        (("gemma", "gemma2", "gemma3_text"), "gelu_approximate", "none", "exact GELU"),
        (("gemma", "gemma2", "gemma3_text"), "scale_embeddings", False, "not scaled"),
        (tuple(FAMILIES), "norm_eps", 1e-4, "epsilon"),
        (tuple(FAMILIES), "rope_base", 12345, "RoPE base"),
        (("gemma3_text",), "rope_local_base_freq", 12345, "RoPE base in sliding"),
        (("gemma2",), "attention_logit_softcapping", 20.0, "soft-cap of attention"),
        (("gemma2",), "final_logit_softcapping", None, "soft-cap of the logits"),
        (("gemma2", "gemma3_text"), "attention_scores_scalar", 20, "scale of queries"),
        (("gemma2", "gemma3_text"), "sliding_window_size", 32, "sliding window"),
        (("gemma2", "gemma3_text"), "sliding_window_indices", [1] * 12, "window"),
        (tuple(FAMILIES), "rotary_percentage", 0.5, "part of each head"),
        (SPLIT, "parallel_residual", True, "added in another way"),
        (tuple(FAMILIES), "padded_vocab_size", 128, "vocabulary size"),
    ],
    "keras": [
        (("gemma2",), "config.attention_logit_soft_cap", 20.0, "soft-cap of attention"),
        (("gemma2", "gemma3_text"), "config.sliding_window_size", 32, "sliding window"),
        (("gemma", "gemma2", "gemma3_text"), "config.vocabulary_size", 98, "vocabulary size"),
        (("gemma", "gemma2", "gemma3_text"), "config.num_query_heads", 3, "number of heads"),
    ],
}


# --- running -----------------------------------------------------------------------------------------------


@dataclass
class Bed:
    """A family's original and its sound ports, in a directory."""

    root: Path
    family: str
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.config = FAMILIES[self.family]
        self.root.mkdir(parents=True)
        self.original = self.store(self.root / "original", weights(self.config))
        self.ports = {dialect: self.port(dialect) for dialect in DIALECTS[self.family]}

    def store(self, folder: Path, state: State) -> Path:
        from safetensors.torch import save_file

        folder.mkdir()
        tensors = {name: value.contiguous().clone() for name, value in state.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
        return folder

    def port(self, dialect: str) -> Path:
        out = self.root / f"sound-{dialect}"
        porter.convert(self.original, out, to=dialect)
        return out

    def wrong(self, mutant: Mutant, dialect: str) -> Path:
        out = self.root / "wrong"
        shutil.rmtree(out, ignore_errors=True)
        if mutant.dialect is None:
            source = self.root / "mutated"
            shutil.rmtree(source, ignore_errors=True)
            state = weights(self.config)
            mutant.change(state, dims(self.config))
            self.store(source, state)
            porter.convert(source, out, to=dialect)
        else:
            shutil.copytree(self.ports[dialect], out)
            change_stored(out, lambda state: mutant.change(state, dims(self.config)))
        return out

    def with_config(self, dialect: str, path: str, value: Any) -> Path:
        import yaml

        out = self.root / "wrong"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.ports[dialect], out)
        file = out / ("model_config.yaml" if dialect == "litgpt" else "config.json")
        text = file.read_text(encoding="utf-8")
        # YAML takes 1e-06 for a text.
        config = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        *above, name = path.split(".")
        inner = config
        for key in above:
            inner = inner[key]
        inner[name] = value
        text = yaml.safe_dump(config) if dialect == "litgpt" else json.dumps(config)
        file.write_text(text, encoding="utf-8")
        return out


def change_stored(folder: Path, change: Callable[[State], None]) -> None:
    """Changes the tensors of a directory, in whatever it is stored."""
    from safetensors.torch import load_file, save_file

    if (folder / "model.weights.h5").exists():
        import h5py

        with h5py.File(folder / "model.weights.h5", "r+") as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
            state = {name: torch.from_numpy(file[name][()]) for name in names}
            before = dict(state)
            change(state)
            for name, value in state.items():
                if value is not before[name]:
                    file[name][...] = value.numpy()
        return
    (path,) = folder.glob("*.safetensors")
    state = load_file(path)
    change(state)
    save_file({name: value.clone() for name, value in state.items()}, path, metadata={"format": "pt"})


@dataclass(frozen=True)
class Outcome:
    family: str
    dialect: str
    name: str
    found: bool
    named: bool
    said: str


def try_weights(bed: Bed, some: Callable[[int], bool] = lambda number: True) -> Iterator[Outcome]:
    number = 0
    for dialect in bed.ports:
        for one in mutants(bed.family, dialect):
            number += 1
            if some(number):
                verdict = porter.verify(bed.original, bed.wrong(one, dialect))
                yield outcome(bed, dialect, one.name, one.says, verdict)


def try_configs(bed: Bed, some: Callable[[int], bool] = lambda number: True) -> Iterator[Outcome]:
    number = 0
    for dialect in bed.ports:
        for families, path, value, says in CONFIGS[dialect]:
            number += bed.family in families
            if bed.family in families and some(number):
                verdict = porter.verify(bed.original, bed.with_config(dialect, path, value))
                yield outcome(bed, dialect, f"config: {path}", says, verdict)


def outcome(bed: Bed, dialect: str, name: str, says: str, verdict: Any) -> Outcome:
    said = "; ".join(mistake.says for mistake in verdict.mistakes)
    named = re.search(says, said) is not None
    return Outcome(bed.family, dialect, name, verdict.outcome == "differs", named, said or verdict.says)


def false_alarms(bed: Bed) -> list[str]:
    """Sound ports, of the original and of each other, that are called wrong."""
    every = {"original": bed.original, **bed.ports}
    return [
        f"{bed.family}: {one} against {other}: {verdict.says}"
        for one, source in every.items()
        for other, out in every.items()
        if not (verdict := porter.verify(source, out)).right
    ]


def main() -> int:
    begun = time.monotonic()
    outcomes: list[Outcome] = []
    alarms: list[str] = []
    sound = 0
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            bed = Bed(Path(folder) / family, family)
            outcomes += [*try_weights(bed), *try_configs(bed)]
            alarms += false_alarms(bed)
            sound += (len(bed.ports) + 1) ** 2
            print(f"{family}: {sum(o.family == family for o in outcomes)} mutants", flush=True)
    for one in outcomes:
        if not (one.found and one.named):
            what = "not found" if not one.found else "not named"
            print(f"{what}: {one.family} {one.dialect}, {one.name}: {one.said}", file=sys.stderr)
    for alarm in alarms:
        print(f"false alarm: {alarm}", file=sys.stderr)
    print(f"{len(outcomes)} mutants, {sound} sound ports, {time.monotonic() - begun:.0f} s")
    if "--write" in sys.argv:
        write_table(outcomes, len(alarms), sound)
    return int(bool(alarms) or not all(one.found for one in outcomes))


def write_between(what: str, lines: list[str]) -> None:
    """Puts lines into docs/verify.md, where marks say that `what` is."""
    path = Path(__file__).resolve().parents[2] / "docs" / "verify.md"
    begin, end = f"<!-- {what}: written by `make mutants` -->", f"<!-- end of {what} -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    path.write_text(before + "\n".join([begin, "", *lines, "", end]) + after, encoding="utf-8")


def write_table(outcomes: list[Outcome], alarms: int, sound: int) -> None:
    rows = ["| family | in | mutants | found | named |", "| --- | --- | ---: | ---: | ---: |"]
    count: dict[tuple[str, str], Counter[str]] = {}
    for one in outcomes:
        tally = count.setdefault((one.family, one.dialect), Counter())
        tally.update(made=1, found=one.found, named=one.named)
    total: Counter[str] = Counter()
    for (family, dialect), tally in count.items():
        total.update(tally)
        rows.append(f"| {family} | {dialect} | {tally['made']} | {tally['found']} | {tally['named']} |")
    rows.append(f"| all | | {total['made']} | {total['found']} | {total['named']} |")
    missed = sorted({f"{o.name} ({o.dialect})" for o in outcomes if not o.named})
    lines = [*rows, "", f"Sound ports called wrong: {alarms} of {sound}."]
    if missed:
        lines += ["", f"Found and not named: {', '.join(missed)}."]
    write_between("mutants", lines)


if __name__ == "__main__":
    sys.exit(main())
