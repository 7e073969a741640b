"""The chunks of a zarr array: what they are called, and which of them are not there.

Format: the zarr v2 and v3 specifications (regular grids; the key encodings `default` and `v2`). What lies
inside a chunk, such as the parts of a shard, is tensorstore's to look at.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from typing import Any

from porter.errors import MalformedError, UnsupportedError


def chunk_key(shape: tuple[int, ...], separator: str = ".") -> str:
    """What zarr v2 calls the only chunk of an array."""
    return separator.join("0" for _ in shape) or "0"


def missing_chunks(stated: Mapping[str, Any], param: str, keys: Collection[str]) -> list[str]:
    """The first chunk of the array `param` that `keys` lacks, by its key; empty where all are there."""
    shape = stated["shape"]
    chunks, separator, start = _grid(stated, param)
    counts = [-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)]
    # Ends at the first gap, so that metadata cannot ask for more steps than there are files; nor for more
    # numbers along one axis, which are laid out before the first is looked at.
    most = len(keys) + 1
    for point in itertools.product(*(range(min(count, most)) for count in counts)):
        number = separator.join(map(str, point))
        name = start + number if number else (start.removesuffix(separator) or "0")
        if f"{param}/{name}" not in keys:
            return [name]
    return []


def chunk_bytes(stated: Mapping[str, Any], param: str, itemsize: int) -> int:
    """The bytes of one chunk before it is compressed."""
    return math.prod(_grid(stated, param)[0]) * itemsize


def _grid(stated: Mapping[str, Any], param: str) -> tuple[list[int], str, str]:
    """The chunks' shape, what separates the numbers in their keys, and what stands before these."""
    shape = stated["shape"]
    if stated.get("zarr_format") == 3:
        grid, encoding = stated.get("chunk_grid"), stated.get("chunk_key_encoding")
        if not isinstance(grid, dict) or grid.get("name") != "regular" or not isinstance(encoding, dict):
            raise UnsupportedError(
                f"{param} has chunks that are not read", cause=f"expected a regular grid, found {grid!r:.80}"
            )
        default = encoding.get("name") == "default"
        given = (encoding.get("configuration") or {}).get("separator")
        separator = given if isinstance(given, str) else ("/" if default else ".")
        chunks = (grid.get("configuration") or {}).get("chunk_shape")
        start = f"c{separator}" if default else ""
    else:
        chunks, separator, start = stated.get("chunks"), stated.get("dimension_separator", "."), ""
    if (
        not isinstance(chunks, list)
        or len(chunks) != len(shape)
        or not all(type(size) is int and size > 0 for size in chunks)
        or separator not in (".", "/")
    ):
        # An array without elements has no chunks, of whatever size.
        if isinstance(chunks, list) and math.prod(shape) == 0 and len(chunks) == len(shape):
            return [1] * len(shape), ".", start
        raise MalformedError(f"{param} states no chunks", cause=f"found {chunks!r:.80}")
    return chunks, separator, start
