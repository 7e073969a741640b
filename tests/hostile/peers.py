"""The peers' own readers on the same inputs: what each does with the files that it is for.

A peer is asked for what its documentation offers: to read its own format, or to load or convert a
checkpoint. It runs in a process of its own, under the same limits, without porter's audit hook (their imports
open and run much); that code was run is told by the canary that the gadgets write. What the Hub's client does
with bad answers is in tests/faults/fault_downloads.py: it reads no format.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

# A gadget that runs must not reach anybody.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")

os.environ |= {"KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": "", **NO_NETWORK}


@dataclass(frozen=True)
class Peer:
    """`inputs` are the parsers whose inputs it gets, each with the seed that they are made from."""

    package: str
    inputs: Sequence[tuple[str, str]]
    read: Callable[[Path], None]


def _safetensors(folder: Path) -> None:
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as opened:
            for name in opened.keys():  # noqa: SIM118
                opened.get_tensor(name)


def _torch(folder: Path) -> None:
    import torch

    torch.load(folder / "lit_model.pth", weights_only=True, map_location="cpu")


def _gguf(folder: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(folder / "model.gguf")
    for field in reader.fields.values():
        field.contents()
    for tensor in reader.tensors:
        gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def _h5py(folder: Path) -> None:
    import h5py

    def read(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            item[()]

    with h5py.File(folder / "model.weights.h5", "r") as opened:
        opened.visititems(read)


def _keras_hub(folder: Path) -> None:
    from keras_hub.models import GemmaBackbone

    GemmaBackbone.from_preset(str(folder))


def _transformers_config(folder: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.from_pretrained(str(folder))


def _transformers(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(str(folder))


def _transformers_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(str(folder))


def _litgpt_config(folder: Path) -> None:
    from litgpt.config import Config

    Config.from_file(folder / "model_config.yaml")


def _litgpt_from_hf(folder: Path) -> None:
    import seeds

    from tests.tiny_litgpt import converter

    script = converter(
        layers=seeds.LAYERS,
        width=seeds.D,
        heads=seeds.H,
        groups=seeds.K,
        head_size=seeds.HEAD,
        hidden=seeds.F,
        vocabulary=seeds.VOCAB,
    )
    script.convert_hf_checkpoint(folder, model_name="tiny-gemma")


def _litgpt_to_hf(folder: Path) -> None:
    from litgpt.scripts.convert_lit_checkpoint import convert_lit_checkpoint

    convert_lit_checkpoint(folder, folder / "made")


def _sentencepiece(folder: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


PEERS: dict[str, Peer] = {
    "safetensors {}, `safe_open`": Peer("safetensors", [("safetensors", "hf")], _safetensors),
    "torch {}, `load(weights_only=True)`": Peer("torch", [("torch zip and pickle", "pth")], _torch),
    "gguf-py {}, `GGUFReader`": Peer("gguf", [("GGUF", "gguf")], _gguf),
    "h5py {}": Peer("h5py", [("Keras HDF5", "keras")], _h5py),
    "KerasHub {}, `from_preset`": Peer("keras-hub", [("Keras HDF5", "keras")], _keras_hub),
    "transformers {}, `AutoConfig`": Peer("transformers", [("config (JSON)", "hf")], _transformers_config),
    "transformers {}, `AutoModelForCausalLM`": Peer(
        "transformers",
        [("safetensors", "hf"), ("shard index", "sharded"), ("torch zip and pickle", "bin")],
        _transformers,
    ),
    "transformers {}, `AutoTokenizer`": Peer(
        "transformers", [("tokenizer (JSON)", "hf")], _transformers_tokenizer
    ),
    "LitGPT {}, `Config.from_file`": Peer("litgpt", [("config (YAML)", "litgpt")], _litgpt_config),
    "LitGPT {}, `convert_hf_checkpoint`": Peer(
        "litgpt",
        [("safetensors", "hf"), ("shard index", "sharded"), ("torch zip and pickle", "bin")],
        _litgpt_from_hf,
    ),
    "LitGPT {}, `convert_lit_checkpoint`": Peer("litgpt", [("torch zip and pickle", "pth")], _litgpt_to_hf),
    "sentencepiece {}": Peer("sentencepiece", [("SentencePiece", "litgpt")], _sentencepiece),
}


def title(name: str) -> str:
    return name.format(version(PEERS[name].package))
