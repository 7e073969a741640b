"""Tiny Gemmas as transformers saves them, and what Google's two implementations compute from a directory.

The two are written out by hand in NumPy, from the equations in gemma_pytorch's `gemma/model.py` and in the
JAX package's `gemma/gm/nn/_modules.py`: they read weights as those do, and share only what has no weights.
All arithmetic is in float64, so that what differs is not rounding.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

TOKENS = 60
VOCAB = 97
WINDOW = 11

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 42,
    "intermediate_size": 51,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 128,
}
# What only sizes tell apart is of one size here, and must show in the logits.
EQUAL: dict[str, Any] = {
    "hidden_size": 40,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
}
GEMMA2 = {
    "model_type": "gemma2",
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 10,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
}
GEMMA3 = {
    "model_type": "gemma3_text",
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 10,
    "num_hidden_layers": 7,
}
MODELS: dict[str, dict[str, Any]] = {
    "gemma-mqa": SIZES | {"model_type": "gemma", "num_key_value_heads": 1},
    "gemma-gqa": SIZES | {"model_type": "gemma"},
    "gemma-mha": SIZES | {"model_type": "gemma", "num_key_value_heads": 6},
    "gemma2": SIZES | GEMMA2,
    "gemma3": SIZES | GEMMA3,
    "gemma-equal": SIZES | EQUAL | {"model_type": "gemma"},
    "gemma2-equal": SIZES | GEMMA2 | EQUAL,
    "gemma3-equal": SIZES | GEMMA3 | EQUAL,
}

Array = np.ndarray[Any, np.dtype[np.float64]]


class Gemmas:
    """Each model is written once, and its logits are computed once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @functools.cache  # noqa: B019
    def path(self, name: str, **changes: Any) -> Path:
        """The directory that transformers has written for one of MODELS, with fields changed."""
        from transformers import AutoConfig, AutoModelForCausalLM

        values = MODELS[name] | changes
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        model = AutoModelForCausalLM.from_config(config)
        randomise(model)
        path = self._root / f"{name}-{len(list(self._root.iterdir()))}"
        model.save_pretrained(path)
        return path

    @functools.cache  # noqa: B019
    def logits(self, path: Path) -> Array:
        """transformers' logits, (TOKENS, vocab)."""
        from transformers import AutoModelForCausalLM

        model, loading = AutoModelForCausalLM.from_pretrained(
            path, output_loading_info=True, attn_implementation="eager"
        )
        assert not any(loading.values()), loading
        with torch.inference_mode():
            return np.asarray(model.eval().double()(torch.tensor([prompt()])).logits[0])


def randomise(model: torch.nn.Module) -> None:
    """Projections keep the variance of what passes; norms scatter around what leaves it alone."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise / weight.shape[-1] ** 0.5 if weight.ndim >= 2 else 0.3 * noise)


def prompt() -> list[int]:
    return [int(token) for token in np.random.default_rng(3).integers(0, VOCAB, TOKENS)]


# --- what has no weights ------------------------------------------------------------------------------


def rms(x: Array, scale: Array) -> Array:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * (1 + scale)


def rope(x: Array, base: float) -> Array:
    """x is (T, heads, head_dim); the first half of a head turns with the second."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None] / base ** (2 * np.arange(half) / x.shape[-1])
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softcap(x: Array, cap: float | None) -> Array:
    return x if cap is None else cap * np.tanh(x / cap)


def attend(q: Array, k: Array, v: Array, layer: int, config: Mapping[str, Any]) -> Array:
    """(T, H, h), (T, K, h), (T, K, h) to (T, H, h): query head n reads kv head n // (H / K)."""
    family = config["model_type"]
    gemma3 = family == "gemma3_text"
    sliding = (layer + 1) % 6 != 0 if gemma3 else family == "gemma2" and layer % 2 == 0
    base = 1e6 if gemma3 and not sliding else 1e4
    q, k = rope(q, base), rope(k, base)
    group = q.shape[1] // k.shape[1]
    scores = np.einsum("tnh,snh->nts", q, np.repeat(k, group, axis=1))
    scores = softcap(scores / np.sqrt(q.shape[-1]), config.get("attn_logit_softcapping"))
    t, s = np.arange(len(q))[:, None], np.arange(len(q))[None]
    seen = (s <= t) & ((t - s < WINDOW) | (not sliding))
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("nts,snh->tnh", weights, np.repeat(v, group, axis=1))


# --- gemma_pytorch: a state dict of matrices that are applied from the right, transposed ---------------


def gemma_pytorch(path: Path, config: Mapping[str, Any]) -> Array:
    raw = torch.load(path / "model.ckpt", weights_only=True)
    assert list(raw) == ["model_state_dict"]
    state = {name: tensor.double().numpy() for name, tensor in raw["model_state_dict"].items()}
    heads, kv, h = (config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    x = state["embedder.weight"][prompt()] * np.sqrt(config["hidden_size"])
    four = config["model_type"] != "gemma"
    for layer in range(config["num_hidden_layers"]):
        w = {
            name.removeprefix(f"model.layers.{layer}.").removesuffix(".weight"): tensor
            for name, tensor in state.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        qkv = rms(x, w["input_layernorm"]) @ w["self_attn.qkv_proj"].T
        q, k, v = np.split(qkv, [heads * h, (heads + kv) * h], axis=-1)
        q, k, v = q.reshape(-1, heads, h), k.reshape(-1, kv, h), v.reshape(-1, kv, h)
        if "self_attn.query_norm" in w:
            q, k = rms(q, w["self_attn.query_norm"]), rms(k, w["self_attn.key_norm"])
        out = attend(q, k, v, layer, config).reshape(len(x), -1) @ w["self_attn.o_proj"].T
        x = x + (rms(out, w["post_attention_layernorm"]) if four else out)
        y = rms(x, w["pre_feedforward_layernorm" if four else "post_attention_layernorm"])
        y = (gelu(y @ w["mlp.gate_proj"].T) * (y @ w["mlp.up_proj"].T)) @ w["mlp.down_proj"].T
        x = x + (rms(y, w["post_feedforward_layernorm"]) if four else y)
    logits = rms(x, state["model.norm.weight"]) @ state["embedder.weight"].T
    return softcap(logits, config.get("final_logit_softcapping"))


# --- Flax: einsums over a tree ---------------------------------------------------------------------------


def read_zarr(path: Path) -> dict[str, Array]:
    """Every array of a checkpoint that is stored in the clear, by its path in the tree."""
    found = {}
    for meta in sorted(path.rglob(".zarray")):
        stated = json.loads(meta.read_text())
        raw = (meta.parent / ".".join("0" * len(stated["shape"]))).read_bytes()
        name = str(meta.parent.relative_to(path)).replace(".", "/")
        assert stated["dtype"] == "<f4" and stated["compressor"] is None
        found[name] = np.frombuffer(raw, "<f4").reshape(stated["shape"]).astype(np.float64)
    return found


def flax(path: Path, config: Mapping[str, Any], *, transposed: bool | None = None) -> Array:
    tree = {name.removeprefix("transformer/"): array for name, array in read_zarr(path).items()}
    transposed = config["model_type"] == "gemma3_text" if transposed is None else transposed
    table = tree["embedder/input_embedding"]
    x = table[prompt()] * np.sqrt(config["hidden_size"])
    for layer in range(config["num_hidden_layers"]):
        w = {
            name.removeprefix(f"layer_{layer}/"): array
            for name, array in tree.items()
            if name.startswith(f"layer_{layer}/")
        }
        y = rms(x, w["pre_attention_norm/scale"])
        if "attn/qkv_einsum/w" in w:
            q, k, v = np.einsum("td,sndh->stnh", y, w["attn/qkv_einsum/w"])
        else:
            q = np.einsum("td,ndh->tnh", y, w["attn/q_einsum/w"])
            k, v = np.einsum("sd,ckdh->cskh", y, w["attn/kv_einsum/w"])
        if "attn/_query_norm/scale" in w:
            q, k = rms(q, w["attn/_query_norm/scale"]), rms(k, w["attn/_key_norm/scale"])
        out = np.einsum("tnh,nhd->td", attend(q, k, v, layer, config), w["attn/attn_vec_einsum/w"])
        x = x + (rms(out, w["post_attention_norm/scale"]) if "post_attention_norm/scale" in w else out)
        y = rms(x, w["pre_ffw_norm/scale"])
        gates = np.einsum("tf,nhf->tnh" if transposed else "tf,nfh->tnh", y, w["mlp/gating_einsum/w"])
        y = np.einsum("th,hf->tf", gelu(gates[:, 0]) * gates[:, 1], w["mlp/linear/w"])
        x = x + (rms(y, w["post_ffw_norm/scale"]) if "post_ffw_norm/scale" in w else y)
    logits = rms(x, tree["final_norm/scale"]) @ table.T
    return softcap(logits, config.get("final_logit_softcapping"))


def litgpt(path: Path, config: Mapping[str, Any]) -> Array:
    """The stock LitGPT's logits, after a strict load. `config` is not asked: the directory has its own."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = GPT(Config.from_file(path / "model_config.yaml"))
    model.load_state_dict(load_file(path / "lit_model.safetensors"), strict=True, assign=True)
    model.cos, model.sin = model.rope_cache(device="cpu")
    with torch.inference_mode():
        return np.asarray(model.eval().double()(torch.tensor([prompt()]))[0])


ORACLES: dict[str, Callable[..., Array]] = {
    "gemma_pytorch": gemma_pytorch,
    "flax": flax,
    "flax-transposed": functools.partial(flax, transposed=True),
    "litgpt-legacy": litgpt,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side, and threads that wait for one another's cores cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def gemmas(tmp_path_factory: pytest.TempPathFactory) -> Gemmas:
    importlib.import_module("transformers")
    return Gemmas(tmp_path_factory.mktemp("gemmas"))


@pytest.fixture(scope="session")
def configs() -> Mapping[str, Mapping[str, Any]]:
    """The models' configs in Hugging Face's words."""
    return MODELS


@pytest.fixture(scope="session")
def oracle() -> Callable[[str, Path, Mapping[str, Any]], Array]:
    """Logits of a directory in some dialect, computed as its framework does, (TOKENS, vocab)."""
    return lambda dialect, path, config: ORACLES[dialect](path, config)


@pytest.fixture(scope="session")
def difference() -> Callable[[Array, Array], float]:
    """max |Δ| / max |logit|, over the vocabulary that both have."""

    def measure(found: Array, expected: Array) -> float:
        return float(np.abs(found[:, :VOCAB] - expected).max() / np.abs(expected).max())

    return measure
