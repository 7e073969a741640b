"""Placing tensors in an Orbax checkpoint: each is one uncompressed zarr chunk, a file of its own.

That is a form that Orbax itself can write (`use_ocdbt=False`, no compression) and restores like any other.
Its chunks are plain row-major bytes, so that neither tensorstore nor JAX is needed to write them. The tree is
the flat one of the published Gemma checkpoints: {"transformer/layer_0/attn/q_einsum": {"w": …}}.

Format: Orbax 0.12 (`_METADATA`, `_CHECKPOINT_METADATA`), the zarr v2 specification.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from porter.containers.base import OutputFile, StoredTensor, TensorSpec
from porter.containers.orbax.orbax_tree import CONTAINER
from porter.containers.orbax.zarr_chunks import chunk_key
from porter.errors import UnsupportedError

_WORDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "I8": "|i1", "U8": "|u1"}

# Orbax asks which handler is to read it; this one restores a whole tree.
_HANDLER = "orbax.checkpoint._src.handlers.standard_checkpoint_handler.StandardCheckpointHandler"

# Orbax's number for a key of a dict.
_DICT_KEY = 2


def place(tensors: Iterable[TensorSpec]) -> tuple[tuple[OutputFile, ...], dict[str, bytes]]:
    """The files of the arrays, and by name the small files around them. UnsupportedError for odd dtypes."""
    files, small, tree = [], {}, {}
    for name, dtype, shape in tensors:
        if dtype.name not in _WORDS or 0 in shape:
            raise UnsupportedError(
                f"{name} cannot be stored in an Orbax checkpoint", cause=f"it is {dtype.name} {list(shape)}"
            )
        group, _, leaf = name.rpartition("/")
        path = (group, leaf) if group else (leaf,)
        param = ".".join(path)
        file = f"{param}/{chunk_key(shape)}"
        tensor = StoredTensor(name, dtype, shape, file, 0)
        files.append(OutputFile(file, CONTAINER, tensor.nbytes, (tensor,)))
        small[f"{param}/.zarray"] = _json(_array(_WORDS[dtype.name], shape))
        tree[str(path)] = {
            "key_metadata": [{"key": key, "key_type": _DICT_KEY} for key in path],
            "value_metadata": {
                "value_type": "jax.Array",
                "skip_deserialize": False,
                "write_shape": list(shape),
            },
        }
    small["_METADATA"] = _json(
        {
            "tree_metadata": tree,
            "use_ocdbt": False,
            "use_zarr3": False,
            "store_array_data_equal_to_fill_value": True,
            "custom_metadata": None,
        }
    )
    small["_CHECKPOINT_METADATA"] = _json(
        {"item_handlers": _HANDLER, "metrics": {}, "performance_metrics": {}, "custom_metadata": {}}
    )
    return tuple(files), small


def literals(file: OutputFile) -> list[tuple[int, bytes]]:
    """Nothing surrounds a chunk's data."""
    return []


def _array(word: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        "chunks": list(shape),
        "compressor": None,
        "dimension_separator": ".",
        "dtype": word,
        "fill_value": None,
        "filters": None,
        "order": "C",
        "shape": list(shape),
        "zarr_format": 2,
    }


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
