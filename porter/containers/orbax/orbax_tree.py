"""Orbax checkpoints: the arrays that they hold, from their zarr metadata alone. No array is read here.

An array of one uncompressed chunk in a file of its own is plain bytes and read as such. All others (OCDBT,
which keeps many small ones in few files, and compressed chunks) are known here by name and shape; their
bytes are fetched by `orbax_arrays` when a plan is run. OCDBT needs the tensorstore package even to be listed.

A leaf's path in the tree becomes its name, with slashes, whether the tree was nested or flat. Sharded or
replicated arrays are whole arrays here. Of the tree's own metadata (`_METADATA`) one fact is needed: whether
a chunk that is not there is lost, or was left out because it holds nothing but the fill value. Nothing that
is read, here or by tensorstore, may be a link out of the checkpoint.

Format: Orbax 0.12 (`type_handlers`), the zarr v2 and v3 specifications, tensorstore's OCDBT.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from porter.containers.array_names import ARRAY
from porter.containers.base import Header, StoredTensor
from porter.containers.orbax.orbax_folders import DATABASE, TREE, find_folder, stored_keys
from porter.containers.orbax.orbax_folders import holds_orbax as holds_orbax
from porter.containers.orbax.zarr_chunks import chunk_key, missing_chunks
from porter.containers.safetensors.safetensors_header import check_name
from porter.dtypes import DTYPES, Dtype
from porter.errors import MalformedError, UnsupportedError
from porter.reading.json_text import ARRAY as ARRAY_LIMIT
from porter.reading.json_text import TREE as TREE_LIMIT
from porter.reading.json_text import parse_json
from porter.reading.regular import read_regular
from porter.sources.paths import locate

CONTAINER = "orbax"

_ZARR, _ZARR3 = ".zarray", "zarr.json"

# numpy's words in zarr v2, plain ones in v3.
_WORDS = {
    "<f8": "F64",
    "<f4": "F32",
    "<f2": "F16",
    "bfloat16": "BF16",
    "|i1": "I8",
    "|u1": "U8",
    "|b1": "BOOL",
    "<i2": "I16",
    "<u2": "U16",
    "<i4": "I32",
    "<u4": "U32",
    "<i8": "I64",
    "<u8": "U64",
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
}

# What optimizers and training loops call their part of a tree, and what they keep at its top.
_STATE = {"opt_state", "optimizer", "optimizer_state", "opt", "step", "rng", "rngs", "grad_accum"}


def is_state(tensor: StoredTensor) -> bool:
    """Whether a leaf that no table knows is a trainer's own: a counter, a flag, an optimizer's moments."""
    parts = tensor.name.split("/")
    return tensor.dtype.kind in ("int", "bool") or not tensor.shape or not _STATE.isdisjoint(parts)


def read_directory(root: Path) -> tuple[Header, ...]:
    """One header per array. Raises UnsupportedError without tensorstore where it is needed, UsageError where
    it is not clear which of several checkpoints is meant, MalformedError for metadata that are broken, links
    that lead out, and chunks that are not there."""
    folder = find_folder(root)
    base = root / folder
    keys = stored_keys(root, folder)
    database = (base / DATABASE).is_file()
    meant = not stores_every_chunk(root, folder)
    prefix = f"{folder}/" if folder else ""
    headers: dict[str, Header] = {}
    for key in sorted(keys):
        param, _, kind = key.rpartition("/")
        if kind not in (_ZARR, _ZARR3) or not param:
            continue
        stated = _parsed(_content(keys[key], key), key)
        tensor = _tensor(root, prefix, param, stated, kind, database)
        if tensor.name in headers:
            raise MalformedError(f"{root.name}: two arrays are called {tensor.name!r}")
        absent = missing_chunks(stated, param, keys)
        if absent and not meant:
            raise MalformedError(
                f"{tensor.name} is not complete",
                cause=f"expected the chunk {absent[0]} of {param}, found none",
                hint="copy the checkpoint again, all of its files",
            )
        notes = (
            (f"{tensor.name}: {absent[0]} is not stored and read as the fill value, as Orbax reads it",)
            if absent
            else ()
        )
        headers[tensor.name] = Header(CONTAINER, tensor.file, tensor.nbytes, (tensor,), notes=notes)
    if not headers:
        raise MalformedError(f"{base} holds no arrays", cause="expected zarr metadata, found none")
    return tuple(headers.values())


def stores_every_chunk(root: Path, folder: str) -> bool:
    """Whether chunks of nothing but the fill value are stored too, so that an absent one is a lost one.

    Orbax takes the word's absence for a no; a directory without `_METADATA` is not Orbax' own.
    """
    file = f"{folder}/{TREE}" if folder else TREE
    if not (root / file).is_file():
        return True
    found = parse_json(read_regular(locate(root, file), file, TREE_LIMIT.nbytes), file, TREE_LIMIT)
    return isinstance(found, dict) and bool(found.get("store_array_data_equal_to_fill_value", False))


def _content(source: Path | bytes, key: str) -> bytes:
    return source if isinstance(source, bytes) else read_regular(source, key, ARRAY_LIMIT.nbytes)


def _parsed(raw: bytes, key: str) -> Mapping[str, Any]:
    found = parse_json(raw, key, ARRAY_LIMIT)
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
    whole = not database and kind == _ZARR and _one_chunk(stated) and (root / plain.file).is_file()
    if whole and locate(root, plain.file).stat().st_size == plain.nbytes:
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
