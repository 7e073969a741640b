"""No key of a port's config is passed over in silence.

Another value of it is found, is said not to be compared, or is listed here with the reason why it changes
nothing. The keys are those that the frameworks themselves have.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from handmade import CONFIG, LAYERS, LITGPT, hf_weights, litgpt_weights, write

import porter
from porter.errors import PorterError

pytestmark = pytest.mark.peer

# Of LitGPT 0.5.13, in a model without experts: why another value changes nothing that it computes.
LITGPT_HARMLESS = {
    "name": "only whether Gemma is in it counts",
    "hf_config": "where the model came from",
    "vocab_size": "LitGPT's model has padded_vocab_size rows",
    "padding_multiple": "only where padded_vocab_size is left out",
    "norm_qk_type": "without norms of q and k",
    "sliding_window_indices": "without sliding_window_size",
    "rope_interleave": "only of latent attention",
    **dict.fromkeys(
        (
            "moe_intermediate_size",
            "n_expert",
            "n_shared_expert",
            "n_expert_groups",
            "n_topk_groups",
            "n_topk_scores_per_group",
            "n_expert_per_token",
            "first_k_dense_replace",
            "routed_scaling_factor",
            "norm_topk_prob",
        ),
        "only of LLaMAMoE",
    ),
}
# Of transformers 5's Gemma.
HF_HARMLESS = {
    **dict.fromkeys(("transformers_version", "_name_or_path", "architectures", "problem_type"), "a name"),
    **dict.fromkeys(("output_hidden_states", "output_attentions", "return_dict"), "what is returned besides"),
    **dict.fromkeys(("id2label", "label2id"), "of classifiers"),
    **dict.fromkeys(("initializer_range", "attention_dropout"), "only in training"),
    "chunk_size_feed_forward": "the same, in several parts",
    "is_encoder_decoder": "Gemma is a decoder whatever it says",
    "use_cache": "the same, faster",
    "hidden_activation": "Gemma's code goes by hidden_act",
}
KERAS_HARMLESS = {
    "config.dropout": "only in training",
    "config.sliding_window_size": "without use_sliding_window_attention",
}


def others(value: Any) -> list[Any]:
    """Other values of the same kind."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value * 1.5 + 0.1]
    if isinstance(value, str):
        return [f"{value}x"]
    if isinstance(value, list):
        return [[*value, "x"]]
    if isinstance(value, dict):
        return [{**value, "other": 1}]
    return [[1] * LAYERS]


def passed_over(
    source: Path, out: Path, values: Mapping[str, Any], put: Callable[[str, Any], None]
) -> Iterator[str]:
    """The keys of which another value is called equal, and nothing is said of them."""
    assert porter.verify(source, out, quick=True).right
    for key, value in values.items():
        for other in others(value):
            put(key, other)
            try:
                verdict = porter.verify(source, out, quick=True)
            except PorterError:
                continue
            if verdict.right and not any(key in note for note in verdict.notes):
                yield key


def test_every_key_of_litgpts_config_counts(tmp_path, original):
    from litgpt.config import Config

    out = write(tmp_path / "port", litgpt_weights(hf_weights()), LITGPT)
    file = out / "model_config.yaml"

    def put(key: str, value: Any) -> None:
        file.write_text(yaml.safe_dump({**LITGPT, key: value}), encoding="utf-8")

    fields = {f.name: f.default for f in dataclasses.fields(Config) if f.default is not dataclasses.MISSING}
    keys = {**fields, "hf_config": {}, **LITGPT}
    found = set(passed_over(original, out, keys, put))
    assert len(keys) > 50
    assert found <= set(LITGPT_HARMLESS), found - set(LITGPT_HARMLESS)


def test_every_key_of_transformers_config_counts(tmp_path, original):
    from transformers import GemmaConfig

    out = write(tmp_path / "port", hf_weights(), CONFIG)
    file = out / "config.json"

    def put(key: str, value: Any) -> None:
        file.write_text(json.dumps({**CONFIG, key: value}), encoding="utf-8")

    more = {"per_layer_config": None, "dtype": "float16", "torch_dtype": "float16"}
    keys = {**GemmaConfig().to_dict(), **CONFIG, **more}
    found = set(passed_over(original, out, keys, put))
    assert len(keys) > 30
    assert found <= set(HF_HARMLESS), found - set(HF_HARMLESS)


def test_every_key_of_kerashubs_config_counts(tmp_path, original, monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    from keras_hub.models import GemmaBackbone

    out = tmp_path / "port"
    porter.convert(original, out, to="keras")
    file = out / "config.json"
    written = json.loads(file.read_text(encoding="utf-8"))

    def put(key: str, value: Any) -> None:
        inner = {**written["config"], key.removeprefix("config."): value}
        file.write_text(json.dumps({**written, "config": inner}), encoding="utf-8")

    arguments = inspect.signature(GemmaBackbone.__init__).parameters
    keys = {
        f"config.{name}": None if item.default is item.empty else item.default
        for name, item in arguments.items()
        if name not in ("self", "kwargs")
    } | {f"config.{name}": value for name, value in written["config"].items()}
    found = set(passed_over(original, out, keys, put))
    assert len(keys) > 15
    assert found - {"config.name", "config.trainable"} <= set(KERAS_HARMLESS), found - set(KERAS_HARMLESS)
