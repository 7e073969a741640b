"""Orbax checkpoints: the arrays that they hold, from their zarr metadata alone. No array is read here.

An array of one uncompressed chunk in a file of its own is plain bytes and read as such. All others (OCDBT,
which keeps many small ones in few files, and compressed chunks) are known here by name and shape; their
bytes are fetched by `orbax_arrays` when a plan is run. OCDBT needs the tensorstore package even to be listed.

A leaf's path in the tree becomes its name, with slashes, whether the tree was nested or flat. Sharded or
replicated arrays are whole arrays here. What the metadata of the tree say (`_METADATA`) is not needed.

Format: Orbax 0.12 (`type_handlers`), the zarr v2 and v3 specifications, tensorstore's OCDBT.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from porter.containers.base import Header, StoredTensor
from porter.containers.safetensors.safetensors_header import check_name
from porter.dtypes import DTYPES, Dtype
from porter.errors import MalformedError, UnsupportedError
from porter.sources.paths import locate

CONTAINER = "orbax"

# Before the name of an array whose bytes are no range of a file.
ARRAY = "array:"

_TREE, _DATABASE = "_METADATA", "manifest.ocdbt"
_ZARR, _ZARR3 = ".zarray", "zarr.json"

# Bytes. An array's metadata are a few hundred.
_LARGEST = 1 << 20

# numpy's words in zarr v2, plain ones in v3.
_WORDS = {
    "<f8": "F64",
    "<f4": "F32",
    "<f2": "F16",
    "bfloat16": "BF16",
    "|i1": "I8",
    "|u1": "U8",
    "<i4": "I32",
    "<i8": "I64",
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int8": "I8",
    "uint8": "U8",
    "int32": "I32",
    "int64": "I64",
}


def holds_orbax(root: Path) -> bool:
    """Whether a directory is an Orbax checkpoint, or holds exactly one."""
    return _folder(root) is not None


def read_directory(root: Path) -> tuple[Header, ...]:
    """One header per array. Raises UnsupportedError without tensorstore where it is needed, MalformedError
    for metadata that are broken."""
    folder = _folder(root)
    if folder is None:
        raise MalformedError(f"{root} holds no Orbax checkpoint")
    base = root / folder
    database = (base / _DATABASE).is_file()
    listed = _listed(base) if database else _walked(base)
    prefix = f"{folder}/" if folder else ""
    headers: dict[str, Header] = {}
    for key, raw in listed:
        param, _, kind = key.rpartition("/")
        tensor = _tensor(root, prefix, param, _parsed(raw, key), kind, database)
        if tensor.name in headers:
            raise MalformedError(f"{root.name}: two arrays are called {tensor.name!r}")
        headers[tensor.name] = Header(CONTAINER, tensor.file, tensor.nbytes, (tensor,))
    if not headers:
        raise MalformedError(f"{base} holds no arrays", cause="expected zarr metadata, found none")
    return tuple(headers.values())


def chunk_key(shape: tuple[int, ...], separator: str = ".") -> str:
    """What zarr v2 calls the only chunk of an array."""
    return separator.join("0" for _ in shape) or "0"


def _folder(root: Path) -> str | None:
    """The checkpoint's place in a directory: the directory itself, or the only one in it that is one."""
    if any((root / name).is_file() for name in (_TREE, _DATABASE)):
        return ""
    inside = [
        path.name
        for path in sorted(root.iterdir())
        if path.is_dir() and any((path / name).is_file() for name in (_TREE, _DATABASE))
    ]
    return inside[0] if len(inside) == 1 else None


def _listed(base: Path) -> Iterator[tuple[str, bytes]]:
    from porter.containers.orbax.orbax_arrays import database

    store = database(base)
    try:
        keys = sorted(key.decode() for key in store.list().result())
        for key in keys:
            if key.endswith((f"/{_ZARR}", f"/{_ZARR3}")):
                yield key, bytes(store[key])
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise MalformedError(f"{base.name} cannot be listed", cause=str(error)[:300]) from None


def _walked(base: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(base.rglob("*")):
        if path.name in (_ZARR, _ZARR3):
            key = path.relative_to(base).as_posix()
            real = locate(base, key)
            if real.stat().st_size > _LARGEST:
                raise MalformedError(f"{key} is too large for an array's metadata")
            yield key, real.read_bytes()


def _parsed(raw: bytes, key: str) -> Mapping[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{key} is not valid JSON", cause=str(error)) from None
    shape = found.get("shape") if isinstance(found, dict) else None
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**48 for size in shape):
        raise MalformedError(f"{key} states no shape", cause=f"found {shape!r}")
    return dict(found)


def _tensor(
    root: Path, prefix: str, param: str, stated: Mapping[str, Any], kind: str, database: bool
) -> StoredTensor:
    name = param.replace(".", "/")
    check_name(name, f"{root.name}")
    shape = tuple(stated["shape"])
    dtype = _dtype(stated.get("dtype") or stated.get("data_type"), param)
    plain = StoredTensor(name, dtype, shape, f"{prefix}{param}/{chunk_key(shape)}", 0)
    if not database and kind == _ZARR and _one_chunk(stated):
        chunk = root / plain.file
        if chunk.is_file() and locate(root, plain.file).stat().st_size == plain.nbytes:
            return plain
    return StoredTensor(name, dtype, shape, f"{ARRAY}{prefix}{param}", 0)


def _one_chunk(stated: Mapping[str, Any]) -> bool:
    """Whether an array's bytes are those of one file. (Chunks that were never written have none.)"""
    return (
        stated.get("compressor") is None
        and stated.get("filters") is None
        and stated.get("order") == "C"
        and stated.get("chunks") == stated["shape"]
        and stated.get("dimension_separator", ".") == "."
        and math.prod(stated["shape"]) > 0
    )


def _dtype(word: object, param: str) -> Dtype:
    found = _WORDS.get(word) if isinstance(word, str) else None
    if found is None:
        raise UnsupportedError(f"{param} has a dtype that is not read", cause=f"found {word!r}")
    return DTYPES[found]
