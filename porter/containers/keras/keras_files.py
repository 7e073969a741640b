"""Keras checkpoints: presets, sharded presets, bare weight files and `.keras` archives, as headers.

A preset's `metadata.json` counts its parameters; where it is there, the tensors must add up to it. An
archive is read where it lies: its weights must be stored in it without compression. Its config, which is
no file of its own, is handed on in the header's metadata under the name that it has in the archive.

Format: `preset_utils.py` of KerasHub (0.32), `saving_lib.py` of Keras (3.15).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from porter.containers.base import Header
from porter.containers.keras import hdf5
from porter.containers.torch.torch_zip_entries import LOCAL_MAGIC, Entry, pread, read_entries
from porter.errors import MalformedError, UnsupportedError
from porter.reading.json_text import INDEX as INDEX_LIMIT
from porter.reading.json_text import KERAS_CONFIG, Limit, parse_json
from porter.reading.regular import open_descriptor, open_regular, read_regular
from porter.sources.paths import locate, unsafe_path

WEIGHTS, INDEX, METADATA, CONFIG = "model.weights.h5", "model.weights.json", "metadata.json", "config.json"
TOKENIZER = "assets/tokenizer/vocabulary.spm"


def read_file(root: Path, file: str) -> tuple[Header, ...]:
    """The header of one weight file or archive."""
    path = locate(root, file)
    with open_regular(path, file) as stream:
        archive = _is_archive(stream.fileno(), file)
    return with_arrays([_read_archive(path, file) if archive else hdf5.read_header(path, file)])


def _is_archive(descriptor: int, file: str) -> bool:
    return file.endswith(".keras") or os.pread(descriptor, len(LOCAL_MAGIC), 0) == LOCAL_MAGIC


def with_arrays(headers: Iterable[Header]) -> tuple[Header, ...]:
    """The headers, and after them one for each dataset that is written out before it is read."""
    whole, arrays = [], []
    for header in headers:
        own = tuple(tensor for tensor in header.tensors if tensor.file == header.file)
        whole.append(replace(header, tensors=own))
        arrays += [
            Header(header.container, tensor.file, tensor.nbytes, (tensor,))
            for tensor in header.tensors
            if tensor.file != header.file
        ]
    return (*whole, *arrays)


def weights_range(descriptor: int, file: str) -> tuple[int, int]:
    """Where in an open file the HDF5 file lies that holds its weights: its start and its size in bytes."""
    size = os.fstat(descriptor).st_size
    if not _is_archive(descriptor, file):
        return 0, size
    entry = read_entries(descriptor, size, file)[WEIGHTS]
    return entry.offset, entry.size


def read_directory(root: Path) -> tuple[Header, ...]:
    """The headers of a preset's weights, whole or in shards.

    Raises MalformedError where shards, index and `metadata.json` disagree.
    """
    if (root / WEIGHTS).is_file():
        headers: tuple[Header, ...] = (hdf5.read_header(locate(root, WEIGHTS), WEIGHTS),)
    else:
        headers = tuple(_read_shards(root))
    if (root / METADATA).is_file():
        _check_count(_json(_small(root, METADATA, KERAS_CONFIG), METADATA, KERAS_CONFIG), headers, METADATA)
    return with_arrays(headers)


def preset_metadata(sizes: Iterable[int]) -> bytes:
    """A preset's `metadata.json`, from the number of elements of each tensor.

    KerasHub notes its own version and the date too; neither took part here, and nothing reads them.
    """
    content = {"parameter_count": sum(sizes), "tasks": ["CausalLM"]}
    return (json.dumps(content, indent=4) + "\n").encode()


def _read_shards(root: Path) -> list[Header]:
    weight_map = _weight_map(_json(_small(root, INDEX, INDEX_LIMIT), INDEX, INDEX_LIMIT))
    files = sorted({file for homes in weight_map.values() for file in homes})
    for file in files:
        if not locate(root, file).exists():
            groups = [group for group, homes in weight_map.items() if file in homes]
            raise MalformedError(
                f"shard {file} is missing",
                cause=f"{INDEX} expects it to hold {len(groups)} groups, {groups[0]!r} among them",
                hint="download the checkpoint again",
            )
    headers = [hdf5.read_header(locate(root, file), file) for file in files]
    unfound = {(group, file) for group, homes in weight_map.items() for file in homes}
    holders: dict[str, str] = {}
    for header in headers:
        for tensor in header.tensors:
            group = tensor.name.rpartition("/")[0]
            if header.file not in weight_map.get(group, ()):
                _refuse(header.file, f"expected only groups that {INDEX} lists here, found {tensor.name!r}")
            if tensor.name in holders:
                _refuse(header.file, f"expected {tensor.name!r} once, found it in {holders[tensor.name]} too")
            holders[tensor.name] = header.file
            unfound.discard((group, header.file))
    if unfound:
        group, file = min(unfound)
        _refuse(file, f"expected variables in {group!r} by {INDEX}, found none")
    return headers


def _weight_map(index: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The files of each group; groups are written `/layers/…/vars`, with one name or a list of them."""
    raw = index.get("weight_map")
    if not isinstance(raw, dict) or not raw:
        _refuse(INDEX, "expected an object called weight_map")
    found: dict[str, tuple[str, ...]] = {}
    for group, value in raw.items():
        files = tuple(value) if isinstance(value, list) else (value,)
        if not files or not all(isinstance(file, str) for file in files):
            _refuse(INDEX, f"expected file names for {group!r}, found {value!r:.80}")
        for file in files:
            reason = "is in another directory" if "/" in file else unsafe_path(file)
            if reason:
                _refuse(INDEX, f"expected a file beside it for {group!r}, found {file!r}, which {reason}")
        name = group.removeprefix("/")
        if name in found:
            _refuse(INDEX, f"expected {name!r} once, found it twice")
        found[name] = files
    return found


def _read_archive(path: Path, file: str) -> Header:
    descriptor = open_descriptor(path, file)
    try:
        entries = read_entries(descriptor, os.fstat(descriptor).st_size, file)
        weights = entries.get(WEIGHTS)
        if weights is None:
            _refuse(file, f"expected {WEIGHTS} in the archive, found {', '.join(entries)!r:.80}")
        for entry in (weights, entries.get(CONFIG), entries.get(METADATA)):
            if entry is not None and entry.method:
                raise UnsupportedError(
                    f"{file}: {entry.name} is compressed in the archive",
                    cause="its bytes cannot be read where they lie",
                    hint=f"unzip it into a directory of its own and name that: unzip {file} -d DIRECTORY",
                )
        texts = {
            name: _json(_content(descriptor, entries[name], file), f"{file}/{name}", KERAS_CONFIG)
            for name in (CONFIG, METADATA)
            if name in entries
        }
    finally:
        os.close(descriptor)
    header = hdf5.read_header(path, file, weights.offset, weights.size)
    _check_count(texts.get(METADATA, {}), [header], f"{file}/{METADATA}")
    return replace(header, metadata=texts)


def _content(descriptor: int, entry: Entry, file: str) -> bytes:
    most = KERAS_CONFIG.nbytes
    if entry.size > most:
        _refuse(file, f"expected {entry.name} to have at most {most} bytes, found {entry.size}")
    return pread(descriptor, entry.size, entry.offset, file)


# What KerasHub's enable_lora gives factors to, unless it is told otherwise.
_LORA = ("/query_dense/vars/0", "/value_dense/vars/0")


def _check_count(metadata: dict[str, Any], headers: Iterable[Header], file: str) -> None:
    stated = metadata.get("parameter_count")
    if stated is None:
        return
    tensors = [t for header in headers for t in header.tensors if not hdf5.is_state(t.name)]
    found = sum(t.elements for t in tensors)
    # A model saved with LoRA on counts the factors, and stores them merged into the kernels: (…, rank) and
    # (rank, last) beside a kernel (…, last).
    kernels = [t for t in tensors if t.name.endswith(_LORA) and t.elements]
    rank_1 = sum(t.elements // t.shape[-1] + t.shape[-1] for t in kernels)
    merged = isinstance(stated, int) and rank_1 and stated > found and (stated - found) % rank_1 == 0
    if stated != found and not merged:
        raise MalformedError(
            f"{file} and the weights disagree",
            cause=f"{file} counts {stated!r} parameters, the tensors hold {found}",
            hint="is the checkpoint complete? If it was saved with LoRA on more layers than query and value, "
            f"whose factors are counted and not stored, name {WEIGHTS} itself",
        )


def _small(root: Path, file: str, limit: Limit) -> bytes:
    return read_regular(locate(root, file), file, limit.nbytes)


def _json(text: bytes, file: str, limit: Limit) -> dict[str, Any]:
    value = parse_json(text, file, limit, surrogates=False)
    if not isinstance(value, dict):
        _refuse(file, f"expected a JSON object, found {type(value).__name__}")
    return value


def _refuse(file: str, cause: str) -> NoReturn:
    raise MalformedError(f"{file} is malformed", cause=cause)
