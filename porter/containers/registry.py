"""The containers that porter knows, and which of them a file is of. Their contract is in `contract`.

What a file holds is told by its first bytes; its suffix counts only where they say nothing. So a blob of the
Hub or of Ollama, which has no suffix, and a file under a wrong one are read as what they are. What is no
weight file at all but stands in the place of one (a Git LFS pointer, a web page) is named as that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from porter.containers.base import Header, OutputFile, TensorSpec
from porter.containers.contract import START, Container, Placed, Placement
from porter.containers.gguf import gguf_header, gguf_split
from porter.containers.keras import hdf5, hdf5_writer, keras_files
from porter.containers.orbax import orbax_tree, orbax_writer
from porter.containers.safetensors import safetensors_header, safetensors_writer, shards
from porter.containers.torch import torch_zip, torch_zip_writer
from porter.errors import MalformedError, UnsupportedError, UsageError
from porter.reading.regular import open_regular, unreadable
from porter.reading.unforeseen import reading
from porter.sources.paths import locate
from porter.sources.weight_files import KERAS_INDEX, WeightSet, container_by_suffix, learn_suffixes


def _is_safetensors(start: bytes) -> bool:
    return start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= safetensors_header.MAX_HEADER


def _is_gguf(start: bytes) -> bool:
    return start.startswith(gguf_header.MAGIC)


def _is_torch(start: bytes) -> bool:
    """A zip with all in one folder; or what torch wrote before: a bare pickle, a tar archive."""
    if name := _first_in_zip(start):
        return b"/" in name
    return start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or start[257:262] == b"ustar"


def _is_keras(start: bytes) -> bool:
    """HDF5, or the archive around it."""
    name = _first_in_zip(start)
    return start.startswith(b"\x89HDF\r\n\x1a\n") or name in (
        b"metadata.json",
        b"config.json",
        b"model.weights.h5",
    )


def _first_in_zip(start: bytes) -> bytes | None:
    if not start.startswith(b"PK\x03\x04"):
        return None
    return start[30 : 30 + int.from_bytes(start[26:28], "little")]


def _read_safetensors(root: Path, files: Sequence[str], key: str | None) -> tuple[Header, ...]:
    return tuple(shards.read_header(locate(root, file), file) for file in files)


def _read_gguf(root: Path, files: Sequence[str], key: str | None) -> tuple[Header, ...]:
    # Of a model in several files, any of them leads to all.
    return gguf_split.read_file(root, files[0]) if len(files) == 1 else gguf_split.read_directory(root, files)


def _read_keras(root: Path, files: Sequence[str], key: str | None) -> tuple[Header, ...]:
    return tuple(header for file in files for header in keras_files.read_file(root, file))


def _whole_keras(root: Path, found: WeightSet) -> tuple[Header, ...] | None:
    """A preset: `model.weights.h5`, or the parts that Keras' own index lists."""
    if found.index != KERAS_INDEX and found.name != keras_files.WEIGHTS:
        return None
    with reading(found.index or found.name):
        return keras_files.read_directory(root)


def _read_orbax(root: Path, files: Sequence[str], key: str | None) -> tuple[Header, ...]:
    with reading(root):
        return orbax_tree.read_directory(root)


def _orbax_folder(root: Path) -> str | None:
    return "_METADATA" if orbax_tree.holds_orbax(root) else None


def _is_orbax(start: bytes) -> bool:
    """No file is told to be Orbax: a checkpoint of many is known by the names in its directory."""
    return False


# What every writer in this field puts there, and transformers asks for.
_PT = {"format": "pt"}


def _place_safetensors(tensors: Sequence[TensorSpec], wish: Placement) -> Placed:
    """In one file, or in shards by the Hub's rule with their index."""
    wish.refuse_beyond("safetensors", "max_shard_size")
    if wish.max_shard_size is None:
        return (safetensors_writer.place(wish.file, tensors, _PT, wish.residues),), {}
    stem, _, suffix = wish.file.rpartition(".")
    groups, index = safetensors_writer.shard(tensors, wish.max_shard_size, f"{stem}{{suffix}}.{suffix}")
    by_name = {spec[0]: spec for spec in tensors}
    files = tuple(
        safetensors_writer.place(file, [by_name[name] for name in names], _PT, wish.residues)
        for file, names in groups.items()
    )
    return files, {} if index is None else {f"{wish.file}.index.json": index}


def _place_torch(tensors: Sequence[TensorSpec], wish: Placement) -> Placed:
    wish.refuse_beyond("a torch file", "ties", "wrap")
    return (
        torch_zip_writer.place(wish.file, tensors, wish.ties, residues=wish.residues, wrap=wish.wrap),
    ), {}


def _place_keras(tensors: Sequence[TensorSpec], wish: Placement) -> Placed:
    wish.refuse_beyond("Keras' HDF5")
    return (hdf5_writer.place(wish.file, tensors, {}),), {}


def _place_orbax(tensors: Sequence[TensorSpec], wish: Placement) -> Placed:
    wish.refuse_beyond("an Orbax checkpoint")
    return orbax_writer.place(tensors)


def _frame_safetensors(file: OutputFile, crcs: Mapping[str, int] | None) -> list[tuple[int, bytes]]:
    return safetensors_writer.literals(file)


def _frame_keras(file: OutputFile, crcs: Mapping[str, int] | None) -> list[tuple[int, bytes]]:
    return hdf5_writer.literals(file)


def _frame_orbax(file: OutputFile, crcs: Mapping[str, int] | None) -> list[tuple[int, bytes]]:
    return orbax_writer.literals(file)


# In the order in which they are asked.
_containers = [
    Container(
        safetensors_header.CONTAINER,
        _is_safetensors,
        _read_safetensors,
        headers=shards.header_of,
        place=_place_safetensors,
        frame=_frame_safetensors,
    ),
    Container("gguf", _is_gguf, _read_gguf),
    Container(
        torch_zip.CONTAINER,
        _is_torch,
        torch_zip.read_headers,
        place=_place_torch,
        frame=torch_zip_writer.literals,
        sums=True,
        keyed=True,
    ),
    Container(
        hdf5.CONTAINER,
        _is_keras,
        _read_keras,
        place=_place_keras,
        frame=_frame_keras,
        whole=_whole_keras,
        beside=(keras_files.TOKENIZER,),
    ),
    Container(
        orbax_tree.CONTAINER,
        _is_orbax,
        _read_orbax,
        place=_place_orbax,
        frame=_frame_orbax,
        folder=_orbax_folder,
        whole=lambda root, found: _read_orbax(root, (), None),
        file_per_tensor=True,
    ),
]


def containers() -> tuple[Container, ...]:
    """All that are known now."""
    return tuple(_containers)


def container_named(name: str) -> Container | None:
    return next((container for container in _containers if container.name == name), None)


def writable_container(name: str, what: str) -> Container:
    """Raises UnsupportedError, about `what`, for a container that is not written or not known."""
    found = container_named(name)
    if found is None or found.place is None or found.frame is None:
        raise UnsupportedError(f"{what}: cannot write the container {name}")
    return found


def register(container: Container) -> None:
    """Adds a container for as long as the process runs; it is asked before those that were there.

    Raises UsageError where its name, or one of its suffixes, is taken. Registering the same again is fine.
    """
    known = container_named(container.name)
    if known == container:
        return
    if known is not None:
        raise UsageError(f"there is a container called {container.name} already")
    learn_suffixes(container.name, container.suffixes)
    _containers.insert(0, container)


def recognised(start: bytes) -> Container | None:
    """The container that a file's first bytes show."""
    return next((container for container in _containers if container.recognise(start)), None)


def container_of(path: Path, file: str) -> Container:
    """What reads the file at `path`, which is called `file`. Raises MalformedError for what only stands in
    the place of weights, UnsupportedError for what no container knows."""
    return container_shown(first_bytes(path, file), file)


def container_shown(start: bytes, file: str) -> Container:
    """What reads the file that is called `file` and starts with `start`; raises as `container_of` does."""
    found = recognised(start)
    if found is not None:
        return found
    refuse_placeholder(start, file)
    by_suffix = container_named(container_by_suffix(file) or "")
    if by_suffix is not None:
        # Its reader says what is wrong with it.
        return by_suffix
    kind = "Flax msgpack" if file.endswith(".msgpack") else "no container that porter knows"
    raise UnsupportedError(
        f"cannot read {file}: {kind}",
        cause=f"it starts with {start[:8]!r}",
        hint="porter reads safetensors, GGUF, torch, Keras and Orbax",
    )


def first_bytes(path: Path, file: str) -> bytes:
    with open_regular(path, file) as stream:
        try:
            return stream.read(START)
        except OSError as error:
            raise unreadable(error, file) from error


def refuse_placeholder(start: bytes, file: str) -> None:
    """Raises MalformedError for a Git LFS pointer and for a web page."""
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        raise MalformedError(
            f"{file} is a Git LFS pointer, not the file itself",
            cause="the repository was cloned without Git LFS, or its files have not been fetched",
            hint="git lfs install && git lfs pull, in the clone; or let porter download it",
        )
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower()
    if text.startswith((b"<!doctype html", b"<html")):
        raise MalformedError(
            f"{file} is a web page, not the file that its name says",
            cause="a download saved the page around the file, or a page that asks to log in",
            hint="download it again, with porter or by the file's own link (on the Hub, /resolve/ and not "
            "/blob/)",
        )
