"""A safetensors header: the entries of one file, read strictly.

Whatever is accepted here the reference parser accepts too, and some of what it lets pass (repeated keys,
other padding than blanks, names with control characters) is refused. A name is otherwise untrusted text,
returned as it stands; showing it safely is the caller's task. What a tensor's bytes say is not looked at.

Format: https://huggingface.co/docs/safetensors and safetensors' `tensor.rs` (0.8).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NoReturn

from porter.containers.base import Header, StoredTensor
from porter.dtypes import DTYPES, Dtype
from porter.errors import MalformedError, UnsupportedError
from porter.reading.json_text import HEADER, Limit, check_size, parse_json
from porter.sources.paths import CONTROL

CONTAINER = "safetensors"

# Bytes. The Hub's client reads no longer headers either; a header of 100,000 tensors takes about 12 MB.
MAX_HEADER = HEADER.nbytes

# Characters. The longest real names have some 150; each is held, matched and shown many times.
MAX_NAME = 4_096

# Characters. Training arguments and such take some 100,000.
_MAX_METADATA = 4_000_000

# Elements. Offsets and sizes are u64 in the format and i64 in torch; nothing stored comes near.
_MAX_ELEMENTS = 2**63 - 1

_ENTRY_KEYS = ("dtype", "shape", "data_offsets")


def parse_header(raw: bytes, size: int, file: str) -> Header:
    """The header in `raw`, the first 8 + N bytes of a file of `size` bytes that is called `file`.

    Raises MalformedError where the bytes break the format, UnsupportedError for an unknown dtype.
    """
    length = header_length(raw[:8], size, file)
    if len(raw) < 8 + length:
        refuse(file, f"expected a header of {length} bytes, found {len(raw) - 8}")
    return parse_text(raw[8 : 8 + length], size, file)


def parse_text(text: bytes | bytearray, size: int, file: str) -> Header:
    """The header whose JSON is `text`, of a file of `size` bytes; raises as `parse_header` does."""
    length = len(text)
    if not text.startswith(b"{"):
        refuse(file, f"expected the header to start with '{{', found {bytes(text[:1])!r}")
    if not text.rstrip(b" ").endswith(b"}"):
        refuse(file, f"expected only blanks after the header's JSON, found {bytes(text[-1:])!r}")
    check_size(text, file, HEADER)
    plain = _plain(text, 8 + length, file)
    if plain is not None and plain[2] == size:
        return Header(CONTAINER, file, size, tuple(plain[0]), plain[1])
    placed, metadata = plain[:2] if plain else _strict(text, 8 + length, file)
    astray, end = _astray(placed, 8 + length)
    if astray is not None:
        # Entries may stand in any order.
        placed.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
        astray, end = _astray(placed, 8 + length)
    _check_layout(astray, end, 8 + length, size, file)
    return Header(CONTAINER, file, size, tuple(placed), metadata)


_Entries = tuple[list[StoredTensor], dict[str, str]]

# Numbers below zero, or text that looks like them.
_NEGATIVE = re.compile(rb"[:\[,]\s*-")


def _plain(
    text: bytes | bytearray, data_start: int, file: str
) -> tuple[list[StoredTensor], dict[str, str], int | None] | None:
    """The entries of a header as every writer makes it, in a third of the time; None for any other.

    What is accepted here `_strict` accepts too, and it alone says what is wrong with the rest. The third is
    where the data end, if each tensor's follow those of the one before.
    """
    if b"\\" in text or b"true" in text or b"false" in text or (b"-" in text and _NEGATIVE.search(text)):
        return None
    try:
        entries = json.loads(text.decode("utf-8"), parse_float=_natural)
    except (ValueError, RecursionError):
        return None
    if type(entries) is not dict:
        return None
    strings = 5 * len(entries)
    metadata: dict[str, str] = {}
    if "__metadata__" in entries:
        metadata = _metadata(entries.pop("__metadata__"), file)
        strings += 2 * len(metadata) - 4
    # Without escapes each string stands between two quotes; where a key stood twice, there are more.
    if text.count(b'"') != 2 * strings or not _clean(entries):
        return None
    kinds: dict[tuple[str, tuple[int, ...]], tuple[Dtype, tuple[int, ...], int]] = {}
    placed = []
    new, kind = tuple.__new__, StoredTensor
    last: int | None = 0
    for name, entry in entries.items():
        if type(entry) is not dict or tuple(entry) != _ENTRY_KEYS:
            return None
        word, shape, offsets = entry.values()
        if type(word) is not str or type(shape) is not list or type(offsets) is not list:
            return None
        if len(offsets) != 2:
            return None
        begin, end = offsets
        if type(begin) is not int or type(end) is not int:
            return None
        key = word, tuple(shape)
        try:
            dtype, dims, nbytes = kinds[key]
        except (KeyError, TypeError):
            # The first of its kind is looked at closely.
            one = _entry(name, entry, data_start, file)
            dtype, dims, nbytes = kinds[key] = one.dtype, one.shape, one.nbytes
        if end - begin != nbytes:
            return None
        last = end if begin == last else None
        placed.append(new(kind, (name, dtype, dims, file, data_start + begin, None, None)))
    return placed, metadata, None if last is None else data_start + last


def _strict(text: bytes | bytearray, data_start: int, file: str) -> _Entries:
    entries = strict_json(text, file, HEADER)
    metadata = _metadata(entries.pop("__metadata__", {}), file)
    return [_entry(name, entry, data_start, file) for name, entry in entries.items()], metadata


def header_length(prefix: bytes, size: int, file: str) -> int:
    """N, from the first 8 bytes of a file of `size` bytes: the header's length without those 8 bytes."""
    if size < 8 or len(prefix) < 8:
        refuse(file, f"expected at least 8 bytes, found {min(size, len(prefix))}")
    length = int.from_bytes(prefix[:8], "little")
    if length > MAX_HEADER:
        refuse(file, f"expected a header of at most {MAX_HEADER} bytes, found {length}")
    if 8 + length > size:
        refuse(file, f"expected a file of at least {8 + length} bytes (its header), found {size}")
    return length


def strict_json(text: bytes | bytearray, file: str, limit: Limit) -> dict[str, Any]:
    check_size(text, file, limit)
    value = _flat(text) or parse_json(text, file, limit, unique=True, whole=_natural)
    if not isinstance(value, dict):
        refuse(file, f"expected a JSON object, found {kind_of(value)}")
    return value


def _flat(text: bytes | bytearray) -> dict[str, Any] | None:
    """An index as every writer makes it, in half the time; None for any other JSON.

    It is an object of objects of texts and numbers. What is accepted here the strict way accepts too.
    """
    if b"\\" in text:
        return None
    try:
        value = json.loads(text.decode("utf-8"), parse_int=_natural)
    except (ValueError, RecursionError):
        return None
    if type(value) is not dict or any(type(inner) is not dict for inner in value.values()):
        return None
    strings = len(value)
    for inner in value.values():
        kinds = Counter(map(type, inner.values()))
        if not kinds.keys() <= {str, int, float}:
            return None
        strings += len(inner) + kinds[str]
    # Without escapes each string stands between two quotes; where a key stood twice, there are more.
    return value if text.count(b'"') == 2 * strings else None


def _natural(digits: str) -> int:
    # "-0" too: Python would read it as 0, and the reference parser refuses it.
    if digits.startswith("-") or len(digits) > 20:
        raise ValueError(f"the number {digits[:24]}")
    return int(digits)


def _metadata(value: Any, file: str) -> dict[str, str]:
    if not isinstance(value, dict):
        refuse(file, f"expected __metadata__ to be an object, found {kind_of(value)}")
    held = sum(len(key) + len(text) for key, text in value.items() if isinstance(text, str))
    if held > _MAX_METADATA:
        refuse(file, f"expected __metadata__ of at most {_MAX_METADATA:,} characters, found {held:,}")
    for key, text in value.items():
        if not isinstance(text, str):
            refuse(file, f"expected __metadata__[{key!r}] to be a string, found {kind_of(text)}")
        if re.search("[\ud800-\udfff]", key + text):
            refuse(file, f"expected text in __metadata__[{key!r}], found half a surrogate pair")
    return value


def _entry(name: str, entry: Any, data_start: int, file: str) -> StoredTensor:
    check_name(name, file)
    if not isinstance(entry, dict):
        refuse(file, f"expected an object, found {kind_of(entry)}", name)
    if set(entry) != set(_ENTRY_KEYS):
        refuse(file, f"expected the keys {some(sorted(_ENTRY_KEYS))}, found {some(sorted(entry))}", name)
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _naturals(shape):
        refuse(file, f"expected a shape of whole numbers, found {shape!r:.80}", name)
    if not _naturals(offsets) or len(offsets) != 2:
        refuse(file, f"expected two data_offsets, found {offsets!r:.80}", name)
    bound = 1
    for dim in shape:
        bound *= max(dim, 1)
        if bound > _MAX_ELEMENTS:
            refuse(file, f"expected less than 2^63 elements, found the shape {shape!r:.80}", name)
    dtype = _dtype(entry["dtype"], name, file)
    begin, end = offsets
    tensor = StoredTensor(name, dtype, tuple(shape), file, data_start + begin)
    if tensor.elements % dtype.block:
        refuse(file, f"expected {dtype.name} to fill whole bytes, found {tensor.elements} elements", name)
    if end - begin != tensor.nbytes:
        refuse(
            file,
            f"expected {tensor.nbytes} bytes for {dtype.name} {list(shape)!r:.80}, found {end - begin}",
            name,
        )
    return tensor


def _dtype(word: Any, name: str, file: str) -> Dtype:
    if not isinstance(word, str):
        refuse(file, f"expected a dtype, found {kind_of(word)}", name)
    dtype = DTYPES.get(word)
    if dtype is None or not dtype.safetensors:
        known = ", ".join(dtype.name for dtype in DTYPES.values() if dtype.safetensors)
        raise UnsupportedError(
            f"{file}: tensor {name!r} has an unknown dtype",
            cause=f"expected one of {known}; found {word!r:.80}",
        )
    return dtype


def _astray(tensors: list[StoredTensor], data_start: int) -> tuple[StoredTensor | None, int]:
    """The first tensor that does not begin where the one before it ended, if any, and where that was."""
    end = data_start
    for tensor in tensors:
        if tensor.offset != end:
            return tensor, end
        end += tensor.nbytes
    return None, end


def _check_layout(astray: StoredTensor | None, end: int, data_start: int, size: int, file: str) -> None:
    if astray is not None:
        what = "an overlap" if astray.offset < end else "a hole"
        expected, found = end - data_start, astray.offset - data_start
        refuse(file, f"expected its data at {expected}, found them at {found}: {what}", astray.name)
    if end != size:
        what = "cut short" if end > size else "followed by other bytes"
        refuse(file, f"expected {end} bytes in all, found {size}: the data are {what}")


def check_names(names: Iterable[str], file: str) -> None:
    """As `check_name` for each of them, all at once while none is at fault."""
    every = list(names)
    if not _clean(every):
        for name in every:
            check_name(name, file)


def _clean(names: Iterable[str]) -> bool:
    """Whether none of the names holds a control character or is too long."""
    every = list(names)
    if max(map(len, every), default=0) > MAX_NAME:
        return False
    text = " ".join(every)
    # What is printable holds none, and that is known four times as fast.
    return text.isprintable() or not CONTROL.search(text)


def check_name(name: str, file: str) -> None:
    if len(name) > MAX_NAME:
        refuse(file, f"expected names of at most {MAX_NAME:,} characters, found {len(name):,}", name)
    if CONTROL.search(name):
        refuse(file, "expected a name without control characters", name)


def _naturals(value: Any) -> bool:
    # bool is an int to Python.
    return isinstance(value, list) and all(type(item) is int for item in value)


def kind_of(value: Any) -> str:
    words = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "nothing"}
    return words.get(type(value), "a number")


def some(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(name if name.isprintable() else repr(name) for name in listed[:5])
    return shown + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def refuse(file: str, cause: str, tensor: str | None = None) -> NoReturn:
    where = f"{file}: tensor {tensor!r}" if tensor is not None else file
    raise MalformedError(f"{where} is malformed", cause=cause)
