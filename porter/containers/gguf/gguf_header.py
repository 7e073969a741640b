"""GGUF files: the header, read strictly and without a library.

Promised: `read_header` reads the header alone, versions 2 and 3, little-endian; no weight is read and
nothing beyond the header's own size is kept. Every tensor that it returns lies inside the file, aligned,
and overlaps no other. Shapes are row-major, outermost first (ggml lists dims the other way round).
Not promised: dequantising, writing. A model in several files is put together by `gguf_split`.

Source: the GGUF specification (ggml's `docs/gguf.md`, version 3), `gguf.constants` (0.19) for type numbers.
"""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path
from typing import Any

from porter.containers.base import Header, StoredTensor
from porter.containers.gguf.gguf_bytes import LeadingBytes
from porter.containers.gguf.gguf_values import Cursor
from porter.dtypes import DTYPES, Dtype
from porter.errors import UnsupportedError
from porter.reading.regular import open_regular

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

# Bounds on what a header may ask for. The largest published headers hold some 10 MiB, 100 keys and a few
# thousand tensors; ggml itself stops at 4 dims and the specification at 65,535 bytes for a key.
MAX_HEADER = 64 * 2**20
MAX_KEYS = 2**16
MAX_TENSORS = 2**20
MAX_DIMS = 4
MAX_NAME = 2**16 - 1
MAX_ELEMENTS = 2**63 - 1

# The fewest bytes that a key with its value, and a tensor's entry, can take.
_LEAST_KEY = 8 + 4 + 1
_LEAST_TENSOR = 8 + 4 + 4 + 8

# fmt: off
_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K",
    11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
    19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32",
    27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
    41: "Q1_0",
}
# fmt: on


def read_header(path: Path, file: str) -> Header:
    """The header of a GGUF file; `file` is its name in the checkpoint and in errors.

    `metadata` holds every key: bool, int, float and str as they are, arrays as sequences that decode on
    access. Raises `MalformedError` when the file breaks the format, `UnsupportedError` for a tensor type
    that porter does not know.
    """
    with open_regular(path, file) as stream:
        size = stream.seek(0, 2)
        cursor = Cursor(LeadingBytes(stream, MAX_HEADER), file, MAX_HEADER)
        _check_version(cursor)
        metadata, tensors = _parse(cursor, size)
    return Header("gguf", file, size, tensors, metadata)


def _check_version(cursor: Cursor) -> None:
    magic = cursor.take(4, "its magic number")
    if magic != MAGIC:
        raise cursor.malformed("no GGUF file", f"the magic number {MAGIC!r}", repr(magic))
    version = cursor.number("I", "its version")
    if int.from_bytes(version.to_bytes(4, "little"), "big") in (1, *VERSIONS):
        raise cursor.malformed("a big-endian GGUF file", "little-endian numbers", f"version {version:#x}")
    if version not in VERSIONS:
        raise cursor.malformed("unknown GGUF version", "2 or 3", version)


def _parse(cursor: Cursor, size: int) -> tuple[dict[str, Any], tuple[StoredTensor, ...]]:
    n_tensors = cursor.count("Q", "the number of tensors", _LEAST_TENSOR, MAX_TENSORS)
    n_keys = cursor.count("Q", "the number of keys", _LEAST_KEY, MAX_KEYS)
    metadata: dict[str, Any] = {}
    for index in range(n_keys):
        key = _name(cursor, f"key {index}")
        if key in metadata:
            raise cursor.malformed(f"key {key!r} stands twice", "every key once", "a second one")
        metadata[key] = cursor.value(cursor.number("I", f"the type of {key!r}"), f"the value of {key!r}")
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise cursor.malformed("general.alignment cannot be used", "a power of two", repr(alignment))

    entries: dict[str, tuple[Dtype, tuple[int, ...], int]] = {}
    for index in range(n_tensors):
        name = _name(cursor, f"the name of tensor {index}")
        if name in entries:
            raise cursor.malformed(f"tensor {name!r} stands twice", "every name once", "a second one")
        entries[name] = _entry(cursor, name)
    start = -(-cursor.position // alignment) * alignment
    tensors = tuple(
        StoredTensor(name, dtype, shape, cursor.file, start + offset)
        for name, (dtype, shape, offset) in entries.items()
    )
    _check_places(cursor, tensors, start, alignment, size)
    return metadata, tensors


def _name(cursor: Cursor, what: str) -> str:
    name = cursor.string(what, MAX_NAME)
    # Names reach terminals and logs, where control characters act.
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise cursor.malformed(f"{what} holds control characters", "printable text", repr(name))
    return name


def _entry(cursor: Cursor, name: str) -> tuple[Dtype, tuple[int, ...], int]:
    what = f"tensor {name!r}"
    n_dims = cursor.count("I", f"the number of dims of {what}", 8, MAX_DIMS)
    dims = tuple(cursor.number("Q", f"the dims of {what}") for _ in range(n_dims))
    kind = cursor.number("I", f"the type of {what}")
    offset = cursor.number("Q", f"the offset of {what}")
    if kind not in _TYPES:
        raise UnsupportedError(
            f"{cursor.file}: {what} has an unknown ggml type",
            cause=f"expected one of {', '.join(f'{number} ({word})' for number, word in _TYPES.items())}, "
            f"found {kind}",
            hint="requantise the model to one of these types",
        )
    dtype = DTYPES[_TYPES[kind]]
    # Zeros are left out, or a dim of 0 would hide an overflow in the others.
    if math.prod(dim for dim in dims if dim) > MAX_ELEMENTS:
        raise cursor.malformed(f"the dims of {what} overflow", f"at most {MAX_ELEMENTS} elements", dims[::-1])
    row = dims[0] if dims else 1
    if row % dtype.block:
        raise cursor.malformed(
            f"the last dim of {what} does not fill {dtype.name} blocks", f"a multiple of {dtype.block}", row
        )
    return dtype, dims[::-1], offset


def _check_places(
    cursor: Cursor, tensors: tuple[StoredTensor, ...], start: int, alignment: int, size: int
) -> None:
    for tensor in tensors:
        what = f"tensor {tensor.name!r}"
        if (tensor.offset - start) % alignment:
            raise cursor.malformed(
                f"{what} is not aligned", f"a multiple of {alignment} bytes", tensor.offset - start
            )
        if tensor.offset + tensor.nbytes > size:
            raise cursor.malformed(
                f"{what} runs beyond the end of the file", f"an end by {size}", tensor.offset + tensor.nbytes
            )
    end, before = start, ""
    for tensor in sorted((tensor for tensor in tensors if tensor.nbytes), key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise cursor.malformed(
                f"tensor {tensor.name!r} overlaps tensor {before!r}", f"a start from {end}", tensor.offset
            )
        end, before = tensor.offset + tensor.nbytes, tensor.name
