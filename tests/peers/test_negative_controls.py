"""What the proof cannot see, the logits must: tables that are wrong and still fit.

Each table below is the shipped one with one mistake, in a model whose sizes hide it: the conversion succeeds
and the stock LitGPT accepts the result. Were the logits the same then, the parity tests would prove nothing.
"""

from __future__ import annotations

import pytest

import porter

pytestmark = pytest.mark.peer

# What the parity tests allow, and 50,000 times that: the least of the mistakes below changes logits by 0.48.
BOUND = 2e-6
WIDE = 0.1

QKV = ("transformer.h.{layer}.attn.qkv.weight", ("{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"))
RIGHT = "(n_kv_head q_per_kv head_dim | n_kv_head head_dim | n_kv_head head_dim) d_model"
QVK = ("{layer}.attn.q", "{layer}.attn.v", "{layer}.attn.k")
PROJ = ("transformer.h.{layer}.attn.proj.weight", ("{layer}.attn.o",))

# The mistake, and the rules that make it: stored name, canonical tensors, layout.
ANY = {
    "k and v swapped": [(QKV[0], QVK, RIGHT)],
    "interleaved like LitGPT before 0.5.5": [(*QKV, "(n_kv_head (q_per_kv | 1 | 1) head_dim) d_model")],
    "o in q's order": [(*PROJ, "(n_kv_head q_per_kv head_dim) d_model")],
    "o with head_dim outermost": [(*PROJ, "d_model (head_dim n_kv_head q_per_kv)")],
    "the two norms swapped": [
        ("transformer.h.{layer}.norm_1.weight", ("{layer}.mlp.norm",), "d_model"),
        ("transformer.h.{layer}.norm_2.weight", ("{layer}.attn.norm",), "d_model"),
    ],
}
GROUPED = ANY | {
    "q's head axes swapped": [
        (*QKV, "(q_per_kv n_kv_head head_dim | n_kv_head head_dim | n_kv_head head_dim) d_model")
    ],
    "o's head axes swapped": [(*PROJ, "d_model (q_per_kv n_kv_head head_dim)")],
    "gate and up swapped": [
        ("transformer.h.{layer}.mlp.fc_1.weight", ("{layer}.mlp.up",), "d_ff d_model"),
        ("transformer.h.{layer}.mlp.fc_2.weight", ("{layer}.mlp.gate",), "d_ff d_model"),
    ],
    "gate transposed": [("transformer.h.{layer}.mlp.fc_1.weight", ("{layer}.mlp.gate",), "d_model d_ff")],
    "down transposed": [("transformer.h.{layer}.mlp.proj.weight", ("{layer}.mlp.down",), "d_ff d_model")],
}
FOUR_NORMS = GROUPED | {
    "Gemma 1's meaning of post_attention_layernorm": [
        ("transformer.h.{layer}.norm_2.weight", ("{layer}.attn.post_norm",), "d_model"),
        ("transformer.h.{layer}.post_attention_norm.weight", ("{layer}.mlp.norm",), "d_model"),
    ],
    "the two norms behind swapped": [
        ("transformer.h.{layer}.post_attention_norm.weight", ("{layer}.mlp.post_norm",), "d_model"),
        ("transformer.h.{layer}.post_mlp_norm.weight", ("{layer}.attn.post_norm",), "d_model"),
    ],
}
QK_NORMS = FOUR_NORMS | {
    "the norms of q and k swapped": [
        ("transformer.h.{layer}.attn.norm_q.weight", ("{layer}.attn.k_norm",), "head_dim"),
        ("transformer.h.{layer}.attn.norm_k.weight", ("{layer}.attn.q_norm",), "head_dim"),
    ],
}
BIASED = ANY | {
    "the bias alone interleaved": [
        (
            "transformer.h.{layer}.attn.qkv.bias",
            ("{layer}.attn.q_bias", "{layer}.attn.k_bias", "{layer}.attn.v_bias"),
            "(n_kv_head (q_per_kv | 1 | 1) head_dim)",
        )
    ],
    "the norms' biases swapped": [
        ("transformer.h.{layer}.norm_1.bias", ("{layer}.mlp.norm_bias",), "d_model"),
        ("transformer.h.{layer}.norm_2.bias", ("{layer}.attn.norm_bias",), "d_model"),
    ],
}
CONTROLS = {
    "gemma-equal": ("gemma", GROUPED),
    "gemma2-equal": ("gemma2", FOUR_NORMS),
    "gemma3-equal": ("gemma3_text", QK_NORMS),
    "llama-equal": ("llama", GROUPED),
    # heads * head_dim is hidden_size in every GPT-NeoX.
    "gpt-neox": ("gpt_neox", BIASED),
}


def table(family: str, rules: list[tuple[str, tuple[str, ...], str]]) -> str:
    text = f'extends = "{family}/litgpt"\nfamily  = "{family}"\ndialect = "litgpt"\n'
    for theirs, ours, layout in rules:
        names = ", ".join(f'"{name}"' for name in ours)
        text += f'\n[[rule]]\ntheirs = "{theirs}"\nours   = [{names}]\nlayout = "{layout}"\n'
    return text


@pytest.mark.parametrize(
    ("name", "mistake"), [(name, mistake) for name, (_, mistakes) in CONTROLS.items() for mistake in mistakes]
)
def test_a_mistake_that_fits_shows_in_the_logits(models, difference, tmp_path, name, mistake):
    family, mistakes = CONTROLS[name]
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(table(family, mistakes[mistake]))
    source = models.path(name)
    porter.convert(source, tmp_path / "out", to="litgpt", maps=[wrong], target_model="litgpt")
    assert difference(models.litgpt(tmp_path / "out"), models.hf(source)) > WIDE


@pytest.mark.parametrize("name", CONTROLS)
def test_the_same_table_without_a_mistake_does_not(models, difference, tmp_path, name):
    family, _ = CONTROLS[name]
    right = tmp_path / "right.toml"
    # The first rule of the shipped table, written out again.
    right.write_text(table(family, [(*QKV, RIGHT)]))
    source = models.path(name)
    porter.convert(source, tmp_path / "out", to="litgpt", maps=[right], target_model="litgpt")
    assert difference(models.litgpt(tmp_path / "out"), models.hf(source)) <= BOUND
