"""Safetensors files and the index of shards: one file's header, and what an index says of several.

Only headers are read, never a weight. An index says which files there are; where it disagrees with them about
a tensor, the files are right, as they are for transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from porter.containers.base import Header
from porter.containers.safetensors.safetensors_header import (
    check_names,
    header_length,
    kind_of,
    parse_text,
    refuse,
    some,
    strict_json,
)
from porter.errors import MalformedError
from porter.reading.json_text import INDEX, MAX_SHARDS
from porter.reading.regular import read_regular, unreadable
from porter.sources.base import SourceFile
from porter.sources.local_files import LocalFile
from porter.sources.paths import unsafe_path

# Bytes. The largest published indexes (90,000 tensors) take 9 MB.
MAX_INDEX = INDEX.nbytes

# Bytes that are read of a file whose header's length nothing foretells: as many as one of 250 tensors has.
HEADER_GUESS = 32_768


def read_header(path: Path, file: str) -> Header:
    """The header of the file at `path`, whose name in the checkpoint is `file`. Reads the header alone."""
    opened = LocalFile(path, file)
    try:
        return header_of(opened, 8)
    except OSError as error:
        raise unreadable(error, file) from error
    finally:
        opened.close()


def header_of(file: SourceFile, guess: int = HEADER_GUESS) -> Header:
    """The header of a file that lies anywhere, in one range, or two where it is longer than `guess` bytes."""
    raw = bytearray(min(max(8, guess), file.size))
    file.read([memoryview(raw)], 0)
    length = header_length(bytes(raw[:8]), file.size, file.name)
    # One copy, for it may have megabytes.
    text = bytearray(length)
    have = min(len(raw) - 8, length)
    text[:have] = memoryview(raw)[8 : 8 + have]
    del raw
    if have < length:
        file.read([memoryview(text)[have:]], 8 + have)
    return parse_text(text, file.size, file.name)


def read_index(path: Path) -> dict[str, str]:
    """`weight_map` of a shard index: tensor name to file name, the latter relative to the checkpoint.

    Raises MalformedError for broken JSON and for file names that are unsafe to open.
    """
    file = path.name
    text = read_regular(path, file, INDEX.nbytes)
    weight_map = strict_json(text, file, INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        refuse(file, f"expected an object called weight_map, found {kind_of(weight_map)}")
    if not weight_map:
        refuse(file, "expected tensors in its weight_map, found none")
    check_names(weight_map, file)
    safe: set[str] = set()
    for name, shard in weight_map.items():
        if type(shard) is str and shard in safe:
            continue
        if not isinstance(shard, str):
            refuse(file, f"expected the name of a file, found {kind_of(shard)}", name)
        if reason := unsafe_path(shard):
            raise MalformedError(
                f"{file}: unsafe file name {shard!r} for tensor {name!r}",
                cause=f"expected a path inside the checkpoint, found one that {reason}",
            )
        safe.add(shard)
        if len(safe) > MAX_SHARDS:
            refuse(file, f"expected at most {MAX_SHARDS:,} shards, found more")
    return weight_map


def check_shards_exist(
    files: Sequence[str], weight_map: Mapping[str, str], present: Callable[[str], bool], index: str
) -> None:
    """Raises MalformedError that says which shards of an index are missing, and what they should hold."""
    missing = [file for file in files if not present(file)]
    if not missing:
        return
    tensors = sorted(name for name, shard in weight_map.items() if shard in missing)
    raise MalformedError(
        f"shard {missing[0]} is missing"
        if len(missing) == 1
        else f"{len(missing)} of {len(files)} shards are missing: {some(missing)}",
        cause=f"{index} expects {'it' if len(missing) == 1 else 'them'} to hold {len(tensors)} tensors: "
        f"{some(tensors)}",
        hint="download the checkpoint again",
    )


def holders_of(headers: Iterable[Header]) -> dict[str, str]:
    """Which file holds each tensor. Raises MalformedError where two do: which is meant, no index can say."""
    holders: dict[str, str] = {}
    for header in headers:
        names = [tensor.name for tensor in header.tensors]
        twice = len(set(names)) < len(names) or not holders.keys().isdisjoint(names)
        for tensor in header.tensors if twice else ():
            if tensor.name in holders:
                refuse(header.file, f"expected it once, found it in {holders[tensor.name]} too", tensor.name)
            holders[tensor.name] = header.file
        holders.update(dict.fromkeys(names, header.file))
    return holders


def index_remarks(
    weight_map: Mapping[str, str], holders: Mapping[str, str], index: str, named_alike: Iterable[str]
) -> tuple[str, ...]:
    """Where an index and its shards disagree. transformers reads all tensors of all shards that an index
    names, whatever else it says; what is missing then, the proof of coverage finds. `named_alike` are the
    files that could be its shards by their names: those of another save may have stayed behind."""
    shards = set(weight_map.values())
    if stale := sorted(file for file in named_alike if file not in shards):
        return (
            f"not read: {some(stale)}, which {index} does not name",
            *index_remarks(weight_map, holders, index, ()),
        )
    if weight_map == holders:
        return ()
    absent = sorted(name for name in weight_map if name not in holders)
    unlisted = sorted(name for name in holders if name not in weight_map)
    moved = sorted(name for name, file in weight_map.items() if holders.get(name, file) != file)
    remarks = []
    if absent:
        remarks.append(f"{index} lists {_tensors(absent)} that no shard holds")
    if unlisted:
        remarks.append(f"{index} does not list {_tensors(unlisted)} that its shards hold; read all the same")
    if moved:
        remarks.append(f"{index} lists {_tensors(moved)} in another shard than the one that holds it")
    return tuple(remarks)


def _tensors(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({some(names)})"
