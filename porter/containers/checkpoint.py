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
from porter.containers.storage_kinds import adapter_file
from porter.containers.torch.torch_state import unwrapped
from porter.errors import MalformedError, UnsupportedError, UsageError
from porter.sources.base import Source
from porter.sources.local import Location
from porter.sources.local_files import LocalSource
from porter.sources.paths import locate

# Weight files of containers that are known but not read; named so that the error can say what they are.
_OTHER_CONTAINERS = {
    ".msgpack": "Flax msgpack",
}


@dataclass(frozen=True)
class Checkpoint:
    """`files` are the names and paths of everything in the directory that is no weight file.

    `single` says that one weight file was named, and not the directory around it. `source` is where the
    bytes are read, as it was before the headers were; None where only headers are to be had.
    """

    root: Path
    label: str
    container: str
    headers: tuple[Header, ...]
    files: Mapping[str, Path]
    single: bool = False
    source: Source | None = None

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors by name, in file order.

        Names lose what `torch.compile`, FSDP and data-parallel wrappers put into them.
        """
        tensors = [tensor for header in self.headers for tensor in header.tensors]
        bare = unwrapped(tensor.name for tensor in tensors)
        return {
            bare[tensor.name]: tensor
            if bare[tensor.name] == tensor.name
            else tensor._replace(name=bare[tensor.name])
            for tensor in tensors
        }

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The first weight file's own metadata (GGUF keeps the config and the tokenizer there)."""
        return self.headers[0].metadata if self.headers else {}

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each weight file, by name."""
        return {header.file: header.size for header in self.headers}


def open_checkpoint(location: Location, key: str | None = None) -> Checkpoint:
    """Read the headers of a checkpoint's weight files; `key` names a torch file's state dict.

    Raises UnsupportedError for containers that are not read, MalformedError for broken ones and for
    directories that hold no weights.
    """
    from porter.containers.keras import hdf5
    from porter.containers.keras import keras_files as keras
    from porter.containers.torch import torch_zip

    # What a file was is recorded before anything is read of it, so that no change goes unnoticed.
    source = LocalSource(location.root, location.label, only=location.file)
    headers = _headers(location, key)
    if key is not None and headers[0].container != torch_zip.CONTAINER:
        raise UsageError(
            f"--key names a state dict of a torch file, and {location.label} is none",
            cause=f"it is {headers[0].container}",
        )
    weights = {header.file for header in headers}
    files = {
        path.name: path
        for path in sorted(location.root.iterdir())
        if path.name not in weights and _readable(location.root, path)
    }
    if headers[0].container == hdf5.CONTAINER and (location.root / keras.TOKENIZER).is_file():
        files[keras.TOKENIZER] = locate(location.root, keras.TOKENIZER)
    single = location.file is not None
    return Checkpoint(location.root, location.label, headers[0].container, headers, files, single, source)


# Small files that may be read or copied: configs, tokenizers, templates.
_SMALL = (".json", ".yaml", ".yml", ".model", ".jinja", ".txt", ".spm")


def _readable(root: Path, path: Path) -> bool:
    """Whether a file beside the weights may be used. A link that leads out of the checkpoint is an error."""
    if path.suffix not in _SMALL or not path.is_file():
        return False
    if path.is_symlink():
        locate(root, path.name)
    return True


def _headers(location: Location, key: str | None) -> tuple[Header, ...]:
    from porter.containers.gguf import gguf_split as gguf
    from porter.containers.keras import keras_files as keras
    from porter.containers.orbax import orbax_tree as orbax
    from porter.containers.safetensors import shards as safetensors
    from porter.containers.torch import torch_zip

    root = location.root
    _refuse_adapter(location)
    if location.file is not None:
        path = root / location.file
        if path.suffix == ".safetensors":
            return (safetensors.read_header(path, location.file),)
        if path.suffix == ".gguf":
            return gguf.read_file(root, location.file)
        if path.suffix in torch_zip.SUFFIXES:
            return (torch_zip.read_header(path, location.file, key),)
        if keras.is_keras(path.name):
            return keras.read_file(root, location.file)
        raise _unsupported(path)
    if any(root.glob("*.safetensors")) or any(root.glob("*.safetensors.index.json")):
        return tuple(safetensors.read_checkpoint_headers(root))
    if models := sorted(path.name for path in root.glob("*.gguf")):
        return gguf.read_directory(root, models)
    if keras.holds_keras(root):
        return keras.read_directory(root)
    if orbax.holds_orbax(root):
        return orbax.read_directory(root)
    if any(path.suffix in torch_zip.SUFFIXES for path in root.iterdir() if path.is_file()):
        return tuple(torch_zip.read_checkpoint_headers(root, key))
    for path in sorted(root.iterdir()):
        if path.suffix in _OTHER_CONTAINERS and path.is_file():
            raise _unsupported(path)
    raise MalformedError(
        f"{root} holds no weights",
        cause="no .safetensors, .gguf, .pth, .bin, .weights.h5 or .keras file, and no Orbax checkpoint",
        hint="give a checkpoint's directory, or its weight file",
    )


def _refuse_adapter(location: Location) -> None:
    """An adapter, by its file's name, is a change to a model and not a model."""
    names = [location.file] if location.file else [path.name for path in location.root.iterdir()]
    if (found := adapter_file(names)) is not None:
        file, kind = found
        raise UnsupportedError(
            f"{location.label} is an adapter, not a whole model",
            cause=f"found {file}, which holds changes to the weights of another checkpoint",
            hint=kind.hint,
        )


def _unsupported(path: Path) -> UnsupportedError:
    kind = _OTHER_CONTAINERS.get(path.suffix, "no container that porter knows")
    return UnsupportedError(
        f"cannot read {path.name}: {kind}", hint="porter reads safetensors, GGUF, torch, Keras and Orbax"
    )
