"""The containers that porter reads, each with how its files are recognised and how their headers are read.

What a file holds is told by its first bytes; its suffix counts only where they say nothing. So a blob of the
Hub or of Ollama, which has no suffix, and a file under a wrong one are read as what they are. What is no
weight file at all but stands in the place of one (a Git LFS pointer, a web page) is named as that.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from porter.containers.base import Header
from porter.containers.gguf import gguf_header, gguf_split
from porter.containers.keras import keras_files
from porter.containers.safetensors import safetensors_header, shards
from porter.containers.torch import torch_zip
from porter.errors import MalformedError, PorterError, UnsupportedError
from porter.sources.paths import locate
from porter.sources.weight_files import container_by_suffix

# Bytes that are looked at. The first name in a zip follows 30 bytes of numbers.
START = 512


@dataclass(frozen=True)
class Container:
    """`recognise` is given the first `START` bytes of a file; `read` a directory, files in it, and the name
    of a state dict, where a file may hold several.
    """

    name: str
    recognise: Callable[[bytes], bool]
    read: Callable[[Path, Sequence[str], str | None], tuple[Header, ...]]


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


CONTAINERS = (
    Container("safetensors", _is_safetensors, _read_safetensors),
    Container("gguf", _is_gguf, _read_gguf),
    Container("torch", _is_torch, torch_zip.read_headers),
    Container("hdf5", _is_keras, _read_keras),
)
_BY_NAME = {container.name: container for container in CONTAINERS}


def recognised(start: bytes) -> Container | None:
    """The container that a file's first bytes show."""
    return next((container for container in CONTAINERS if container.recognise(start)), None)


def container_of(path: Path, file: str) -> Container:
    """What reads the file at `path`, which is called `file`. Raises MalformedError for what only stands in
    the place of weights, UnsupportedError for what no container knows."""
    start = first_bytes(path, file)
    found = recognised(start)
    if found is not None:
        return found
    refuse_placeholder(start, file)
    by_suffix = container_by_suffix(file)
    if by_suffix is not None:
        # Its reader says what is wrong with it.
        return _BY_NAME[by_suffix]
    kind = "Flax msgpack" if file.endswith(".msgpack") else "no container that porter knows"
    raise UnsupportedError(
        f"cannot read {file}: {kind}",
        cause=f"it starts with {start[:8]!r}",
        hint="porter reads safetensors, GGUF, torch, Keras and Orbax",
    )


def first_bytes(path: Path, file: str) -> bytes:
    try:
        # A pipe would block before anything can be said about it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise MalformedError(f"{file} is malformed", cause="expected a regular file")
        with path.open("rb") as stream:
            return stream.read(START)
    except OSError as error:
        raise PorterError(f"{file} cannot be read", cause=f"{error.strerror}: {path}") from error


def refuse_placeholder(start: bytes, file: str) -> None:
    """Raises MalformedError for a Git LFS pointer and for a web page."""
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        raise MalformedError(
            f"{file} is a Git LFS pointer, not the file itself",
            cause="the repository was cloned without Git LFS, or its files have not been fetched",
            hint="git lfs install && git lfs pull, in the clone; or porter download",
        )
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower()
    if text.startswith((b"<!doctype html", b"<html")):
        raise MalformedError(
            f"{file} is a web page, not the file that its name says",
            cause="a download saved the page around the file, or a page that asks to log in",
            hint="download it again: porter download, or the file's own link (on the Hub, /resolve/ and not "
            "/blob/)",
        )
