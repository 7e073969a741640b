"""Tiny random models as transformers saves them, and what three frameworks compute from a directory.

Sizes are all different, and heads * head_dim is not hidden_size, so that no weight fits in another's place.
Every weight is random, norms and biases too: a norm of ones would hide that it was put elsewhere.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

TOKENS = 600
VOCAB = 211

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 66,
    "intermediate_size": 101,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 700,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
# Far shorter than the prompt, so that a lost window shows.
WINDOW = 23
GEMMA2 = SIZES | {
    "model_type": "gemma2",
    "num_hidden_layers": 4,
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 14,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
}
GEMMA3 = SIZES | {
    "model_type": "gemma3_text",
    "num_hidden_layers": 7,
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 14,
}
LLAMA = SIZES | {"model_type": "llama", "rms_norm_eps": 1e-5}
# One size for hidden, heads * head_dim, kv heads * head_dim and intermediate; as many kv heads as query heads
# share each: what only sizes tell apart in a checkpoint is the same here, and must show in the logits.
EQUAL: dict[str, Any] = {
    "hidden_size": 40,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
}
MODELS: dict[str, dict[str, Any]] = {
    "gemma-mqa": SIZES | {"model_type": "gemma", "num_key_value_heads": 1},
    "gemma-gqa": SIZES | {"model_type": "gemma"},
    "gemma-mha": SIZES | {"model_type": "gemma", "num_key_value_heads": 6},
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
    "llama": LLAMA,
    "llama-rope": LLAMA
    | {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "llama-biases": LLAMA | {"attention_bias": True, "mlp_bias": True},
    "llama-tied": LLAMA | {"tie_word_embeddings": True},
    "gpt-neox": {
        "model_type": "gpt_neox",
        "vocab_size": VOCAB,
        "hidden_size": 70,
        "intermediate_size": 101,
        "num_hidden_layers": 3,
        "num_attention_heads": 7,
        "max_position_embeddings": 700,
        "rotary_pct": 0.4,
        "use_parallel_residual": True,
    },
    "gemma-equal": SIZES | EQUAL | {"model_type": "gemma"},
    "gemma2-equal": GEMMA2 | EQUAL,
    "gemma3-equal": GEMMA3 | EQUAL,
    "llama-equal": LLAMA | EQUAL,
}


def _build(name: str, dtype: torch.dtype) -> Any:
    """A transformers model with random weights.

    Projections keep the variance of what passes through; norms scatter around what leaves it alone (Gemma's
    weight w acts as 1 + w). A residual stream that grows from layer to layer would amplify rounding.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(MODELS[name])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(len(name))
    gemma = config.model_type.startswith("gemma")
    with torch.no_grad():
        for key, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 2:
                noise /= weight.shape[1] ** 0.5
            else:
                noise = 0.3 * noise + float(key.endswith("norm.weight") and not gemma)
            weight.copy_(noise)
    return model.to(dtype)


class Models:
    """Builds and remembers: each model is written once, and its logits are computed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._logits: dict[tuple[str, Path], Tensor] = {}

    def path(self, name: str, *, dtype: torch.dtype = torch.float32, shard: int | None = None) -> Path:
        """The directory that transformers has written for one of MODELS; `shard` is a file's most bytes."""
        word = str(dtype).removeprefix("torch.")
        path = self._root / f"{name}-{word}{f'-{shard}' if shard else ''}"
        if not path.exists():
            _build(name, dtype).save_pretrained(path, **({"max_shard_size": shard} if shard else {}))
        return path

    def hf(self, path: Path) -> Tensor:
        """transformers' logits on 600 tokens, (1, 600, vocab)."""
        return self._remembered("hf", path, _hf)

    def litgpt(self, path: Path) -> Tensor:
        """The stock LitGPT's, after a strict load of `lit_model.safetensors`."""
        return self._remembered("litgpt", path, _litgpt)

    def porter(self, path: Path) -> Tensor:
        """`porter.models.GPT`'s."""
        return self._remembered("porter", path, _porter)

    def _remembered(self, peer: str, path: Path, compute: Callable[[Path], Tensor]) -> Tensor:
        if (peer, path) not in self._logits:
            with torch.inference_mode():
                self._logits[peer, path] = compute(path)
        return self._logits[peer, path]


def prompt() -> Tensor:
    return torch.randint(VOCAB, (1, TOKENS), generator=torch.Generator().manual_seed(3))


def _hf(path: Path) -> Tensor:
    from transformers import AutoModelForCausalLM

    # transformers gives up sdpa by itself where a model has soft-caps.
    model, loading = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(loading.values()), loading
    return model.eval()(prompt()).logits


def _litgpt(path: Path) -> Tensor:
    from litgpt.config import Config
    from litgpt.model import GPT

    with torch.device("meta"):
        model = GPT(Config.from_file(path / "model_config.yaml"))
    model.load_state_dict(load_file(path / "lit_model.safetensors"), strict=True, assign=True)
    model.cos, model.sin = model.rope_cache(device="cpu")
    return model.eval()(prompt())


def _porter(path: Path) -> Tensor:
    from porter.models import GPT

    return GPT.from_checkpoint(path)(prompt())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side, and threads that wait for one another's cores cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    importlib.import_module("transformers")
    importlib.import_module("litgpt")
    return Models(tmp_path_factory.mktemp("models"))


@functools.cache
def _stored(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    found = {}
    for file in sorted(path.glob("*.safetensors")):
        raw = file.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        for name, entry in json.loads(raw[8:start]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                found[name] = (entry["dtype"], tuple(entry["shape"]), raw[start + begin : start + end])
    return found


@pytest.fixture(scope="session")
def stored() -> Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """Dtype, shape and bytes of every tensor in a directory, read without any library."""
    return _stored


@pytest.fixture(scope="session")
def difference() -> Callable[[Tensor, Tensor], float]:
    """max |Δ| / max |logit|."""
    return lambda found, expected: float((found - expected).abs().max() / expected.abs().max())
