"""Whose code runs a checkpoint: the framework that its dialect belongs to, or porter's own model.

Each framework's module is built without memory from the config as it stands in the checkpoint, and not from
what porter would write: what the two sides make of the same words is what is compared.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from porter.config.raw import GENERATION
from porter.errors import PorterError, UnsupportedError
from porter.verification.layerwise import (
    LayeredModel,
    LayeredModule,
    Weights,
    WeightsOnMeta,
    copied,
    require_values,
)

Build = Callable[[Mapping[str, Any], Weights, int, torch.dtype], LayeredModel]


def build(
    spec: str, config: Mapping[str, Any], weights: Weights, tokens: int, dtype: torch.dtype
) -> LayeredModel:
    """The model of `config` in the code of `spec`, for runs of `tokens` ids.

    Raises UnsupportedError where the framework builds no model from this config.
    """
    builders: dict[str, Build] = {
        "transformers": _transformers,
        "litgpt": _litgpt,
        "porter": _porter,
        "keras": _keras,
    }
    try:
        return builders[spec](config, weights, tokens, dtype)
    except PorterError:
        raise
    except Exception as error:
        said = str(error).strip().splitlines()
        raise UnsupportedError(
            f"{spec} cannot build a model from the checkpoint's config",
            cause=f"{type(error).__name__}: {said[0] if said else ''}",
        ) from error


def installed(spec: str) -> bool:
    packages = {"keras": ("keras_hub", "keras", "h5py")}.get(spec, (spec,))
    return all(importlib.util.find_spec(package) is not None for package in packages)


def version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


class _SameNames:
    """The module's names are the stored ones."""

    def __init__(self, weights: Weights, dtype: torch.dtype) -> None:
        self._weights, self._dtype = weights, dtype

    def __call__(self, names: Sequence[str]) -> Mapping[str, Tensor]:
        return {name: copied(self._weights[name], self._dtype) for name in names}


def _litgpt(config: Mapping[str, Any], weights: Weights, tokens: int, dtype: torch.dtype) -> LayeredModel:
    from litgpt.config import Config
    from litgpt.model import GPT

    with torch.device("meta"):
        model = GPT(Config(**_own(config)))
    # Of the rotary angles only those that are needed: a context of 128,000 tokens takes 250 MB.
    model.max_seq_length = min(tokens, model.max_seq_length)
    model.cos, model.sin = model.rope_cache(device="cpu")
    return _gpt(version("litgpt"), model, weights, dtype)


def _porter(config: Mapping[str, Any], weights: Weights, tokens: int, dtype: torch.dtype) -> LayeredModel:
    from porter import __version__
    from porter.models import GPT, Config

    with torch.device("meta"):
        model = GPT(Config.from_mapping(_own(config)))
    return _gpt(f"porter {__version__}", model, weights, dtype)


def _gpt(title: str, model: Any, weights: Weights, dtype: torch.dtype) -> LayeredModel:
    """LitGPT's module, or porter's, whose names are the stored ones."""
    return LayeredModule(
        f"{title}, GPT",
        model,
        blocks=model.transformer.h,
        embedding=model.transformer.wte,
        head=model.lm_head,
        weights=weights,
        fetch=_SameNames(weights, dtype),
        call=model,
        dtype=dtype,
    )


def _transformers(
    config: Mapping[str, Any], weights: Weights, tokens: int, dtype: torch.dtype
) -> LayeredModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    stated = {key: value for key, value in config.items() if key not in ("torch_dtype", "dtype", GENERATION)}
    made = type(AutoConfig.for_model(config["model_type"])).from_dict(stated)
    make: Callable[..., Any] = AutoModelForCausalLM.from_config
    with WeightsOnMeta():
        model = make(made, dtype=torch.float32)
    require_values(model, "transformers")
    blocks = _blocks(model, made.num_hidden_layers)
    names = _StoredNames(model, weights, dtype)
    return LayeredModule(
        f"{version('transformers')}, {type(model).__name__}",
        model,
        blocks=blocks,
        embedding=model.get_input_embeddings(),
        head=model.get_output_embeddings(),
        weights=names,
        fetch=names.fetch,
        call=lambda ids: model(input_ids=ids, use_cache=False).logits,
        dtype=dtype,
    )


def _keras(config: Mapping[str, Any], weights: Weights, tokens: int, dtype: torch.dtype) -> LayeredModel:
    # Keras asks for its backend when it is imported, and by default for TensorFlow.
    os.environ.setdefault("KERAS_BACKEND", "torch")
    from porter.verification.layered_keras import LayeredBackbone, backbone

    built = backbone(config, dtype)
    return LayeredBackbone(f"{version('keras-hub')}, {type(built).__name__}", built, weights, dtype)


def _blocks(model: nn.Module, number: int) -> nn.ModuleList:
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == number:
            return module
    raise UnsupportedError(f"{type(model).__name__} has no list of {number} blocks")


class _StoredNames:
    """transformers 5 keeps some weights in memory otherwise than it stores them: under another name, or the
    experts of a layer in one. Its own functions say how."""

    def __init__(self, model: Any, weights: Weights, dtype: torch.dtype) -> None:
        from transformers.core_model_loading import revert_weight_conversion

        self._model, self._weights, self._dtype = model, weights, dtype
        self._stored: dict[str, tuple[str, ...]] = {}
        self._changed: set[str] = set()
        for name, value in model.state_dict().items():
            value = value.to("meta")
            reverted = revert_weight_conversion(model, {name: value})
            self._stored[name] = tuple(reverted)
            if not (len(reverted) == 1 and all(one is value for one in reverted.values())):
                self._changed.add(name)

    def __contains__(self, name: object) -> bool:
        return all(stored in self._weights for stored in self._stored.get(str(name), (str(name),)))

    def __getitem__(self, name: str) -> Tensor:
        (stored,) = self._stored[name]
        return self._weights[stored]

    def release(self) -> None:
        self._weights.release()

    def fetch(self, names: Sequence[str]) -> Mapping[str, Tensor]:
        changed = [name for name in names if name in self._changed]
        found = {name: copied(self[name], self._dtype) for name in names if name not in self._changed}
        return {**found, **self._loaded(changed)} if changed else found

    def _loaded(self, names: list[str]) -> Mapping[str, Tensor]:
        """Weights that are made of others, as transformers makes them when it loads a checkpoint."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig
        from transformers.utils import logging as transformers_logging

        logging: Any = transformers_logging
        parts = {stored: self._weights[stored] for name in names for stored in self._stored[name]}
        mapping: Any = get_model_conversion_mapping(self._model)
        how = LoadStateDictConfig(dtype=self._dtype, weight_mapping=mapping, device_map={"": "cpu"})
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            convert_and_load_state_dict_in_model(self._model, parts, how)
        finally:
            if shown:
                logging.enable_progress_bar()
        found = {name: self._model.get_parameter(name).detach().to(self._dtype) for name in names}
        if lost := [name for name, weight in found.items() if weight.is_meta]:
            raise UnsupportedError(f"transformers makes no {lost[0]} of {', '.join(self._stored[lost[0]])}")
        return found


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """Token ids for generation stand in a file of their own."""
    return {key: value for key, value in config.items() if key != GENERATION}
