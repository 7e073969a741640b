"""Mistakes that fit: every shape is right, and the logits must show it.

Each is a copy of a shipped table with a rule or two written wrongly, for a model in which as many sizes as
possible are equal. The same copy without the mistake passes the same check.
"""

from __future__ import annotations

import pytest

import porter

pytestmark = pytest.mark.peer

BOUND = 2e-6
# A thousand times what rounding can do.
WIDE = 2e-3

FAMILIES = {"gemma-equal": "gemma", "gemma2-equal": "gemma2", "gemma3-equal": "gemma3_text"}
Q, K, V = "{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"
GATE, UP, DOWN, OUT = "{layer}.mlp.gate", "{layer}.mlp.up", "{layer}.mlp.down", "{layer}.attn.o"
FEW = 'when = "n_kv_head != n_head"\n'

TORCH_QKV = "model.layers.{layer}.self_attn.qkv_proj.weight"
TORCH_MLP = "model.layers.{layer}.mlp.%s_proj.weight"
JAX = "transformer/layer_{layer}/%s"
LEGACY = "transformer.h.{layer}.%s.weight"
SPLIT = "(n_kv_head q_per_kv head_dim | n_kv_head head_dim | n_kv_head head_dim) d_model"
MIXED = "(n_kv_head (q_per_kv | 1 | 1) head_dim) d_model"


def gating(right: str, wrong: str) -> dict[str, list[tuple[str, list[str], str, str]]]:
    name = JAX % "mlp/gating_einsum/w"
    return {
        "gate and up swapped": [(name, [UP, GATE], right, "")],
        "gate and up transposed": [(name, [GATE, UP], wrong, "")],
    }


PYTORCH = {
    "k and v swapped": [(TORCH_QKV, [Q, V, K], SPLIT, "")],
    "query heads in the other order": [
        (TORCH_QKV, [Q, K, V], SPLIT.replace("n_kv_head q_per_kv", "q_per_kv n_kv_head", 1), "")
    ],
    "head_dim outside of the heads": [
        (TORCH_QKV, [Q, K, V], SPLIT.replace("| n_kv_head head_dim |", "| head_dim n_kv_head |"), "")
    ],
    "interleaved": [(TORCH_QKV, [Q, K, V], MIXED, "")],
    "o transposed": [
        ("model.layers.{layer}.self_attn.o_proj.weight", [OUT], "(n_kv_head q_per_kv head_dim) d_model", "")
    ],
    "gate and up swapped": [
        (TORCH_MLP % "gate", [UP], "d_ff d_model", ""),
        (TORCH_MLP % "up", [GATE], "d_ff d_model", ""),
    ],
    "down transposed": [(TORCH_MLP % "down", [DOWN], "d_ff d_model", "")],
}
FLAX = {
    "k and v swapped": [
        (JAX % "attn/kv_einsum/w", [V, K], "(1 | 1) n_kv_head d_model head_dim", FEW),
    ],
    "query heads in the other order": [
        (JAX % "attn/q_einsum/w", [Q], "(q_per_kv n_kv_head) d_model head_dim", FEW)
    ],
    "o's heads in the other order": [
        (JAX % "attn/attn_vec_einsum/w", [OUT], "(q_per_kv n_kv_head) head_dim d_model", "")
    ],
    "linear transposed": [(JAX % "mlp/linear/w", [DOWN], "d_model d_ff", "")],
}
RIGHT_ORDER, TURNED = "(1 | 1) d_model d_ff", "(1 | 1) d_ff d_model"
OLD = {
    "k and v swapped": [(LEGACY % "attn.attn", [Q, V, K], MIXED, "")],
    "not interleaved": [(LEGACY % "attn.attn", [Q, K, V], SPLIT, "")],
    "gate and up swapped": [
        (LEGACY % "mlp.fc_1", [UP], "d_ff d_model", ""),
        (LEGACY % "mlp.fc_2", [GATE], "d_ff d_model", ""),
    ],
    "o transposed": [(LEGACY % "attn.proj", [OUT], "(n_kv_head q_per_kv head_dim) d_model", "")],
}
MISTAKES = {
    ("gemma-equal", "gemma_pytorch"): PYTORCH,
    ("gemma2-equal", "gemma_pytorch"): PYTORCH,
    ("gemma3-equal", "gemma_pytorch"): PYTORCH,
    ("gemma-equal", "flax"): FLAX | gating(RIGHT_ORDER, TURNED),
    ("gemma2-equal", "flax"): FLAX | gating(RIGHT_ORDER, TURNED),
    ("gemma2-equal", "flax-transposed"): gating(TURNED, RIGHT_ORDER),
    ("gemma3-equal", "flax"): FLAX | gating(TURNED, RIGHT_ORDER),
    ("gemma-equal", "litgpt-legacy"): OLD,
    ("gemma2-equal", "litgpt-legacy"): OLD,
}
NORMS = {
    "gemma_pytorch": ("model.layers.{layer}.%s.weight", "input_layernorm", "pre_feedforward_layernorm"),
    "flax": (JAX % "%s/scale", "pre_attention_norm", "pre_ffw_norm"),
}
for (name, dialect), mistakes in list(MISTAKES.items()):
    if dialect in NORMS:
        pattern, before, between = NORMS[dialect]
        if name == "gemma-equal" and dialect == "gemma_pytorch":
            between = "post_attention_layernorm"
        MISTAKES[name, dialect] = mistakes | {
            "norms swapped": [
                (pattern.replace("%s", before), ["{layer}.mlp.norm"], "d_model", ""),
                (pattern.replace("%s", between), ["{layer}.attn.norm"], "d_model", ""),
            ]
        }


def table(family: str, dialect: str, rules: list[tuple[str, list[str], str, str]]) -> str:
    text = f'extends = "{family}/{dialect}"\nfamily  = "{family}"\ndialect = "{dialect}"\n'
    for theirs, ours, layout, when in rules:
        names = ", ".join(f'"{name}"' for name in ours)
        text += f'\n[[rule]]\ntheirs = "{theirs}"\nours   = [{names}]\nlayout = "{layout}"\n{when}'
    return text


@pytest.mark.parametrize(("name", "dialect"), MISTAKES)
def test_mistakes_that_fit_show_in_the_logits(gemmas, configs, oracle, difference, tmp_path, name, dialect):
    source, wrong = gemmas.path(name), tmp_path / "wrong.toml"
    found = {}
    for number, (mistake, rules) in enumerate(MISTAKES[name, dialect].items()):
        wrong.write_text(table(FAMILIES[name], dialect, rules))
        out = tmp_path / f"{number}"
        porter.convert(source, out, to=dialect, maps=[wrong])
        found[mistake] = difference(oracle(dialect, out, configs[name]), gemmas.logits(source))
    assert {mistake: size for mistake, size in found.items() if not size > WIDE} == {}


@pytest.mark.parametrize(("name", "dialect"), MISTAKES)
def test_the_same_table_without_a_mistake_does_not(
    gemmas, configs, oracle, difference, tmp_path, name, dialect
):
    right = tmp_path / "right.toml"
    right.write_text(table(FAMILIES[name], dialect, []))
    source = gemmas.path(name)
    porter.convert(source, tmp_path / "out", to=dialect, maps=[right])
    assert difference(oracle(dialect, tmp_path / "out", configs[name]), gemmas.logits(source)) <= BOUND
