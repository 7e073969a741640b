"""Reading safetensors headers, shard indexes, and the headers of a whole checkpoint directory.

Only headers are read, never a weight. Reading is strict: whatever is accepted here the reference parser
accepts too, and some of what it lets pass (repeated keys, other padding than blanks, names with control
characters) is refused. A name is otherwise untrusted text, returned as it stands; showing it safely is
the caller's task. That a tensor's bytes make sense is not looked at.

Format: https://huggingface.co/docs/safetensors and safetensors' `tensor.rs` (0.8).
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

from porter.containers.base import Header, StoredTensor
from porter.dtypes import DTYPES, Dtype
from porter.errors import MalformedError, PorterError, UnsupportedError, UsageError

CONTAINER = "safetensors"

# Bytes. The Hub's client reads no longer headers either; a header of 100,000 tensors takes about 12 MB.
MAX_HEADER = 25_000_000

# Bytes. The largest published indexes (90,000 tensors) take 9 MB.
MAX_INDEX = 100_000_000

# Elements. Offsets and sizes are u64 in the format and i64 in torch; nothing stored comes near.
_MAX_ELEMENTS = 2**63 - 1

_ENTRY_KEYS = ("dtype", "shape", "data_offsets")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SINGLE_FILES = ("model.safetensors", "lit_model.safetensors")
_MAIN_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")


def parse_header(raw: bytes, size: int, file: str) -> Header:
    """The header in `raw`, the first 8 + N bytes of a file of `size` bytes that is called `file`.

    Raises MalformedError where the bytes break the format, UnsupportedError for an unknown dtype.
    """
    length = header_length(raw[:8], size, file)
    if len(raw) < 8 + length:
        _refuse(file, f"expected a header of {length} bytes, found {len(raw) - 8}")
    text = raw[8 : 8 + length]
    if not text.startswith(b"{"):
        _refuse(file, f"expected the header to start with '{{', found {text[:1]!r}")
    if not text.rstrip(b" ").endswith(b"}"):
        _refuse(file, f"expected only blanks after the header's JSON, found {text[-1:]!r}")
    placed, metadata = _plain(text, 8 + length, file) or _strict(text, 8 + length, file)
    if not _in_order(placed, 8 + length):
        placed.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    _check_layout(placed, 8 + length, size, file)
    return Header(CONTAINER, file, size, tuple(placed), metadata)


_Entries = tuple[list[StoredTensor], dict[str, str]]

# Numbers below zero, or text that looks like them.
_NEGATIVE = re.compile(rb"[:\[,]\s*-")


def _plain(text: bytes, data_start: int, file: str) -> _Entries | None:
    """The entries of a header as every writer makes it, in a third of the time; None for any other.

    What is accepted here `_strict` accepts too, and it alone says what is wrong with the rest.
    """
    if b"-" in text and _NEGATIVE.search(text):
        return None
    try:
        pairs = json.loads(text.decode("utf-8"), object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if type(pairs) is not tuple:
        return None
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names) or _CONTROL.search(" ".join(names)):
        return None
    metadata: dict[str, str] = {}
    kinds: dict[tuple[str, str], tuple[Dtype, tuple[int, ...], int]] = {}
    placed = []
    for name, entry in pairs:
        if type(entry) is not tuple:
            return None
        if name == "__metadata__":
            metadata = _metadata(dict(entry), file)
            if len(metadata) < len(entry):
                return None
            continue
        if len(entry) != len(_ENTRY_KEYS):
            return None
        (first, word), (second, shape), (third, offsets) = entry
        if (first, second, third) != _ENTRY_KEYS or type(word) is not str or type(shape) is not list:
            return None
        if type(offsets) is not list or len(offsets) != 2:
            return None
        key = word, str(shape)
        if key not in kinds:
            # The first of its kind is looked at closely.
            one = _entry(name, dict(entry), data_start, file)
            kinds[key] = one.dtype, one.shape, one.nbytes
        dtype, dims, nbytes = kinds[key]
        begin, end = offsets
        if type(begin) is not int or type(end) is not int or end - begin != nbytes:
            return None
        placed.append(StoredTensor(name, dtype, dims, file, data_start + begin))
    return placed, metadata


def _strict(text: bytes, data_start: int, file: str) -> _Entries:
    entries = _strict_json(text, file)
    metadata = _metadata(entries.pop("__metadata__", {}), file)
    return [_entry(name, entry, data_start, file) for name, entry in entries.items()], metadata


def header_length(prefix: bytes, size: int, file: str) -> int:
    """N, from the first 8 bytes of a file of `size` bytes: the header's length without those 8 bytes."""
    if size < 8 or len(prefix) < 8:
        _refuse(file, f"expected at least 8 bytes, found {min(size, len(prefix))}")
    length = int.from_bytes(prefix[:8], "little")
    if length > MAX_HEADER:
        _refuse(file, f"expected a header of at most {MAX_HEADER} bytes, found {length}")
    if 8 + length > size:
        _refuse(file, f"expected a file of at least {8 + length} bytes (its header), found {size}")
    return length


def read_header(path: Path, file: str) -> Header:
    """The header of the file at `path`, whose name in the checkpoint is `file`. Reads the header alone."""
    try:
        # A pipe would block before anything can be said about it.
        if not stat.S_ISREG(path.stat().st_mode):
            _refuse(file, "expected a regular file")
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
            _refuse(file, f"expected an index of at most {MAX_INDEX} bytes, found {path.stat().st_size}")
        text = path.read_bytes()
    except OSError as error:
        raise PorterError(f"{file} cannot be read", cause=f"{error.strerror}: {path}") from error
    weight_map = _strict_json(text, file).get("weight_map")
    if not isinstance(weight_map, dict):
        _refuse(file, f"expected an object called weight_map, found {_kind(weight_map)}")
    safe: set[str] = set()
    for name, shard in weight_map.items():
        _check_name(name, file)
        if not isinstance(shard, str):
            _refuse(file, f"expected the name of a file, found {_kind(shard)}", name)
        if shard in safe:
            continue
        if reason := unsafe_path(shard):
            raise MalformedError(
                f"{file}: unsafe file name {shard!r} for tensor {name!r}",
                cause=f"expected a path inside the checkpoint, found one that {reason}",
            )
        safe.add(shard)
    return weight_map


def unsafe_path(name: str) -> str | None:
    """Why a file name from a checkpoint must not be opened, or None if it is a plain relative path."""
    if _CONTROL.search(name):
        return "has control characters"
    if "\\" in name:
        return "has a backslash"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "is absolute"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has '..', '.' or an empty part"
    return None


def locate(directory: Path, file: str) -> Path:
    """The real path of `file` in a checkpoint directory.

    A link must lead to a place inside the directory or, in a Hub cache snapshot
    (`models--*/snapshots/<revision>`), inside the same repository's blobs; else MalformedError.
    """
    if reason := unsafe_path(file):
        raise MalformedError(f"unsafe file name {file!r}", cause=f"it {reason}")
    root = directory.resolve()
    try:
        path = (root / file).resolve()
    except (OSError, RuntimeError) as error:
        raise MalformedError(f"{file} is a link that leads nowhere", cause=str(error)) from error
    allowed = [root]
    for snapshot in (root, *root.parents):
        if snapshot.parent.name == "snapshots" and snapshot.parent.parent.name.startswith("models--"):
            allowed.append(snapshot.parent.parent / "blobs")
            break
    if not any(path.is_relative_to(place) for place in allowed):
        raise MalformedError(
            f"{file} is a link that leads out of the checkpoint",
            cause=f"expected a file in {' or '.join(map(str, allowed))}, found {path}",
            hint="copy the file to its place, or pass the directory that really holds it",
        )
    return path


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
        _check_shards_exist(files, weight_map, directory, index)
    else:
        files = _find_files(names, directory)
    headers = [read_header(locate(directory, file), file) for file in files]
    holders = _holders(headers)
    if index and weight_map is not None:
        _check_index(weight_map, holders, index)
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
            cause=f"expected {_some(missing)}, found {_some(files)}",
            hint="download the checkpoint again",
        )
    if unexpected := sorted(set(files) - set(expected)):
        _refuse(directory.name, f"expected shards 1 to {total}, found {_some(unexpected)}")
    return files


def _ambiguous(directory: Path, names: list[str]) -> UsageError:
    return UsageError(
        f"{directory} holds more than one set of weights",
        cause=f"found {_some(names)}",
        hint="keep each set in a directory of its own, or add an index",
    )


def _check_shards_exist(files: list[str], weight_map: dict[str, str], directory: Path, index: str) -> None:
    for file in files:
        if not locate(directory, file).is_file():
            tensors = sorted(name for name, shard in weight_map.items() if shard == file)
            raise MalformedError(
                f"shard {file} is missing",
                cause=f"{index} expects it to hold {len(tensors)} tensors: {_some(tensors)}",
                hint="download the checkpoint again",
            )


def _holders(headers: list[Header]) -> dict[str, str]:
    """Which file holds each tensor."""
    holders: dict[str, str] = {}
    for header in headers:
        for tensor in header.tensors:
            if tensor.name in holders:
                _refuse(header.file, f"expected it once, found it in {holders[tensor.name]} too", tensor.name)
            holders[tensor.name] = header.file
    return holders


def _check_index(weight_map: dict[str, str], holders: dict[str, str], index: str) -> None:
    for name, file in weight_map.items():
        holder = holders.get(name)
        if holder != file:
            found = f"found it in {holder}" if holder else "found it nowhere"
            _refuse(file, f"expected it here by {index}, {found}", name)
    for name, file in holders.items():
        if name not in weight_map:
            _refuse(file, f"expected only tensors that {index} lists, found one that it does not", name)


def _strict_json(text: bytes, file: str) -> dict[str, Any]:
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_int=_natural)
    except UnicodeDecodeError as error:
        _refuse(file, f"expected UTF-8, found byte {error.object[error.start]:#04x} at {error.start}")
    except RecursionError:
        _refuse(file, "expected flat JSON, found it nested without end")
    except ValueError as error:
        _refuse(file, f"expected plain JSON, found: {error}")
    if not isinstance(value, dict):
        _refuse(file, f"expected a JSON object, found {_kind(value)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key {key!r} twice")
        seen[key] = value
    return seen


def _natural(digits: str) -> int:
    # "-0" too: Python would read it as 0, and the reference parser refuses it.
    if digits.startswith("-") or len(digits) > 20:
        raise ValueError(f"the number {digits[:24]}")
    return int(digits)


def _metadata(value: Any, file: str) -> dict[str, str]:
    if not isinstance(value, dict):
        _refuse(file, f"expected __metadata__ to be an object, found {_kind(value)}")
    for key, text in value.items():
        if not isinstance(text, str):
            _refuse(file, f"expected __metadata__[{key!r}] to be a string, found {_kind(text)}")
        if re.search("[\ud800-\udfff]", key + text):
            _refuse(file, f"expected text in __metadata__[{key!r}], found half a surrogate pair")
    return value


def _entry(name: str, entry: Any, data_start: int, file: str) -> StoredTensor:
    _check_name(name, file)
    if not isinstance(entry, dict):
        _refuse(file, f"expected an object, found {_kind(entry)}", name)
    if set(entry) != set(_ENTRY_KEYS):
        _refuse(file, f"expected the keys {_some(sorted(_ENTRY_KEYS))}, found {_some(sorted(entry))}", name)
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _naturals(shape):
        _refuse(file, f"expected a shape of whole numbers, found {shape!r:.80}", name)
    if not _naturals(offsets) or len(offsets) != 2:
        _refuse(file, f"expected two data_offsets, found {offsets!r:.80}", name)
    bound = 1
    for dim in shape:
        bound *= max(dim, 1)
        if bound > _MAX_ELEMENTS:
            _refuse(file, f"expected less than 2^63 elements, found the shape {shape!r:.80}", name)
    dtype = _dtype(entry["dtype"], name, file)
    begin, end = offsets
    tensor = StoredTensor(name, dtype, tuple(shape), file, data_start + begin)
    if tensor.elements % dtype.block:
        _refuse(file, f"expected {dtype.name} to fill whole bytes, found {tensor.elements} elements", name)
    if end - begin != tensor.nbytes:
        _refuse(
            file,
            f"expected {tensor.nbytes} bytes for {dtype.name} {list(shape)!r:.80}, found {end - begin}",
            name,
        )
    return tensor


def _dtype(word: Any, name: str, file: str) -> Dtype:
    if not isinstance(word, str):
        _refuse(file, f"expected a dtype, found {_kind(word)}", name)
    dtype = DTYPES.get(word)
    if dtype is None or not dtype.safetensors:
        known = ", ".join(dtype.name for dtype in DTYPES.values() if dtype.safetensors)
        raise UnsupportedError(
            f"{file}: tensor {name!r} has an unknown dtype",
            cause=f"expected one of {known}; found {word!r:.80}",
        )
    return dtype


def _in_order(tensors: list[StoredTensor], data_start: int) -> bool:
    end = data_start
    for tensor in tensors:
        if tensor.offset != end:
            return False
        end += tensor.nbytes
    return True


def _check_layout(tensors: list[StoredTensor], data_start: int, size: int, file: str) -> None:
    end = data_start
    for tensor in tensors:
        if tensor.offset != end:
            what = "an overlap" if tensor.offset < end else "a hole"
            expected, found = end - data_start, tensor.offset - data_start
            _refuse(file, f"expected its data at {expected}, found them at {found}: {what}", tensor.name)
        end += tensor.nbytes
    if end != size:
        what = "cut short" if end > size else "followed by other bytes"
        _refuse(file, f"expected {end} bytes in all, found {size}: the data are {what}")


def _check_name(name: str, file: str) -> None:
    if _CONTROL.search(name):
        _refuse(file, "expected a name without control characters", name)


def _naturals(value: Any) -> bool:
    # bool is an int to Python.
    return isinstance(value, list) and all(type(item) is int for item in value)


def _kind(value: Any) -> str:
    words = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "nothing"}
    return words.get(type(value), "a number")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(name if name.isprintable() else repr(name) for name in listed[:5])
    return shown + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _refuse(file: str, cause: str, tensor: str | None = None) -> NoReturn:
    where = f"{file}: tensor {tensor!r}" if tensor is not None else file
    raise MalformedError(f"{where} is malformed", cause=cause)
