"""A checkpoint as opened: every tensor by name, and the small files beside it. Headers only, no weight.

What family and dialect it is, is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from porter.containers.base import Header, StoredTensor
from porter.errors import MalformedError, UnsupportedError
from porter.sources.local import Location

# Weight files of containers that are known but not read; named so that the error can say what they are.
_OTHER_CONTAINERS = {
    ".bin": "a torch file",
    ".pth": "a torch file",
    ".pt": "a torch file",
    ".ckpt": "a torch file",
    ".h5": "Keras HDF5",
    ".keras": "a Keras archive",
    ".msgpack": "Flax msgpack",
}


@dataclass(frozen=True)
class Checkpoint:
    """`files` are the names and paths of everything in the directory that is no weight file.

    `single` says that one weight file was named, and not the directory around it.
    """

    root: Path
    label: str
    container: str
    headers: tuple[Header, ...]
    files: Mapping[str, Path]
    single: bool = False

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors by name, in file order."""
        return {tensor.name: tensor for header in self.headers for tensor in header.tensors}

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The first weight file's own metadata (GGUF keeps the config and the tokenizer there)."""
        return self.headers[0].metadata if self.headers else {}

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each weight file, by name."""
        return {header.file: header.size for header in self.headers}


def open_checkpoint(location: Location) -> Checkpoint:
    """Read the headers of a checkpoint's weight files.

    Raises UnsupportedError for containers that are not read, MalformedError for broken ones and for
    directories that hold no weights.
    """
    headers = _headers(location)
    weights = {header.file for header in headers}
    files = {
        path.name: path
        for path in sorted(location.root.iterdir())
        if path.is_file() and path.name not in weights and not path.name.endswith(".safetensors")
    }
    return Checkpoint(
        location.root, location.label, headers[0].container, headers, files, location.file is not None
    )


def _headers(location: Location) -> tuple[Header, ...]:
    from porter.containers import gguf, safetensors

    root = location.root
    if location.file is not None:
        path = root / location.file
        if path.suffix == ".safetensors":
            return (safetensors.read_header(path, location.file),)
        if path.suffix == ".gguf":
            return (gguf.read_header(path, location.file),)
        raise _unsupported(path)
    if any(root.glob("*.safetensors")) or any(root.glob("*.safetensors.index.json")):
        return tuple(safetensors.read_checkpoint_headers(root))
    models = sorted(root.glob("*.gguf"))
    if len(models) == 1:
        return (gguf.read_header(models[0], models[0].name),)
    if models:
        raise UnsupportedError(
            f"{root} holds {len(models)} GGUF files",
            cause=", ".join(path.name for path in models[:5]),
            hint="name the file that you mean",
        )
    for path in sorted(root.iterdir()):
        if path.suffix in _OTHER_CONTAINERS and path.is_file():
            raise _unsupported(path)
    raise MalformedError(
        f"{root} holds no weights",
        cause="no .safetensors and no .gguf file",
        hint="give a checkpoint's directory, or its weight file",
    )


def _unsupported(path: Path) -> UnsupportedError:
    kind = _OTHER_CONTAINERS.get(path.suffix, "no container that porter knows")
    return UnsupportedError(f"cannot read {path.name}: {kind}", hint="porter reads safetensors and GGUF")
