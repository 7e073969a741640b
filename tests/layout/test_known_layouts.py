"""The layouts that real frameworks use, each against NumPy code as a person would write it by hand."""

import numpy as np
import pytest

from porter.layout import bind, parse_layout

# Kv heads, queries per kv head, head_dim, d_model: all different, in the three forms that attention takes.
HEADS = {"MHA": (5, 1), "GQA": (3, 2), "MQA": (1, 7)}


def attention(form):
    kv, per_kv = HEADS[form]
    return {"n_kv_head": kv, "q_per_kv": per_kv, "head_dim": 4, "d_model": 11}


QKV = [
    "n_kv_head q_per_kv head_dim d_model",
    "n_kv_head head_dim d_model",
    "n_kv_head head_dim d_model",
]
BIASES = [axes.removesuffix(" d_model") for axes in QKV]
FUSED = "(n_kv_head q_per_kv head_dim | n_kv_head head_dim | n_kv_head head_dim)"
INTERLEAVED = "(n_kv_head (q_per_kv | 1 | 1) head_dim)"


@pytest.mark.parametrize("form", HEADS)
def test_fused_qkv_all_q_then_all_k_then_all_v(form, numbered, holds):
    sizes = attention(form)
    q, k, v = numbered(sizes, *QKV)
    stored = np.concatenate([q.reshape(-1, 11), k.reshape(-1, 11), v.reshape(-1, 11)])
    assert holds(f"{FUSED} d_model", sizes, list(zip(QKV, [q, k, v], strict=True)), stored)


@pytest.mark.parametrize("form", HEADS)
def test_fused_qkv_bias(form, numbered, holds):
    sizes = attention(form)
    biases = numbered(sizes, *BIASES)
    stored = np.concatenate([bias.reshape(-1) for bias in biases])
    assert holds(FUSED, sizes, list(zip(BIASES, biases, strict=True)), stored)


@pytest.mark.parametrize("form", HEADS)
def test_interleaved_qkv_group_by_group(form, numbered, holds):
    """A group's queries, its key, its value, then the next group's: GPT-NeoX, Falcon, LitGPT before 0.5.5."""
    sizes = attention(form)
    q, k, v = numbered(sizes, *QKV)
    rows = []
    for group in range(sizes["n_kv_head"]):
        rows += [q[group, head] for head in range(sizes["q_per_kv"])]
        rows += [k[group], v[group]]
    stored = np.concatenate(rows)
    weights = list(zip(QKV, [q, k, v], strict=True))
    assert holds(f"{INTERLEAVED} d_model", sizes, weights, stored)
    # Negative control: only with one kv head are the two orders the same.
    assert holds(f"{FUSED} d_model", sizes, weights, stored) == (form == "MQA")


@pytest.mark.parametrize("form", HEADS)
def test_interleaved_qkv_bias(form, numbered, holds):
    sizes = attention(form)
    q, k, v = numbered(sizes, *BIASES)
    rows = []
    for group in range(sizes["n_kv_head"]):
        rows += [*q[group], k[group], v[group]]
    stored = np.concatenate(rows)
    assert holds(INTERLEAVED, sizes, list(zip(BIASES, [q, k, v], strict=True)), stored)


def test_output_projection_is_the_query_projection_transposed(numbered, holds):
    sizes = attention("GQA")
    [o] = numbered(sizes, QKV[0])
    stored = o.reshape(-1, 11).T
    assert holds("d_model (n_kv_head q_per_kv head_dim)", sizes, [(QKV[0], o)], stored)
    assert not holds("(n_kv_head q_per_kv head_dim) d_model", sizes, [(QKV[0], o)], stored)


def test_keras_query_kernel(numbered, holds):
    sizes = attention("GQA")
    [q] = numbered(sizes, QKV[0])
    stored = np.stack([q[group, head].T for group in range(3) for head in range(2)])
    assert stored.shape == (6, 11, 4)
    assert holds("(n_kv_head q_per_kv) d_model head_dim", sizes, [(QKV[0], q)], stored)


def test_flax_kv_einsum(numbered, holds):
    sizes = attention("GQA")
    k, v = numbered(sizes, QKV[1], QKV[2])
    stored = np.stack([k.transpose(0, 2, 1), v.transpose(0, 2, 1)])
    assert stored.shape == (2, 3, 11, 4)
    weights = [(QKV[1], k), (QKV[2], v)]
    assert holds("(1 | 1) n_kv_head d_model head_dim", sizes, weights, stored)
    assert not holds("(1 | 1) n_kv_head d_model head_dim", sizes, weights, stored[::-1])


@pytest.mark.parametrize("transposed", [False, True])
def test_flax_gating_einsum_in_both_orientations(transposed, numbered, holds):
    sizes = {"d_ff": 7, "d_model": 5}
    gate, up = numbered(sizes, "d_ff d_model", "d_ff d_model")
    layout = "(1 | 1) d_ff d_model" if transposed else "(1 | 1) d_model d_ff"
    stored = np.stack([gate, up]) if transposed else np.stack([gate.T, up.T])
    assert holds(layout, sizes, [("d_ff d_model", gate), ("d_ff d_model", up)], stored)


def test_fused_gate_and_up(numbered, holds):
    sizes = {"d_ff": 7, "d_model": 5}
    gate, up = numbered(sizes, "d_ff d_model", "d_ff d_model")
    stored = np.vstack([gate, up])
    assert holds("(d_ff | d_ff) d_model", sizes, [("d_ff d_model", gate), ("d_ff d_model", up)], stored)
    assert not holds("(d_ff | d_ff) d_model", sizes, [("d_ff d_model", up), ("d_ff d_model", gate)], stored)


def test_scanned_layers_and_stacked_experts(numbered, holds):
    """The index variable becomes an axis; holding it fixed gives one layer's, or one expert's, tensor."""
    sizes = {"layer": 3, "expert": 2, "d_ff": 7, "d_model": 5}
    axes = "layer expert d_ff d_model"
    [up] = numbered(sizes, axes)
    stored = np.stack([np.stack([up[at, expert].T for expert in range(2)]) for at in range(3)])
    assert holds("layer expert d_model d_ff", sizes, [(axes, up)], stored)

    address = bind(parse_layout("layer expert d_model d_ff"), sizes).leaves[0].at({"layer": 2, "expert": 1})
    assert address.offset == (2 * 2 + 1) * 7 * 5
    assert stored.reshape(-1)[address.offset + 3 * address.strides["d_ff"]] == up[2, 1, 3, 0]


def test_scanned_layers_of_a_fused_tensor(numbered, holds):
    sizes = {"layer": 3, "d_ff": 7, "d_model": 5}
    axes = "layer d_ff d_model"
    gate, up = numbered(sizes, axes, axes)
    stored = np.stack([np.concatenate([gate[at], up[at]]) for at in range(3)])
    assert holds("layer (d_ff | d_ff) d_model", sizes, [(axes, gate), (axes, up)], stored)


def test_rotary_half_split_against_interleaved(numbered, holds, run_copy):
    """Half-split holds frequencies 0…f twice, one half after the other; interleaved holds them in pairs."""
    sizes = {"n_head": 3, "rope_half": 2, "rope_freq": 4, "d_model": 5}
    axes = "n_head rope_half rope_freq d_model"
    [q] = numbered(sizes, axes)
    half_split = np.concatenate([np.concatenate([q[head, 0], q[head, 1]]) for head in range(3)])
    pairs = [q[head, half, freq] for head in range(3) for freq in range(4) for half in range(2)]
    interleaved = np.stack(pairs)

    halves = parse_layout("(n_head rope_half rope_freq) d_model")
    assert holds(str(halves), sizes, [(axes, q)], half_split)
    assert holds("(n_head rope_freq rope_half) d_model", sizes, [(axes, q)], interleaved)
    assert not holds("(n_head rope_freq rope_half) d_model", sizes, [(axes, q)], half_split)

    ours = bind(halves, sizes).leaves[0]
    theirs = bind(parse_layout("(n_head rope_freq rope_half) d_model"), sizes).leaves[0]
    moved = np.zeros(half_split.size, dtype=int)
    run_copy(ours, theirs, sizes, half_split.reshape(-1), moved)
    assert np.array_equal(moved.reshape(interleaved.shape), interleaved)


def test_nested_blocks(numbered, holds):
    """A fused tensor whose first block is fused itself, head by head."""
    sizes = {"n_head": 2, "k_dim": 3, "v_dim": 4, "latent": 5, "d_model": 7}
    each = ["n_head k_dim d_model", "n_head v_dim d_model", "latent d_model"]
    k, v, latent = numbered(sizes, *each)
    heads = [np.concatenate([k[head], v[head]]) for head in range(2)]
    stored = np.concatenate([*heads, latent])
    weights = list(zip(each, [k, v, latent], strict=True))
    assert holds("(n_head (k_dim | v_dim) | latent) d_model", sizes, weights, stored)
