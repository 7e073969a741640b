"""Placing tensors in a torch file, and all of its bytes that are no tensor data.

The file is what torch.save would write, made without torch: torch.load reads it, with and without mmap
and with weights_only. Tensors that are tied share one storage and take its bytes once. The same tensors
give the same file. Nothing is written here and no weight is touched: data of the placed tensors come from
the plan's copies.

Format: torch's `serialization.py` and `_utils.py` (2.13), PKWARE's APPNOTE 6.3.10, Python's `pickletools`.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from porter.containers.base import OutputFile, StoredTensor
from porter.containers.safetensors_writer import TensorSpec
from porter.containers.torch_pickle import MAX_PICKLE
from porter.containers.torch_state import STORAGE_CLASSES, UNTYPED
from porter.containers.torch_zip import CONTAINER
from porter.containers.torch_zip_entries import (
    CENTRAL,
    CENTRAL_MAGIC,
    END,
    END64,
    END64_MAGIC,
    END_MAGIC,
    FULL16,
    FULL32,
    LOCAL,
    LOCAL_MAGIC,
    LOCATOR,
    LOCATOR_MAGIC,
    ZIP64_EXTRA,
)
from porter.errors import UnsupportedError

# Bytes; what torch.save aligns to, enough for every dtype.
ALIGNMENT = 64

# Bytes. Padding goes into one extra field, whose length is a u16.
MAX_ALIGNMENT = 32768

_TOP = "archive"
_VERSION = b"3\n"
_UTF8 = 0x0800
# 1980-01-01 00:00, the zip epoch, so that files do not depend on the day.
_TIME, _DATE = 0, 0x0021
_NEEDED, _NEEDED64 = 20, 45
_PADDING_EXTRA = 0x4246

_STORAGE_OF = {dtype: name for name, dtype in STORAGE_CLASSES.items() if name != UNTYPED}


@dataclass(frozen=True)
class _Entry:
    """An entry whose own header is `header` bytes in, its data at `offset`."""

    name: bytes
    size: int
    header: int
    offset: int
    crc: int


def place(
    name: str,
    tensors: Sequence[TensorSpec],
    ties: Mapping[str, str] | None = None,
    *,
    alignment: int = ALIGNMENT,
) -> OutputFile:
    """Where each tensor of the output file `name` goes; data start on multiples of `alignment` bytes.

    `ties` maps a tensor to the one whose data it shares; both have the same dtype and shape, and the first
    is placed at the second's offset. Raises UnsupportedError for a dtype that torch lacks, for a name given
    twice, and for ties that cannot be; ValueError for an alignment that is no power of two from 4 to 32768.
    """
    if alignment < 4 or alignment > MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"cannot align to {alignment} bytes")
    ties = ties or {}
    specs: dict[str, TensorSpec] = {}
    for spec in tensors:
        _check(name, spec, specs)
        specs[spec[0]] = spec
    for tied, owner in ties.items():
        if tied not in specs or owner not in specs or owner in ties or specs[tied][1:] != specs[owner][1:]:
            raise UnsupportedError(
                f"{name}: cannot tie {tied!r} to {owner!r}",
                cause="expected two tensors of one dtype and shape, the second not tied itself",
            )
    position = len(_head(pickled := _pickle(_unplaced(name, tensors, ties)), alignment))
    if len(pickled) > MAX_PICKLE:
        raise UnsupportedError(f"{name}: {len(tensors)} tensors are too many for one torch file")
    offsets: dict[str, int] = {}
    for number, spec in enumerate(spec for spec in tensors if spec[0] not in ties):
        tensor = StoredTensor(*spec, name, 0)
        offsets[spec[0]] = _aligned(position, _data_name(number), tensor.nbytes, alignment)
        position = offsets[spec[0]] + tensor.nbytes
    placed = tuple(
        StoredTensor(tensor, dtype, tuple(shape), name, offsets[ties.get(tensor, tensor)])
        for tensor, dtype, shape in tensors
    )
    file = OutputFile(name, CONTAINER, 0, placed)
    start, tail = literals(file)[-1]
    return replace(file, size=start + len(tail))


def literals(file: OutputFile, crcs: Mapping[str, int] | None = None) -> list[tuple[int, bytes]]:
    """(offset, bytes) of all that is not tensor data, in order: headers before each storage, and the tail.

    Tensors at one offset share a storage. `crcs` are checksums of tensors' data by name; those that are not
    known become 0, which torch never minds and `unzip -t` does. Headers fill the room before each tensor,
    so placements other than `place`'s work too; ValueError where that room is too small.
    """
    storages = _storages(file.tensors)
    first = min(storages, default=None)
    head, entries = _lay_head(_pickle(file.tensors), first)
    found: list[tuple[int, bytes]] = []
    pending, begin = bytearray(head), 0
    for number, (offset, tensor) in enumerate(storages.items()):
        crc = (crcs or {}).get(tensor.name, 0)
        entry = _Entry(_data_name(number), tensor.nbytes, begin + len(pending), offset, crc)
        pending += _local(entry, file.name)
        entries.append(entry)
        if tensor.nbytes:
            found.append((begin, bytes(pending)))
            pending, begin = bytearray(), offset + tensor.nbytes
    version = _text_entry("version", _VERSION, begin + len(pending))
    pending += _local(version, file.name) + _VERSION
    pending += _directory([*entries, version], begin + len(pending))
    return [*found, (begin, bytes(pending))]
