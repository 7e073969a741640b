"""Placing tensors in a torch file, and all of its bytes that are no tensor data.

The file is what torch.save would write, made without torch: torch.load reads it, with and without mmap
and with weights_only. Tensors that are tied share one storage and take its bytes once. The same tensors
give the same file. Nothing is written here and no weight is touched: data of the placed tensors come from
the plan's copies.

Format: torch's `serialization.py` and `_utils.py` (2.13), PKWARE's APPNOTE 6.3.10, Python's `pickletools`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from porter.containers.base import OutputFile, StoredTensor, TensorSpec
from porter.containers.safetensors.safetensors_writer import BLOCK, LEAST_SHARED
from porter.containers.torch.torch_pickle import MAX_PICKLE
from porter.containers.torch.torch_pickle_writer import pickle_state, storages
from porter.containers.torch.torch_zip import CONTAINER, WRAP
from porter.containers.torch.torch_zip_entries import (
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
    residues: Mapping[str, int] | None = None,
    wrap: str | None = None,
) -> OutputFile:
    """Where each tensor of the output file `name` goes; data start on multiples of `alignment` bytes.

    `ties` maps a tensor to the one whose data it shares; both have the same dtype and shape, and the first
    is placed at the second's offset. `residues` says, modulo 4096, where tensors lie best so that a file
    system can share their blocks with the source's; those of at least 64 KiB are padded up to it. `wrap` is
    the key that the state dict stands under, where it is not the whole of the file. Raises
    UnsupportedError for a dtype that torch lacks, for a name given twice, and for ties that cannot be;
    ValueError for an alignment that is no power of two from 4 to 32768.
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
    owners = [spec[0] for spec in tensors if spec[0] not in ties]
    numbers = {tensor: number for number, tensor in enumerate(owners)}
    # The pickle depends on the storages' order alone, so their numbers can stand for their offsets.
    pickled = pickle_state(
        [StoredTensor(*spec, name, numbers[ties.get(spec[0], spec[0])]) for spec in tensors], wrap
    )
    if len(pickled) > MAX_PICKLE:
        raise UnsupportedError(f"{name}: {len(tensors)} tensors are too many for one torch file")
    position = len(_small_entries(pickled)[1])
    offsets: dict[str, int] = {}
    for number, owner in enumerate(owners):
        nbytes = StoredTensor(*specs[owner], name, 0).nbytes
        residue = (residues or {}).get(owner) if nbytes >= LEAST_SHARED else None
        step = alignment if residue is None else BLOCK
        offsets[owner] = _next_offset(position, _data_name(number), nbytes, step, residue or 0)
        position = offsets[owner] + nbytes
    placed = tuple(StoredTensor(*spec, name, offsets[ties.get(spec[0], spec[0])]) for spec in tensors)
    file = OutputFile(name, CONTAINER, 0, placed, {} if wrap is None else {WRAP: wrap})
    start, tail = literals(file)[-1]
    return replace(file, size=start + len(tail))


def literals(file: OutputFile, crcs: Mapping[str, int] | None = None) -> list[tuple[int, bytes]]:
    """(offset, bytes) of all that is not tensor data, in order: a header before each storage, and the tail.

    Tensors at one offset share a storage. `crcs` holds checksums of tensors' data by name; those that are
    not known become 0, which torch never minds and `unzip -t` does. Headers fill the room before each
    storage, so a placement other than `place`'s works too; ValueError where that room is too small.
    """
    entries, head = _small_entries(pickle_state(file.tensors, file.metadata.get(WRAP)))
    begin, pending = 0, bytearray(head)
    found: list[tuple[int, bytes]] = []
    for number, (offset, sharing) in enumerate(storages(file.tensors).items()):
        crc = next((crcs[tensor.name] for tensor in sharing if tensor.name in crcs), 0) if crcs else 0
        size = sharing[0].nbytes
        entry = _Entry(_data_name(number), size, begin + len(pending), offset, crc)
        entries.append(entry)
        pending += _local_header(entry)
        if size:
            found.append((begin, bytes(pending)))
            begin, pending = offset + size, bytearray()
    version = _small_entry("version", _VERSION, begin + len(pending))
    pending += _local_header(version) + _VERSION
    pending += _directory([*entries, version], begin + len(pending))
    return [*found, (begin, bytes(pending))]


def _check(file: str, spec: TensorSpec, seen: Mapping[str, TensorSpec]) -> None:
    tensor, dtype, shape = spec
    if dtype.torch is None:
        raise UnsupportedError(f"{file}: torch cannot hold {tensor!r}", cause=f"it is {dtype.name}")
    if tensor in seen:
        raise UnsupportedError(f"{file}: cannot name a tensor {tensor!r}", cause="two tensors have that name")
    if any(dim < 0 for dim in shape):
        raise UnsupportedError(f"{file}: {tensor!r} has the shape {list(shape)}")


def _data_name(number: int) -> bytes:
    return f"{_TOP}/data/{number}".encode()


def _small_entries(pickled: bytes) -> tuple[list[_Entry], bytes]:
    """The entries before the data, and their bytes."""
    entries: list[_Entry] = []
    head = b""
    for name, content in (("data.pkl", pickled), ("byteorder", b"little")):
        entries.append(_small_entry(name, content, len(head)))
        head += _local_header(entries[-1]) + content
    return entries, head


def _small_entry(name: str, content: bytes, header: int) -> _Entry:
    raw = f"{_TOP}/{name}".encode()
    return _Entry(raw, len(content), header, header + LOCAL.size + len(raw), zlib.crc32(content))


def _next_offset(header: int, name: bytes, size: int, alignment: int, residue: int = 0) -> int:
    """The first offset of that residue that leaves room for an entry's header from byte `header` on."""
    least = header + LOCAL.size + len(name) + len(_wide_sizes(size))
    offset = least + (residue - least) % alignment
    # An extra field takes at least 4 bytes, or none.
    return offset + alignment if 0 < offset - least < 4 else offset


def _local_header(entry: _Entry) -> bytes:
    """An entry's own header, padded up to its data."""
    extra = _wide_sizes(entry.size)
    room = entry.offset - entry.header - LOCAL.size - len(entry.name) - len(extra)
    if room:
        if room < 4 or len(extra) + room > FULL16:
            raise ValueError(f"a header cannot leave {room} bytes before {entry.name.decode()}")
        extra += struct.pack("<2H", _PADDING_EXTRA, room - 4) + bytes(room - 4)
    needed = _NEEDED64 if entry.size >= FULL32 else _NEEDED
    size = min(entry.size, FULL32)
    numbers = (needed, _UTF8, 0, _TIME, _DATE, entry.crc, size, size, len(entry.name), len(extra))
    return LOCAL.pack(LOCAL_MAGIC, *numbers) + entry.name + extra


def _wide_sizes(size: int) -> bytes:
    return struct.pack("<2H2Q", ZIP64_EXTRA, 16, size, size) if size >= FULL32 else b""


def _directory(entries: Sequence[_Entry], start: int) -> bytes:
    """The central directory at byte `start`, and what ends the archive."""
    listed = b"".join(map(_listed, entries))
    counts = (len(entries), len(entries), len(listed), start)
    end = b""
    if len(entries) >= FULL16 or len(listed) >= FULL32 or start >= FULL32:
        end += END64.pack(END64_MAGIC, END64.size - 12, _NEEDED64, _NEEDED64, 0, 0, *counts)
        end += LOCATOR.pack(LOCATOR_MAGIC, 0, start + len(listed), 1)
    count = min(len(entries), FULL16)
    end += END.pack(END_MAGIC, 0, 0, count, count, min(len(listed), FULL32), min(start, FULL32), 0)
    return listed + end


def _listed(entry: _Entry) -> bytes:
    fields = (entry.size, entry.size, entry.header)
    wide = [field for field in fields if field >= FULL32]
    extra = struct.pack(f"<2H{len(wide)}Q", ZIP64_EXTRA, 8 * len(wide), *wide) if wide else b""
    needed = _NEEDED64 if wide else _NEEDED
    size, packed, header = (min(field, FULL32) for field in fields)
    numbers = (needed, needed, _UTF8, 0, _TIME, _DATE, entry.crc, packed, size, len(entry.name), len(extra))
    return CENTRAL.pack(CENTRAL_MAGIC, *numbers, 0, 0, 0, 0, header) + entry.name + extra
