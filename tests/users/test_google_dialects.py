"""Google's own forms of Gemma as they are found: no config, buffers, int8, padded vocabularies, odd trees."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import porter
from porter.errors import DifferenceError, MalformedError, UnsupportedError

D, F, H, K, HEAD, VOCAB = 12, 7, 4, 2, 5, 23
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
RNG = np.random.default_rng(2)


def normal(*shape):
    return RNG.standard_normal(shape, np.float32)


@pytest.fixture
def config(tmp_path):
    """Hugging Face's config of the model, as it would be given by --config."""
    path = tmp_path / "hf-config" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    return path


def tensors(folder):
    return load_file(folder / "model.safetensors")


# --- gemma_pytorch ---------------------------------------------------------------------------------------

MATRICES = {
    "embedder": (VOCAB, D),
    "model.layers.0.self_attn.qkv_proj": ((H + 2 * K) * HEAD, D),
    "model.layers.0.self_attn.o_proj": (D, H * HEAD),
    "model.layers.0.mlp.gate_proj": (F, D),
    "model.layers.0.mlp.up_proj": (F, D),
    "model.layers.0.mlp.down_proj": (D, F),
}
VECTORS = ("model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm")


def state(quantised=False):
    made = {f"{name}.weight": torch.from_numpy(normal(D)) for name in VECTORS}
    for name, shape in MATRICES.items():
        made[f"{name}.weight"] = torch.from_numpy(normal(*shape))
        if quantised:
            made[f"{name}.weight"] = torch.from_numpy(RNG.integers(-127, 128, shape, np.int8))
            made[f"{name}.weight_scaler"] = torch.from_numpy(normal(shape[0]))
    # What the module holds besides: rotations, complex.
    made["freqs_cis"] = torch.ones(16, HEAD // 2, dtype=torch.complex64)
    return made


def save(folder, weights):
    folder.mkdir()
    torch.save({"model_state_dict": weights}, folder / "gemma-2b.ckpt")
    return folder


def test_the_config_may_come_in_the_words_of_hugging_face(tmp_path, config):
    weights = state()
    done = porter.convert(save(tmp_path / "google", weights), tmp_path / "out", to="hf", config=config)
    assert (done.plan.family, done.plan.source_dialect) == ("gemma", "gemma_pytorch")
    assert done.plan.summary.dropped == 1, "the rotations"
    found = tensors(tmp_path / "out")
    q, k, v = np.split(
        weights["model.layers.0.self_attn.qkv_proj.weight"].numpy(), [H * HEAD, (H + K) * HEAD]
    )
    for part, expected in (("q", q), ("k", k), ("v", v)):
        assert np.array_equal(found[f"model.layers.0.self_attn.{part}_proj.weight"], expected)
    assert not any("freqs" in name for name in found)


def test_the_config_may_come_in_the_words_of_googles(tmp_path):
    folder = save(tmp_path / "google", state())
    own = {"architecture": "GEMMA_1", **{key: CONFIG[key] for key in CONFIG if key != "model_type"}}
    (folder / "config.json").write_text(json.dumps(own))
    assert porter.inspect(folder).dialect == "gemma_pytorch"


def test_without_a_config_one_is_asked_for(tmp_path):
    found = porter.inspect(save(tmp_path / "google", state()))
    assert found.family is None
    with pytest.raises(UnsupportedError) as caught:
        porter.plan(tmp_path / "google", to="hf")
    assert 'config="FILE"' in caught.value.hint


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_int8_is_a_whole_number_times_its_rows_factor(tmp_path, config, dtype):
    weights = state(quantised=True)
    folder = save(tmp_path / "google", weights)
    porter.convert(folder, tmp_path / "out", to="litgpt", config=config, dtype=dtype)
    from safetensors.torch import load_file as load

    found = load(tmp_path / "out" / "lit_model.safetensors")
    for theirs, ours in {
        "embedder": "transformer.wte",
        "model.layers.0.self_attn.qkv_proj": "transformer.h.0.attn.qkv",
        "model.layers.0.mlp.down_proj": "transformer.h.0.mlp.proj",
    }.items():
        whole, factors = weights[f"{theirs}.weight"], weights[f"{theirs}.weight_scaler"]
        expected = (whole.float() * factors[:, None]).to(getattr(torch, dtype))
        assert torch.equal(found[f"{ours}.weight"], expected)
    loaded = porter.load_state_dict(folder, to="litgpt", config=config, dtype=dtype)
    assert torch.equal(loaded["transformer.h.0.attn.qkv.weight"], found["transformer.h.0.attn.qkv.weight"])


def test_int8_that_is_turned_and_split(tmp_path, config):
    """To Flax every matrix is transposed, and q, k and v are taken apart."""
    weights = state(quantised=True)
    folder = save(tmp_path / "google", weights)
    porter.convert(folder, tmp_path / "flax", to="flax", config=config, dtype="float32")
    porter.convert(tmp_path / "flax", tmp_path / "out", to="gemma_pytorch")
    found = torch.load(tmp_path / "out" / "model.ckpt", weights_only=True)["model_state_dict"]
    for name in MATRICES:
        expected = weights[f"{name}.weight"].float() * weights[f"{name}.weight_scaler"][:, None]
        assert torch.equal(found[f"{name}.weight"], expected)


def test_int8_is_not_kept(tmp_path, config):
    with pytest.raises(UnsupportedError, match="quantised") as caught:
        porter.plan(save(tmp_path / "google", state(quantised=True)), to="hf", config=config)
    assert "dtype=" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("embedder.weight_scaler", torch.ones(VOCAB + 1)),
        ("embedder.weight_scaler", torch.ones(VOCAB, dtype=torch.int32)),
        ("embedder.weight", torch.ones(VOCAB, D)),
    ],
)
def test_factors_that_do_not_fit_are_malformed(tmp_path, config, name, change):
    weights = state(quantised=True) | {name: change}
    with pytest.raises(MalformedError, match=r"embedder\.weight_scaler"):
        porter.plan(save(tmp_path / "google", weights), to="hf", config=config, dtype="float32")


def test_whole_numbers_without_factors_are_not_weights(tmp_path, config):
    weights = state(quantised=True)
    del weights["embedder.weight_scaler"]
    with pytest.raises(MalformedError, match="without the factors"):
        porter.plan(save(tmp_path / "google", weights), to="hf", config=config, dtype="float32")


# --- Flax --------------------------------------------------------------------------------------------------


def tree(vocab=VOCAB):
    return {
        "embedder/input_embedding": normal(vocab, D),
        "final_norm/scale": normal(D),
        "layer_0/pre_attention_norm/scale": normal(D),
        "layer_0/pre_ffw_norm/scale": normal(D),
        "layer_0/attn/q_einsum/w": normal(H, D, HEAD),
        "layer_0/attn/kv_einsum/w": normal(2, K, D, HEAD),
        "layer_0/attn/attn_vec_einsum/w": normal(H, HEAD, D),
        "layer_0/mlp/gating_einsum/w": normal(2, D, F),
        "layer_0/mlp/linear/w": normal(F, D),
    }


def store(folder, made, prefix="transformer/"):
    folder.mkdir()
    save_file({prefix + name: array for name, array in made.items()}, folder / "model.safetensors")
    return folder


def nested(flat):
    found = {}
    for name, array in flat.items():
        *groups, leaf = name.split("/")
        inner = found
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[leaf] = array
    return found


@pytest.mark.parametrize("item", ["default", "state"])
def test_of_a_trainers_step_the_weights_are_taken_and_the_rest_is_said(tmp_path, monkeypatch, item):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    orbax = importlib.import_module("orbax.checkpoint")
    made = tree()
    moments = {name: array * 0 for name, array in made.items()}
    whole = {
        "step": np.int32(100),
        "frozen": np.array([True, False]),
        "params": nested(made),
        "opt_state": {"0": {"count": np.int32(100), "mu": nested(moments), "nu": nested(moments)}},
    }
    with orbax.PyTreeCheckpointer() as saver:
        saver.save(tmp_path / "run" / "100" / item, whole)
    done = porter.convert(tmp_path / "run" / "100", tmp_path / "out", to="hf")
    expected = made["layer_0/mlp/linear/w"].T
    assert np.array_equal(tensors(tmp_path / "out")["model.layers.0.mlp.down_proj.weight"], expected)
    (note,) = [note for note in done.plan.notes if "trainer's own" in note]
    assert all(word in note for word in ("opt_state (19 tensors)", "step (1 tensor)", "frozen (1 tensor)"))
    # A weight is never a trainer's own: without one of them nothing is written.
    del whole["params"]["final_norm"]
    with orbax.PyTreeCheckpointer() as saver:
        saver.save(tmp_path / "run" / "200" / item, whole)
    with pytest.raises(MalformedError, match="1 tensor missing"):
        porter.convert(tmp_path / "run" / "200", tmp_path / "other", to="hf")


@pytest.mark.parametrize("prefix", ["transformer/", "", "params/"])
def test_shapes_say_it_all(tmp_path, prefix):
    """Without any config: nested and flat trees, and those of a trainer."""
    made = tree()
    done = porter.convert(store(tmp_path / "flax", made, prefix), tmp_path / "out", to="hf")
    assert (done.plan.family, done.plan.source_dialect) == ("gemma", "flax")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: written[key] for key in CONFIG} == CONFIG
    expected = made["layer_0/attn/kv_einsum/w"][1].transpose(0, 2, 1).reshape(K * HEAD, D)
    assert np.array_equal(tensors(tmp_path / "out")["model.layers.0.self_attn.v_proj.weight"], expected)
    assert any("no config.json beside the weights" in note for note in done.plan.notes)


def test_trees_may_leave_out_the_last_part_of_a_name(tmp_path):
    made = tree()
    short = {name.removesuffix("/w") if "/mlp/" in name else name: array for name, array in made.items()}
    porter.convert(store(tmp_path / "long", made), tmp_path / "a", to="hf")
    porter.convert(store(tmp_path / "short", short), tmp_path / "b", to="hf")
    assert all(
        np.array_equal(array, tensors(tmp_path / "b")[key]) for key, array in tensors(tmp_path / "a").items()
    )


def test_a_config_that_says_otherwise_than_the_shapes_is_an_error(tmp_path, config):
    config.write_text(json.dumps(CONFIG | {"num_key_value_heads": 1}))
    with pytest.raises(MalformedError, match="wrong shape"):
        porter.plan(store(tmp_path / "flax", tree()), to="hf", config=config)


def padded(fill=0.0):
    made = tree(vocab=VOCAB + 9)
    made["embedder/input_embedding"][VOCAB:] = fill
    return made


def test_padding_is_cropped_and_checked(tmp_path, config):
    made = padded()
    source = store(tmp_path / "flax", made)
    done = porter.convert(source, tmp_path / "out", to="hf", config=config)
    found = tensors(tmp_path / "out")["model.embed_tokens.weight"]
    assert np.array_equal(found, made["embedder/input_embedding"][:VOCAB])
    assert any("last 9 of 32 rows are left out, which are checked" in note for note in done.plan.notes)
    loaded = porter.load_state_dict(source, to="hf", config=config)
    assert np.array_equal(loaded["model.embed_tokens.weight"].numpy(), found)


def test_padding_that_holds_something_is_not_lost(tmp_path, config):
    source = store(tmp_path / "flax", padded(fill=1e-30))
    for act in (
        lambda: porter.convert(source, tmp_path / "out", to="hf", config=config),
        lambda: porter.load_state_dict(source, to="hf", config=config),
    ):
        with pytest.raises(DifferenceError, match="last 9 of 32 rows of") as caught:
            act()
    assert not (tmp_path / "out").exists()
    name = "transformer/embedder/input_embedding"
    assert f'allow_unmapped="{name}"' in caught.value.hint
    porter.convert(source, tmp_path / "out", to="hf", config=config, allow_unmapped=[name])
    assert tensors(tmp_path / "out")["model.embed_tokens.weight"].shape == (VOCAB, D)


def test_padding_is_written_as_declared(tmp_path):
    """The published vocabulary of 256000 is stored as 256128 rows."""
    source = tmp_path / "hf"
    source.mkdir()
    porter.convert(store(tmp_path / "flax", tree(vocab=256000)), source / "x", to="hf")
    done = porter.convert(source / "x", tmp_path / "out", to="flax")
    (embedding,) = [t for t in done.plan.targets() if t.name.endswith("input_embedding")]
    assert embedding.shape == (256128, D)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_embed"] == 256128
    raw = (tmp_path / "out" / embedding.file).read_bytes()
    stored = np.frombuffer(raw, np.float32).reshape(embedding.shape)
    assert not stored[256000:].any()
    assert np.array_equal(stored[:256000], tensors(source / "x")["model.embed_tokens.weight"])
    porter.convert(tmp_path / "out", tmp_path / "back", to="hf")
    expected = tensors(source / "x")
    assert all(np.array_equal(array, expected[key]) for key, array in tensors(tmp_path / "back").items())


def test_gemma_2s_orientation_is_found_from_the_shapes(tmp_path):
    made = tree()
    made |= {f"layer_0/{norm}/scale": normal(D) for norm in ("post_attention_norm", "post_ffw_norm")}
    assert porter.inspect(store(tmp_path / "2b", made)).dialect == "flax"
    made["layer_0/mlp/gating_einsum/w"] = normal(2, F, D)
    found = porter.inspect(store(tmp_path / "9b", made))
    assert (found.family, found.dialect) == ("gemma2", "flax-transposed")
