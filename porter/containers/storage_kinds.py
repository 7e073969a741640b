"""Ways of storing weights that porter does not undo, told by what they leave among a checkpoint's tensors.

Quantisers store whole numbers or eight-bit floats with factors beside them, adapters store changes to another
model's weights, ZeRO-3 stores placeholders. None of these can be left out: without them the rest is no
model. Each is named as what it is, with what its own software does to make plain weights of it.

Where: bitsandbytes' `nn/modules.py` and `functional.py`, AutoGPTQ and AutoAWQ's linear layers,
compressed-tensors, transformers' `finegrained_fp8`, PEFT's `tuners`, LitGPT's `lora.py`, Keras'
`Dense.enable_lora`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from porter.containers.base import StoredTensor


@dataclass(frozen=True)
class StorageKind:
    """`what` completes "these weights are …", `hint` says how plain weights are made of them.

    `parts` are parts of names that nothing else has.
    """

    what: str
    hint: str
    parts: tuple[str, ...]


_DEQUANTISE = "load it with transformers, call model.dequantize() and save_pretrained(), and port that"


def _loaded_as(config: str) -> str:
    return (
        f"load it with transformers, from_pretrained(…, quantization_config={config}(dequantize=True)), then "
        "save_pretrained(), and port that"
    )


# Of GPTQ, AWQ and most others, transformers has no way back.
_ORIGINAL = "port the model that it was quantised from; transformers does not undo this kind"

PEFT_LORA = StorageKind(
    "a LoRA adapter's, or of a model whose adapter has not been merged (PEFT)",
    "merge it first: peft's merge_and_unload(), then save_pretrained(), and port that",
    (".lora_A.", ".lora_B.", ".lora_embedding_A", ".lora_magnitude_vector", ".base_layer."),
)
LITGPT_LORA = StorageKind(
    "a LoRA adapter's (LitGPT)",
    "merge it first: litgpt merge_lora DIRECTORY, and port the lit_model.pth that it makes",
    ("lora_A", "lora_B"),
)
KERAS_LORA = StorageKind(
    "a LoRA adapter's (Keras)",
    "in KerasHub: load the preset, backbone.enable_lora(rank), backbone.load_lora_weights(file), then "
    "save_to_preset(DIRECTORY), and port that",
    ("lora_kernel_a", "lora_kernel_b", "lora_embeddings_a", "lora_embeddings_b", "/lora/"),
)
LITGPT_ADAPTER = StorageKind(
    "a LLaMA-Adapter's (LitGPT)",
    "it adds to what attention computes and cannot be merged: train with `litgpt finetune_lora`, merge that",
    (".adapter_wte.", ".gating_factor"),
)
ADAPTERS = (PEFT_LORA, LITGPT_LORA, LITGPT_ADAPTER, KERAS_LORA)


BITSANDBYTES_4BIT = StorageKind(
    "quantised to 4 bits by bitsandbytes",
    _DEQUANTISE,
    (".quant_state.bitsandbytes__", ".quant_map", ".nested_absmax", ".absmax"),
)
BITSANDBYTES_INT8 = StorageKind("quantised to int8 by bitsandbytes", _DEQUANTISE, (".SCB", ".weight_format"))
GPTQ = StorageKind("quantised by GPTQ", _ORIGINAL, (".g_idx",))
AWQ_OR_GPTQ = StorageKind("quantised by AWQ or GPTQ", _ORIGINAL, (".qweight", ".qzeros"))
COMPRESSED_TENSORS = StorageKind(
    "quantised by compressed-tensors",
    _loaded_as("CompressedTensorsConfig"),
    (".weight_packed", ".weight_shape", ".weight_zero_point"),
)
MXFP4 = StorageKind("quantised to MXFP4", _loaded_as("Mxfp4Config"), ("_proj_blocks", "_proj_scales"))
FP8 = StorageKind(
    "FP8 or integers with scales beside them",
    _loaded_as("FineGrainedFP8Config"),
    (".weight_scale", ".input_scale", ".k_scale", ".v_scale", "_scale_inv"),
)
_QUANTISED = (BITSANDBYTES_4BIT, BITSANDBYTES_INT8, GPTQ, AWQ_OR_GPTQ, COMPRESSED_TENSORS, MXFP4, FP8)

# By `quant_method` of a config, where the words of the tensors' own kind would say less.
_METHODS = {
    "gptq": GPTQ,
    "awq": StorageKind("quantised by AWQ", _ORIGINAL, ()),
    "compressed-tensors": COMPRESSED_TENSORS,
    "mxfp4": MXFP4,
    "fp8": StorageKind("FP8 with scales beside them", FP8.hint, ()),
    "higgs": StorageKind("quantised by HIGGS", _DEQUANTISE, ()),
}
_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})


def quantised_as(
    config: Any, tensors: Mapping[str, StoredTensor], weights: Iterable[str]
) -> StorageKind | None:
    """The kind that a `quantization_config` of transformers speaks of; None where it describes nothing that
    is there: a merged finetune may keep the words of the quantised model that it began as.

    `weights` are the names of tensors that are weights of the model. They are all plain floats then, and
    nothing that a quantiser leaves is among the tensors.
    """
    found = find_kind(tensors)
    left = found if found not in ADAPTERS else None
    if left is None and all(tensors[name].dtype.name in _PLAIN for name in weights):
        return None
    said = config if isinstance(config, Mapping) else {}
    method = said.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in said else None)
    if method == "bitsandbytes":
        return BITSANDBYTES_4BIT if said.get("load_in_4bit") else BITSANDBYTES_INT8
    if isinstance(method, str):
        return _METHODS.get(method) or StorageKind(f"quantised by {method}", _ORIGINAL, ())
    return left or whole_numbers(tensors)


def find_kind(names: Iterable[str]) -> StorageKind | None:
    """The first kind that one of the names gives away; None for plain weights."""
    known = list(names)
    for kind in (*ADAPTERS, *_QUANTISED):
        if any(part in name for name in known for part in kind.parts):
            return kind
    return None


def adapter_kind(name: str) -> StorageKind | None:
    """The kind of adapter that a file of this name holds; None for other files."""
    if name.startswith("adapter_model."):
        return PEFT_LORA
    if name.endswith(".lora.h5"):
        return KERAS_LORA
    if name.endswith((".pth.adapter", ".pth.adapter_v2")):
        return LITGPT_ADAPTER
    return LITGPT_LORA if name.endswith(".pth.lora") else None


def lone_adapter(names: Iterable[str]) -> StorageKind | None:
    """The kind of adapter of which a checkpoint holds nothing else."""
    known = list(names)
    for kind in ADAPTERS:
        if known and all(any(part in name for part in kind.parts) for name in known):
            return kind
    return None


def whole_numbers(tensors: Mapping[str, StoredTensor]) -> StorageKind:
    """What weights that are stored as whole numbers look like, by what stands beside them."""
    found = find_kind(tensors)
    if found is not None and found not in ADAPTERS:
        return found
    stored = sorted({tensor.dtype.name for tensor in tensors.values() if tensor.dtype.kind != "float"})
    if stored == ["I8"]:
        return StorageKind("quantised to int8, as bitsandbytes does it, without its scales", _DEQUANTISE, ())
    if any(tensor.dtype.name.startswith("F8") for tensor in tensors.values()):
        return StorageKind("FP8 without scales beside them", _DEQUANTISE, ())
    return StorageKind("quantised, or no weights at all", "port the weights that were quantised", ())
