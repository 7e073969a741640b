"""KerasHub's backbones as a `LayeredModel`: Keras' own code, one block's variables in memory at a time.

Keras' layers pass by no hook of PyTorch, so that a block's `call` is wrapped instead. Which variable a stored
name means is asked of Keras' own saving code, by saving into something that keeps no values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from porter.errors import UnsupportedError
from porter.verification.layerwise import Seen, Weights, copied


def backbone(config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """The backbone that a preset's config describes, its variables without values.

    The class is taken from KerasHub's models by name; nothing else that a config names is imported.
    """
    import keras
    import keras_hub
    from keras.src.backend.common import global_state

    if keras.backend.backend() != "torch":
        raise UnsupportedError(
            f"Keras runs on {keras.backend.backend()} here", hint="set KERAS_BACKEND=torch in the environment"
        )
    made = getattr(keras_hub.models, str(config["class_name"]), None)
    if not (isinstance(made, type) and issubclass(made, keras_hub.models.Backbone)):
        raise UnsupportedError(f"KerasHub has no backbone {config['class_name']!r}")
    stated = {key: value for key, value in config["config"].items() if key not in ("dtype", "trainable")}
    with keras.StatelessScope(initialize_variables=False):
        built = made(**stated, dtype=str(dtype).removeprefix("torch."))
    # Else the next scope that ends would make them all.
    global_state.set_global_attribute("uninitialized_variables", [])
    return built


def variables_by_name(built: Any) -> dict[str, Any]:
    """Keras' variables by the names under which `.weights.h5` holds them."""
    from keras.src.saving import saving_lib

    found: dict[str, Any] = {}

    class Names(saving_lib.NpzIOStore):  # type: ignore[misc]
        """Takes what is saved, and writes nothing."""

        def __init__(self) -> None:
            pass

        def make(self, path: str, metadata: Any = None) -> Any:
            return _Group(path)

    class _Group(dict[str, Any]):
        def __init__(self, path: str) -> None:
            self.path = path

        def __setitem__(self, key: str, value: Any) -> None:
            found[f"{self.path}/vars/{key}"] = value

    saving_lib._save_state(
        built, weights_store=Names(), assets_store=None, inner_path="", visited_saveables=set()
    )
    return found


class LayeredBackbone:
    """See `LayeredModel`. The head is the embedding, called in reverse."""

    def __init__(self, title: str, built: Any, weights: Weights, dtype: torch.dtype) -> None:
        if not hasattr(built, "transformer_layers"):
            raise UnsupportedError(
                f"KerasHub's {type(built).__name__} cannot be run block by block",
                cause="its blocks stand inside another layer",
            )
        self.title, self.layers = title, len(built.transformer_layers)
        self._built, self._weights, self._dtype = built, weights, dtype
        self._names = {id(variable): name for name, variable in variables_by_name(built).items()}
        self.rows = built.token_embedding.input_dim
        self._hidden = torch.empty(0)
        self._table: Tensor | None = None

    def hidden(self, ids: Tensor, seen: Seen) -> None:
        from keras.layers import Embedding

        built = self._built
        used, places = torch.unique(ids[None], return_inverse=True)
        for layer in built.layers:
            if layer is built.token_embedding or layer in built.transformer_layers:
                continue
            if isinstance(layer, Embedding):
                # Gemma 4 looks every token up in a second table.
                self._set_rows(layer, self._weights[self._names[id(layer._embeddings)]][used])
            else:
                self._fill(layer)
        with ExitStack() as stack:
            for number, block in enumerate(built.transformer_layers):
                stack.enter_context(_wrapped(block, self._block(number, block, seen)))
            self._set_rows(built.token_embedding, self._embeddings()[used])
            given = {
                "token_ids": places,
                "padding_mask": torch.ones_like(places),
                "position_ids": torch.arange(len(ids))[None],
            }
            with torch.inference_mode():
                self._hidden = built({name: given[name] for name in built.input})
        seen("final norm", self._hidden)

    def logits(self, start: int, end: int) -> Tensor:
        if self._table is None:
            self._table = self._embeddings()
        embedding = self._built.token_embedding
        self._set_rows(embedding, self._table[start:end])
        with torch.inference_mode():
            found: Tensor = embedding(self._hidden, reverse=True)
        return found[0]

    def _embeddings(self) -> Tensor:
        return self._weights[self._names[id(self._built.token_embedding._embeddings)]]

    def _set_rows(self, embedding: Any, rows: Tensor) -> None:
        value = nn.Parameter(copied(rows, self._dtype), requires_grad=False)
        embedding._embeddings._value = value
        self._weights.release()

    def _block(self, number: int, block: Any, seen: Seen) -> Callable[..., Any]:
        own = block.call

        def call(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            if number == 0:
                seen("embedding", x)
            self._fill(block)
            returned = own(x, *args, **kwargs)
            for variable in block.variables:
                variable._value = None
            seen(f"layer {number}", returned[0] if isinstance(returned, tuple) else returned)
            return returned

        return call

    def _fill(self, layer: Any) -> None:
        for variable in layer.variables:
            name = self._names.get(id(variable))
            # The state of a dropout's random numbers is no weight.
            if name is not None and name in self._weights:
                value = copied(self._weights[name], self._dtype)
                variable._value = nn.Parameter(value, requires_grad=False)
        self._weights.release()


class _wrapped:
    """Inside, the layer's `call` is another."""

    def __init__(self, layer: Any, call: Callable[..., Any]) -> None:
        self._layer, self._call, self._own = layer, call, layer.call

    def __enter__(self) -> None:
        self._layer.call = self._call

    def __exit__(self, *_: object) -> None:
        self._layer.call = self._own
