"""Placing tensors in safetensors files, and the header bytes that go before their data.

The order is the reference writer's, so that the same tensors give the same file. Nothing is written here
and no weight is touched: data of the placed tensors come from the plan's copies.

Format and order: safetensors' `tensor.rs` (0.8); index: huggingface_hub's `_base.py` (2.4).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

from porter.containers.base import OutputFile, StoredTensor, TensorSpec
from porter.containers.safetensors.safetensors_header import CONTAINER, MAX_HEADER
from porter.dtypes import Dtype
from porter.errors import UnsupportedError, UsageError
from porter.wording import option

# A tensor with where it begins and ends, in bytes from the start of the data.
# A size in text that is none, or less: 0, -5GB.
_NOTHING = re.compile(r"\s*(-|0*\.?0*\s*[A-Za-z]*\s*$)")

_Place = tuple[str, Dtype, tuple[int, ...], int, int]

# Bytes. With the largest items first, a data start on a multiple of 8 aligns every plain tensor.
ALIGNMENT = 8

# The reference writer's order of dtypes, lowest alignment first; files list them from the end.
_ORDER = (
    *("BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8"),
    *("F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    *("I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64"),
)
_RANK = {name: rank for rank, name in enumerate(_ORDER)}


# Bytes; the residues that `place` is given are modulo this.
BLOCK = 4096

# Bytes. To share fewer with the source is not worth another order than the reference writer's.
LEAST_SHARED = 64 << 10


def place(
    name: str,
    tensors: Sequence[TensorSpec],
    metadata: Mapping[str, str],
    residues: Mapping[str, int] | None = None,
) -> OutputFile:
    """Where each tensor of the output file `name` goes.

    `residues` says, modulo 4096, where tensors lie best so that a file system can share their blocks with
    the source's. The residue that suits most bytes gets them: its tensors of whole blocks come first, and
    the header is padded up to it. Without, the order and the header are the reference writer's.

    Raises UnsupportedError for a dtype that safetensors lacks, for a name given twice, and for a header
    that readers would refuse as too long.
    """
    seen: set[str] = set()
    for tensor, dtype, shape in () if _plain(tensors) else tensors:
        if not dtype.safetensors:
            raise UnsupportedError(f"{name}: safetensors cannot hold {tensor!r}", cause=f"it is {dtype.name}")
        if tensor in seen or tensor == "__metadata__":
            cause = "the name is reserved" if tensor == "__metadata__" else "two tensors have that name"
            raise UnsupportedError(f"{name}: cannot name a tensor {tensor!r}", cause=cause)
        if shape and min(shape) < 0:
            raise UnsupportedError(f"{name}: {tensor!r} has the shape {list(shape)}")
        seen.add(tensor)
    # By name, then, since sorting is stable, by dtype.
    ordered = sorted(tensors, key=itemgetter(0))
    if len({spec[1].name for spec in ordered}) > 1:
        ordered.sort(key=lambda spec: -_RANK[spec[1].name])
    sizes = sizes_of(ordered)
    ordered, residue = _arranged(ordered, sizes, residues or {})
    names, dtypes, shapes = zip(*ordered, strict=True) if ordered else ((), (), ())
    shapes = tuple(map(tuple, shapes))
    bounds = list(accumulate(map(sizes.__getitem__, names), initial=0))
    length = len(_json(zip(names, dtypes, shapes, bounds, bounds[1:], strict=False), metadata))
    start = -(-(8 + length) // ALIGNMENT) * ALIGNMENT
    if residue is not None:
        start += (residue - start) % BLOCK
    if start - 8 > MAX_HEADER:
        raise UnsupportedError(
            f"{name}: the header takes {start - 8} bytes",
            cause=f"readers accept at most {MAX_HEADER}",
            hint=f"write smaller shards ({option('max-shard-size')})",
        )
    new, kind = tuple.__new__, StoredTensor
    placed = tuple(
        [
            new(kind, (tensor, dtype, shape, name, start + begin, None, None))
            for tensor, dtype, shape, begin in zip(names, dtypes, shapes, bounds, strict=False)
        ]
    )
    return OutputFile(name, CONTAINER, start + bounds[-1], placed, dict(metadata))


def _plain(tensors: Sequence[TensorSpec]) -> bool:
    """Whether nothing is wrong with any of them; found for all at once, in a third of the time."""
    names, dtypes, shapes = zip(*tensors, strict=True) if tensors else ((), (), ())
    known = {dtype.name: dtype for dtype in dtypes}
    return (
        len(set(names) | {"__metadata__"}) == len(names) + 1
        and all(dtype.safetensors for dtype in known.values())
        and all(not shape or min(shape) >= 0 for shape in set(shapes))
    )


def _arranged(
    ordered: list[TensorSpec], sizes: Mapping[str, int], residues: Mapping[str, int]
) -> tuple[list[TensorSpec], int | None]:
    """Tensors that agree on the commonest residue first; the residue, or None if too few bytes have any.

    Sizes that are whole blocks keep the residue, and every dtype's alignment, for what follows. One tensor
    of another size can still profit, as the last of them; what comes after it lies where it happens to.
    """
    votes: dict[int, int] = {}
    for tensor, residue in residues.items():
        if tensor in sizes and residue % ALIGNMENT == 0:
            votes[residue] = votes.get(residue, 0) + sizes[tensor]
    if max(votes.values(), default=0) < LEAST_SHARED:
        return ordered, None
    residue = min(votes, key=lambda found: (-votes[found], found))
    agreed = [spec for spec in ordered if residues.get(spec[0]) == residue]
    whole = [spec for spec in agreed if sizes[spec[0]] % BLOCK == 0]
    odd = [spec for spec in agreed if sizes[spec[0]] % BLOCK and sizes[spec[0]] % ALIGNMENT == 0]
    last = sorted(odd, key=lambda spec: -sizes[spec[0]])[:1]
    first = {spec[0] for spec in whole + last}
    return [*whole, *last, *(spec for spec in ordered if spec[0] not in first)], residue


def literals(file: OutputFile) -> list[tuple[int, bytes]]:
    """(offset, bytes) of all that is not tensor data: the header, padded with blanks to the first tensor."""
    start = min((tensor.offset for tensor in file.tensors), default=file.size)
    begins = [(tensor, tensor.offset - start) for tensor in file.tensors]
    places = [(one.name, one.dtype, one.shape, begin, begin + one.nbytes) for one, begin in begins]
    text = _json(places, file.metadata)
    if len(text) > start - 8:
        raise ValueError(f"{file.name}: a header of {len(text)} bytes does not fit before byte {start}")
    return [(0, (start - 8).to_bytes(8, "little") + text.ljust(start - 8))]


def shard(
    tensors: Sequence[TensorSpec], max_shard_size: int | str, pattern: str = "model{suffix}.safetensors"
) -> tuple[dict[str, list[str]], bytes | None]:
    """The tensors' names by output file, each in the given order, and the index's JSON if there are several.

    `max_shard_size` is in bytes, or text such as "5GB". A tensor larger than that has a file of its own.
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    # A size of nothing in text would give every tensor a file of its own.
    if max_shard_size <= 0 if isinstance(max_shard_size, int) else _NOTHING.match(max_shard_size):
        raise _bad_size(max_shard_size)
    sizes = sizes_of(tensors)
    if not sizes:
        return {pattern.format(suffix=""): []}, None
    try:
        split = split_state_dict_into_shards_factory(
            sizes, get_storage_size=_itself, filename_pattern=pattern, max_shard_size=max_shard_size
        )
    except ValueError as error:
        raise _bad_size(max_shard_size) from error
    groups = {file: list(names) for file, names in split.filename_to_tensors.items()}
    if len(groups) == 1:
        return groups, None
    index: dict[str, Any] = {
        "metadata": {"total_size": sum(sizes.values())},
        "weight_map": {name: file for file, names in groups.items() for name in names},
    }
    return groups, (json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def sizes_of(tensors: Iterable[TensorSpec]) -> dict[str, int]:
    """Bytes of each tensor. Most have the shape of many others."""
    known: dict[tuple[str, tuple[int, ...]], int] = {}
    sizes = {}
    for name, dtype, shape in tensors:
        kind = dtype.name, shape
        if kind not in known:
            known[kind] = dtype.nbytes(math.prod(shape))
        sizes[name] = known[kind]
    return sizes


def _itself(size: int) -> int:
    return size


def _bad_size(size: int | str) -> UsageError:
    return UsageError(f"{size!r} is no size for a shard", hint="bytes, or text such as 5GB or 500MB")


def _json(places: Iterable[_Place], metadata: Mapping[str, str]) -> bytes:
    parts = [f'"__metadata__":{_dumped(dict(metadata))}'] if metadata else []
    kinds: dict[tuple[str, tuple[int, ...]], str] = {}
    for name, dtype, shape, begin, end in places:
        kind = dtype.name, shape
        if kind not in kinds:
            kinds[kind] = f'"dtype":"{dtype.name}","shape":{_dumped(shape)}'
        parts.append(f'{_dumped(name)}:{{{kinds[kind]},"data_offsets":[{begin},{end}]}}')
    return f"{{{','.join(parts)}}}".encode()


# As the reference writer spells JSON. An encoder that is made once spells a string in a tenth of the time.
_dumped = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
