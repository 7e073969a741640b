"""A checkpoint as opened: every tensor by name, and the small files beside it. Headers only, no weight.

What family and dialect it is, is not decided here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from porter.containers.base import Header, StoredTensor
from porter.containers.registry import (
    container_named,
    container_of,
    containers,
    first_bytes,
    refuse_placeholder,
)
from porter.containers.safetensors.shards import check_shards_exist, holders_of, index_remarks, read_index
from porter.containers.torch.torch_state import unwrapped
from porter.containers.torch.torch_zip import STORED_NAMES
from porter.containers.ungathered import adapter_left_out, refuse_adapter, refuse_ungathered
from porter.errors import MalformedError, PorterError, UnsupportedError, UsageError
from porter.reading.unforeseen import reading
from porter.sources.base import Source
from porter.sources.choose_weights import Wanted, check_whole, choose
from porter.sources.local import Location
from porter.sources.local_files import LocalSource
from porter.sources.paths import locate
from porter.sources.weight_files import (
    DOCUMENTS,
    INDEX,
    TEMPLATES,
    WeightSet,
    container_by_suffix,
    fits,
    numbered_set,
    some,
    weight_sets,
)
from porter.wording import option


@dataclass(frozen=True)
class Checkpoint:
    """`files` are the names and paths of everything in the directory that is no weight file.

    `single` says that one weight file was named, and not the directory around it. `source` is where the
    bytes are read, as it was before the headers were; None where only headers are to be had. `remarks` say
    what was chosen among several, and where an index and its shards disagree. `others` are the names of
    further files in the directory, of which porter knows nothing.
    """

    root: Path
    label: str
    container: str
    headers: tuple[Header, ...]
    files: Mapping[str, Path]
    single: bool = False
    source: Source | None = None
    remarks: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors by name, in file order.

        Names lose what `torch.compile`, FSDP and data-parallel wrappers put into them.
        """
        tensors = [tensor for header in self.headers for tensor in header.tensors]
        bare = unwrapped([tensor.name for tensor in tensors])
        if all(name is rest for name, rest in bare.items()):
            return dict(zip(bare, tensors, strict=True))
        return {
            bare[tensor.name]: tensor
            if bare[tensor.name] == tensor.name
            else tensor._replace(name=bare[tensor.name])
            for tensor in tensors
        }

    @property
    def unwrapped(self) -> str | None:
        """A name as it is stored, of those that lost what wrappers had put into them."""
        for header in self.headers:
            stored = header.metadata.get(STORED_NAMES, {}).values()
            names = (tensor.name for tensor in header.tensors if tensor.name not in self.tensors)
            if (name := next(chain(stored, names), None)) is not None:
                return str(name)
        return None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The first weight file's own metadata (GGUF keeps the config and the tokenizer there)."""
        return self.headers[0].metadata if self.headers else {}

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each weight file, by name."""
        return {header.file: header.size for header in self.headers}


def open_checkpoint(location: Location, wanted: Wanted | None = None, key: str | None = None) -> Checkpoint:
    """Read the headers of a checkpoint's weight files; `key` names a torch file's state dict.

    Of several checkpoints in a directory `wanted` says which dialect's is meant. Raises UsageError where that
    is not clear, UnsupportedError for containers that are not read, MalformedError for broken ones and for
    directories that hold no weights.
    """
    # What a file was is recorded before anything is read of it, so that no change goes unnoticed.
    source = LocalSource(location.root, location.label, only=location.file)
    headers, remarks = _headers(location, wanted, key)
    container = container_named(headers[0].container)
    if key is not None and not (container and container.keyed):
        raise UsageError(
            f"{option('key')} names a state dict of a torch file, and {location.label} is none",
            cause=f"it is {headers[0].container}",
        )
    weights = {header.file for header in headers}
    beside = [*location.root.iterdir(), *(location.root / TEMPLATES).glob("*.jinja")]
    paths = {path.relative_to(location.root).as_posix(): path for path in sorted(beside)}
    files = {
        name: path
        for name, path in paths.items()
        if name not in weights and _readable(location.root, name, path)
    }
    others = [name for name, path in paths.items() if name not in files and _is_side_file(name, path)]
    for name in container.beside if container else ():
        if os.path.lexists(location.root / name):
            files[name] = locate(location.root, name)
    return Checkpoint(
        location.root,
        location.label,
        headers[0].container,
        headers,
        files,
        location.file is not None,
        source,
        remarks,
        tuple(others),
    )


# Small files that may be read or copied: configs, tokenizers, templates.
SMALL = (".json", ".yaml", ".yml", ".model", ".jinja", ".txt", ".spm")


def _readable(root: Path, name: str, path: Path) -> bool:
    """Whether a file beside the weights may be used.

    A link that leads out of the checkpoint is an error, and so is what only stands in a file's place: taken
    for absent, a config or a tokenizer would be made up where there is one.
    """
    if path.suffix not in SMALL or (fits(name, DOCUMENTS) and not path.is_file()):
        return False
    if path.is_symlink():
        locate(root, name)
    if not fits(name, DOCUMENTS):
        refuse_placeholder(first_bytes(path, name), name)
    return True


def _is_side_file(name: str, path: Path) -> bool:
    """Whether a file may matter to whoever loads the checkpoint, and is no weight file."""
    return path.is_file() and container_by_suffix(name) is None and not fits(name, DOCUMENTS)


def _headers(
    location: Location, wanted: Wanted | None, key: str | None = None
) -> tuple[tuple[Header, ...], tuple[str, ...]]:
    root = location.root
    names = sorted(path.name for path in root.iterdir())
    refuse_adapter(location.label, [location.file] if location.file else names)
    if location.file is not None:
        if location.file.endswith(INDEX):
            found = next(item for item in weight_sets([location.file, *names]) if item.index == location.file)
            return _read(root, found, key)
        headers, remarks = _read(root, _named(location.file, names), key)
        return headers, (*remarks, *adapter_left_out(names), *_one_of_several(location.file, names))
    sets = (*weight_sets(names), *_folders(root))
    if not sets:
        refuse_ungathered(root)
        raise no_weights(root, names)
    chosen, remarks = choose(sets, str(root), wanted)
    headers, further = _read(root, chosen, key)
    return headers, (*remarks, *adapter_left_out(names), *further)


def _folders(root: Path) -> Iterator[WeightSet]:
    """Checkpoints that are the directory as it stands."""
    for container in containers():
        name = container.folder(root) if container.folder else None
        if name is not None:
            yield WeightSet(name, container.name, ())


def _named(file: str, names: list[str]) -> WeightSet:
    """What is read when one file is named: it alone, but all parts of a GGUF that is split."""
    if file.endswith(".gguf"):
        return numbered_set(file, names)
    return WeightSet(file, container_by_suffix(file) or "", (file,))


def _one_of_several(file: str, names: list[str]) -> tuple[str, ...]:
    """That a shard was named, and what to name for the whole."""
    shards = numbered_set(file, names)
    total = len(shards.files) + len(shards.missing)
    if total < 2 or file.endswith(".gguf"):
        return ()
    return (f"{file} is one shard of {total}; for the whole model name its directory",)


def _read(root: Path, chosen: WeightSet, key: str | None) -> tuple[tuple[Header, ...], tuple[str, ...]]:
    container = container_named(chosen.container)
    whole = container.whole(root, chosen) if container and container.whole else None
    if whole is not None:
        return whole, ()
    if chosen.index is None:
        check_whole(chosen, root.name)
        try:
            return _read_files(root, chosen.files, key), ()
        except MalformedError as error:
            if not chosen.counted:
                raise
            raise UsageError(
                f"{root} holds more than one set of weights",
                cause=f"{some(chosen.files)} are no shards of one model: {error.cause or error.message}",
                hint="name the file that you mean",
            ) from error
    weight_map = read_index(locate(root, chosen.index))
    if chosen.files and not any(file in chosen.files for file in weight_map.values()):
        weight_map = _resaved(weight_map, chosen.files)
    files = sorted(set(weight_map.values()))
    check_shards_exist(files, weight_map, lambda file: locate(root, file).exists(), chosen.index)
    headers = _read_files(root, files, key)
    # The index lists names as they are stored, with what wrappers put into them.
    stored: dict[str, str] = {}
    for header in headers:
        names: Iterable[str] = [tensor.name for tensor in header.tensors]
        if known := header.metadata.get(STORED_NAMES):
            names = [known.get(name, name) for name in names]
        stored.update(dict.fromkeys(names, header.file))
    return headers, index_remarks(weight_map, stored, chosen.index, chosen.files)


def _resaved(weight_map: dict[str, str], files: tuple[str, ...]) -> dict[str, str]:
    """An index whose shards were saved anew under another suffix, as LitGPT did."""
    by_stem = {file.rpartition(".")[0]: file for file in files}
    return {name: by_stem.get(file.rpartition(".")[0], file) for name, file in weight_map.items()}


def _read_files(root: Path, files: Sequence[str], key: str | None) -> tuple[Header, ...]:
    found = {file: container_of(locate(root, file), file) for file in files}
    first = found[files[0]]
    for file, container in found.items():
        if container is not first:
            raise MalformedError(
                f"the shards in {root.name} are files of different kinds",
                cause=f"{files[0]} is {first.name}, {file} is {container.name}",
            )
    with reading(some(files)):
        headers = first.read(root, files, key)
        holders_of(headers)
    return headers


def no_weights(root: str | Path, names: Sequence[str]) -> PorterError:
    if unread := [name for name in names if name.endswith(".msgpack")]:
        return UnsupportedError(
            f"cannot read {unread[0]}: Flax msgpack",
            hint="porter reads safetensors, GGUF, torch, Keras and Orbax",
        )
    return MalformedError(
        f"{root} holds no weights",
        cause="no .safetensors, .gguf, .pth, .bin, .weights.h5 or .keras file, and no Orbax checkpoint",
        hint="give a checkpoint's directory, or its weight file",
    )
