"""Tiny random Gemmas that KerasHub itself builds and saves, and what KerasHub computes from a preset.

Sizes are all different, and heads * head_dim is not hidden_dim, so that no weight fits in another's place;
but for the `-equal` models, in which as many sizes as possible are the same, so that only what is computed
tells one weight from another. Every weight is random, norms too.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

# Keras chooses its backend when it is imported, and by default asks for TensorFlow.
os.environ.setdefault("KERAS_BACKEND", "torch")

# The tokens that `models` runs the other frameworks on.
VOCAB, TOKENS = 211, 600

SIZES: dict[str, Any] = {
    "vocabulary_size": VOCAB,
    "num_layers": 3,
    "num_query_heads": 6,
    "num_key_value_heads": 2,
    "hidden_dim": 66,
    "intermediate_dim": 2 * 101,
    "head_dim": 10,
}
NORMS = {"use_post_ffw_norm": True, "use_post_attention_norm": True}
# Far shorter than the prompt, so that a lost window shows.
WINDOW = {"use_sliding_window_attention": True, "sliding_window_size": 23}
GEMMA2 = {
    **SIZES,
    **NORMS,
    **WINDOW,
    "num_layers": 4,
    "attention_logit_soft_cap": 5.0,
    "final_logit_soft_cap": 3.0,
}
GEMMA3 = {**SIZES, **NORMS, **WINDOW, "num_layers": 7, "intermediate_dim": 101, "image_size": 32}
EQUAL = {"num_query_heads": 4, "hidden_dim": 20, "head_dim": 20}
CLASSES = {"gemma": "GemmaBackbone", "gemma2": "GemmaBackbone", "gemma3": "Gemma3Backbone"}
MODELS: dict[str, dict[str, Any]] = {
    "gemma-mqa": {**SIZES, "num_key_value_heads": 1},
    "gemma-gqa": SIZES,
    "gemma-mha": {**SIZES, "num_key_value_heads": 6},
    "gemma-square": {**SIZES, "num_key_value_heads": 1, "hidden_dim": 60},
    "gemma-dropout": {**SIZES, "dropout": 0.1},
    "gemma2": GEMMA2,
    "gemma2-full": {**GEMMA2, "use_sliding_window_attention": False},
    "gemma3": GEMMA3,
    "gemma3-scaled": {**GEMMA3, "global_rope_scaling_factor": 8.0},
    "gemma-equal": {**SIZES, **EQUAL, "intermediate_dim": 2 * 20},
    "gemma2-equal": {**GEMMA2, **EQUAL, "intermediate_dim": 2 * 20},
    "gemma3-equal": {**GEMMA3, **EQUAL, "intermediate_dim": 20},
}


def build(name: str, dtype: str = "float32", **changes: Any) -> Any:
    """A backbone with random weights, as KerasHub makes it.

    Kernels keep the variance of what passes through; norms scatter around what leaves it alone (w acts as
    1 + w). A residual stream that grows from layer to layer would amplify rounding.
    """
    import keras_hub

    make = getattr(keras_hub.models, CLASSES[name.partition("-")[0]])
    backbone = make(**(MODELS[name] | changes), dtype=dtype)
    generator = torch.Generator().manual_seed(len(name))
    for variable in backbone.weights:
        noise = torch.randn(tuple(variable.shape), generator=generator)
        layer = variable.path.split("/")[-2]
        variable.assign(noise * (0.3 if noise.ndim == 1 else _inputs(layer, noise.shape) ** -0.5))
    return backbone


def _inputs(layer: str, shape: torch.Size) -> int:
    """How many numbers a kernel sums up: query, key and value are (heads, inputs, head_dim)."""
    if layer in ("query", "key", "value", "token_embedding"):
        return shape[1]
    return shape[0] * shape[1] if layer == "attention_output" else shape[0]


class Presets:
    """Builds and remembers: each preset is written once, and its logits are computed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._logits: dict[Path, Tensor] = {}
        self.build = build

    def path(self, name: str, *, dtype: str = "float32") -> Path:
        """The directory that KerasHub has written for one of MODELS."""
        path = self._root / f"{name}-{dtype}"
        if not path.exists():
            build(name, dtype).save_to_preset(str(path))
        return path

    def logits(self, path: Path) -> Tensor:
        """What KerasHub computes from a preset in float32, (1, 600, vocab)."""
        if path not in self._logits:
            import keras_hub

            backbone = keras_hub.models.Backbone.from_preset(str(path), dtype="float32")
            self._logits[path] = logits(backbone)
        return self._logits[path]


def logits(backbone: Any) -> Tensor:
    """A backbone's output through its own embedding, soft-cap and all."""
    tokens = torch.randint(VOCAB, (1, TOKENS), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        hidden = backbone({"token_ids": tokens, "padding_mask": torch.ones_like(tokens)})
        return backbone.token_embedding(hidden, reverse=True).detach().clone()


@pytest.fixture(scope="session")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Presets:
    importlib.import_module("keras_hub")
    return Presets(tmp_path_factory.mktemp("presets"))


@pytest.fixture(scope="session")
def keras_logits() -> Callable[[Any], Tensor]:
    return logits


@pytest.fixture(scope="session")
def datasets() -> Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """Type, shape and bytes of every weight in a `.weights.h5`, read with h5py alone."""

    def read(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
        import h5py

        found = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and "seed_generator" not in name:
                kind = item.attrs.get("dtype", str(item.dtype))
                found[name] = (kind, item.shape, item[()].tobytes())

        with h5py.File(path) as file:
            file.visititems(visit)
        return found

    return read
