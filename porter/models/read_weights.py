"""The weights of a LitGPT directory as tensors: `lit_model.safetensors`, or a `lit_model.pth`.

Nothing that a file names is executed: a torch file's records are read by porter's own reader, and its data
are mapped, so that writing to a tensor never changes the file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from porter.containers.torch import torch_zip
from porter.errors import MalformedError

SAFETENSORS, TORCH = "lit_model.safetensors", "lit_model.pth"


def weights_path(directory: Path) -> Path:
    """The weight file of a directory; safetensors where both are there. Raises MalformedError for none."""
    for name in (SAFETENSORS, TORCH):
        if (directory / name).is_file():
            return directory / name
    raise MalformedError(f"{directory / SAFETENSORS}: no such file", hint=f"nor is there a {TORCH}")


def read_tensors(path: Path, device: str | torch.device) -> dict[str, Tensor]:
    """All tensors of the file on `device`; names that share a storage in a torch file share one tensor."""
    if path.suffix == ".pth":
        return _read_torch(path, device)
    try:
        return load_file(path, device=str(device))
    except SafetensorError as error:
        raise MalformedError(f"{path}: not a safetensors file", cause=str(error)) from error


def _read_torch(path: Path, device: str | torch.device) -> dict[str, Tensor]:
    header = torch_zip.read_header(path, path.name)
    data = torch.from_file(str(path), shared=False, size=header.size, dtype=torch.uint8)
    tensors: dict[str, Tensor] = {}
    shared: dict[tuple[int, tuple[int, ...], str], Tensor] = {}
    for tensor in header.tensors:
        key = (tensor.offset, tensor.shape, tensor.dtype.name)
        if key not in shared:
            raw = data[tensor.offset : tensor.offset + tensor.nbytes]
            # A view as wider numbers must begin at one; torch's own files always do.
            raw = raw if tensor.offset % tensor.dtype.itemsize == 0 else raw.clone()
            shared[key] = raw.view(getattr(torch, str(tensor.dtype.torch))).view(tensor.shape).to(device)
        tensors[tensor.name] = shared[key]
    return tensors
