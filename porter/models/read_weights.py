"""The weights of a LitGPT directory as tensors: `lit_model.safetensors`, or a `lit_model.pth`.

Nothing that a file names is executed, and the file is never written to.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from porter.containers.checkpoint import open_checkpoint
from porter.errors import MalformedError
from porter.execution.state_dict import StateDict
from porter.planning.as_stored import as_stored
from porter.sources.local import Location

SAFETENSORS, TORCH = "lit_model.safetensors", "lit_model.pth"


def weights_path(directory: Path) -> Path:
    """The weight file of a directory; safetensors where both are there. Raises MalformedError for none."""
    for name in (SAFETENSORS, TORCH):
        if (directory / name).is_file():
            return directory / name
    raise MalformedError(f"{directory / SAFETENSORS}: no such file", hint=f"nor is there a {TORCH}")


def read_tensors(path: Path, device: str | torch.device) -> dict[str, Tensor]:
    """All tensors of the file on `device`; names that share a storage in a torch file share one tensor."""
    checkpoint = open_checkpoint(Location(path.parent, path.name, path.stem))
    assert checkpoint.source is not None
    return dict(StateDict(as_stored(checkpoint), checkpoint.source, device))
