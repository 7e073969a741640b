"""The peers' own readers on the same inputs: what each does with the file that it is for.

A peer is asked for what it promises: to read its own format, safely where it says so. It runs in a process of
its own, under the same limits, without porter's audit hook (their imports open and run much); that code was
run is told by the canary that the gadgets write.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any


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


def _transformers_config(folder: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.from_pretrained(str(folder))


def _litgpt_config(folder: Path) -> None:
    from litgpt.config import Config

    Config.from_file(folder / "model_config.yaml")


def _sentencepiece(folder: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def _tokenizers(folder: Path) -> None:
    from tokenizers import Tokenizer

    Tokenizer.from_file(str(folder / "tokenizer.json"))


# Each peer: its package, the parser whose inputs it gets, the seed that they are made from, and what it does.
PEERS: dict[str, tuple[str, str, str, Callable[[Path], None]]] = {
    "safetensors `safe_open`": ("safetensors", "safetensors", "hf", _safetensors),
    "`torch.load(weights_only=True)`": ("torch", "torch zip and pickle", "pth", _torch),
    "gguf-py `GGUFReader`": ("gguf", "GGUF", "gguf", _gguf),
    "h5py": ("h5py", "Keras HDF5", "keras", _h5py),
    "transformers `AutoConfig`": ("transformers", "config (JSON)", "hf", _transformers_config),
    "LitGPT `Config.from_file`": ("litgpt", "config (YAML)", "litgpt", _litgpt_config),
    "sentencepiece": ("sentencepiece", "SentencePiece", "litgpt", _sentencepiece),
    "tokenizers": ("tokenizers", "tokenizer (JSON)", "hf", _tokenizers),
}


def warm(made: dict[str, Path]) -> None:
    """Import the peers, and let each read what is sound: it must."""
    for _, _, seed, read in PEERS.values():
        read(made[seed])


def title(name: str) -> str:
    return f"{name} {version(PEERS[name][0])}"
