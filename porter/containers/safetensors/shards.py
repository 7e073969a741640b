"""The safetensors files of a checkpoint directory: which they are, their headers, and the index of shards.

Only headers are read, never a weight. Shards, index and headers must agree.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from porter.containers.base import Header
from porter.containers.safetensors.safetensors_header import (
    check_names,
    header_length,
    kind_of,
    parse_header,
    refuse,
    some,
    strict_json,
)
from porter.errors import MalformedError, PorterError, UsageError
from porter.sources.paths import locate, unsafe_path

# Bytes. The largest published indexes (90,000 tensors) take 9 MB.
MAX_INDEX = 100_000_000

_SINGLE_FILES = ("model.safetensors", "lit_model.safetensors")
_MAIN_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")


def read_header(path: Path, file: str) -> Header:
    """The header of the file at `path`, whose name in the checkpoint is `file`. Reads the header alone."""
    try:
        # A pipe would block before anything can be said about it.
        if not stat.S_ISREG(path.stat().st_mode):
            refuse(file, "expected a regular file")
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            prefix = stream.read(8)
            return parse_header(prefix + stream.read(header_length(prefix, size, file)), size, file)
    except OSError as error:
        raise PorterError(f"{file} cannot be read", cause=f"{error.strerror}: {path}") from error


def read_index(path: Path) -> dict[str, str]:
    """`weight_map` of a shard index: tensor name to file name, the latter relative to the checkpoint.

    Raises MalformedError for broken JSON and for file names that are unsafe to open.
    """
    file = path.name
    try:
        if path.stat().st_size > MAX_INDEX:
            refuse(file, f"expected an index of at most {MAX_INDEX} bytes, found {path.stat().st_size}")
        text = path.read_bytes()
    except OSError as error:
        raise PorterError(f"{file} cannot be read", cause=f"{error.strerror}: {path}") from error
    weight_map = strict_json(text, file).get("weight_map")
    if not isinstance(weight_map, dict):
        refuse(file, f"expected an object called weight_map, found {kind_of(weight_map)}")
    check_names(weight_map, file)
    safe: set[str] = set()
    for name, shard in weight_map.items():
        if not isinstance(shard, str):
            refuse(file, f"expected the name of a file, found {kind_of(shard)}", name)
        if shard in safe:
            continue
        if reason := unsafe_path(shard):
            raise MalformedError(
                f"{file}: unsafe file name {shard!r} for tensor {name!r}",
                cause=f"expected a path inside the checkpoint, found one that {reason}",
            )
        safe.add(shard)
    return weight_map


def read_checkpoint_headers(directory: Path) -> list[Header]:
    """The headers of all weight files of a checkpoint directory, ordered by file name.

    An index decides which files those are; without one `model.safetensors`, `lit_model.safetensors`, the
    only safetensors file, or one complete set of numbered shards. Raises MalformedError where shards,
    index and headers disagree, UsageError where it is not clear which files are meant.
    """
    try:
        names = sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{directory} cannot be listed", cause=error.strerror) from error
    index = _find_index(names, directory)
    weight_map = read_index(locate(directory, index)) if index else None
    if index and weight_map is not None:
        files = sorted(set(weight_map.values()))
        check_shards_exist(files, weight_map, directory, index)
    else:
        files = _find_files(names, directory)
    headers = [read_header(locate(directory, file), file) for file in files]
    holders = holders_of(headers)
    if index and weight_map is not None:
        check_index(weight_map, holders, index)
    return headers


def _find_index(names: list[str], directory: Path) -> str | None:
    indexes = [name for name in names if name.endswith(".safetensors.index.json")]
    if _MAIN_INDEX in indexes:
        return _MAIN_INDEX
    if len(indexes) > 1:
        raise _ambiguous(directory, indexes)
    return indexes[0] if indexes else None


def _find_files(names: list[str], directory: Path) -> list[str]:
    files = [name for name in names if name.endswith(".safetensors")]
    for single in _SINGLE_FILES:
        if single in files:
            return [single]
    if not files:
        raise UsageError(f"no safetensors file in {directory}")
    shards = [_SHARD.fullmatch(name) for name in files]
    if len(files) == 1 and shards[0] is None:
        return files
    sets = {(shard["stem"], int(shard["total"])) if shard else None for shard in shards}
    only = next(iter(sets))
    if len(sets) > 1 or only is None:
        raise _ambiguous(directory, files)
    stem, total = only
    expected = [f"{stem}-{number:05d}-of-{total:05d}.safetensors" for number in range(1, total + 1)]
    if missing := sorted(set(expected) - set(files)):
        raise MalformedError(
            f"{directory.name}: {len(missing)} of {total} shards are missing",
            cause=f"expected {some(missing)}, found {some(files)}",
            hint="download the checkpoint again",
        )
    if unexpected := sorted(set(files) - set(expected)):
        refuse(directory.name, f"expected shards 1 to {total}, found {some(unexpected)}")
    return files


def _ambiguous(directory: Path, names: list[str]) -> UsageError:
    return UsageError(
        f"{directory} holds more than one set of weights",
        cause=f"found {some(names)}",
        hint="keep each set in a directory of its own, or add an index",
    )


def check_shards_exist(files: list[str], weight_map: dict[str, str], directory: Path, index: str) -> None:
    for file in files:
        if not locate(directory, file).is_file():
            tensors = sorted(name for name, shard in weight_map.items() if shard == file)
            raise MalformedError(
                f"shard {file} is missing",
                cause=f"{index} expects it to hold {len(tensors)} tensors: {some(tensors)}",
                hint="download the checkpoint again",
            )


def holders_of(headers: list[Header]) -> dict[str, str]:
    """Which file holds each tensor."""
    holders: dict[str, str] = {}
    for header in headers:
        for tensor in header.tensors:
            if tensor.name in holders:
                refuse(header.file, f"expected it once, found it in {holders[tensor.name]} too", tensor.name)
            holders[tensor.name] = header.file
    return holders


def check_index(weight_map: dict[str, str], holders: dict[str, str], index: str) -> None:
    for name, file in weight_map.items():
        holder = holders.get(name)
        if holder != file:
            found = f"found it in {holder}" if holder else "found it nowhere"
            refuse(file, f"expected it here by {index}, {found}", name)
    for name, file in holders.items():
        if name not in weight_map:
            refuse(file, f"expected only tensors that {index} lists, found one that it does not", name)
