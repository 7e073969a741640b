"""The entries of a zip archive: each name, and where its bytes lie, compressed or not.

A stricter reading than most: the directory must end the file, entries must lie one after the other
without overlap, and whatever two readers could take in two ways (names twice, sizes that differ between
the directory and an entry's own header, bytes before the archive) is refused. No entry is read, so no
checksum is verified.

Format: PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.3 (zip64).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

from porter.errors import MalformedError, UnsupportedError

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")
LOCAL_MAGIC, CENTRAL_MAGIC, END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64_MAGIC, LOCATOR_MAGIC = b"PK\x06\x06", b"PK\x06\x07"

# An all-ones field says that the true value is in the zip64 record.
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF
ZIP64_EXTRA = 0x0001

# Bytes. A directory of 100,000 tensors takes about 7 MB.
MAX_DIRECTORY = 64 << 20

# Encrypted, and what only makes sense with another archive.
_ENCRYPTED = 0x0001 | 0x0020 | 0x0040 | 0x2000
_FOLDER = 0x10
_SIZES_FOLLOW = 0x0008
_UTF8 = 0x0800


@dataclass(frozen=True)
class Entry:
    """One file: `size` bytes from byte `offset` of the archive on; `crc` and `method` as the directory says.

    Method 0 is stored; with any other the bytes are compressed.
    """

    name: str
    offset: int
    size: int
    crc: int
    method: int


@dataclass(frozen=True)
class _Listed:
    """An entry as the directory lists it, `header` being where its own header starts."""

    entry: Entry
    raw_name: bytes
    header: int
    flags: int


def read_entries(fd: int, size: int, file: str) -> dict[str, Entry]:
    """The entries of the archive open at `fd`, `size` bytes long, by name and in the directory's order.

    Raises MalformedError where the archive is broken or ambiguous, UnsupportedError for encrypted or
    split ones.
    """
    start, length, count = _find_directory(fd, size, file)
    directory = pread(fd, length, start, file)
    listed: list[_Listed] = []
    position = 0
    for _ in range(count):
        one, position = _parse_listed(directory, position, file)
        listed.append(one)
    if position != length:
        refuse(file, f"expected a directory of {length} bytes, found {count} entries in {position}")
    entries: dict[str, Entry] = {}
    folded: set[str] = set()
    end, before = 0, ""
    for one in sorted(listed, key=lambda one: one.header):
        if one.header < end:
            refuse(file, f"expected entry {one.entry.name!r} from byte {end} on, found it at {one.header}, "
                   f"inside {before!r}")  # fmt: skip
        offset = _data_offset(fd, one, start, file)
        end, before = offset + one.entry.size, one.entry.name
        if end > start:
            refuse(file, f"expected {before!r} to end by byte {start}, found {end}")
        # torch looks names up without regard to case.
        if one.entry.name.lower() in folded:
            refuse(file, f"expected every entry once, found {before!r} twice")
        folded.add(one.entry.name.lower())
        entries[before] = replace(one.entry, offset=offset)
    return {one.entry.name: entries[one.entry.name] for one in listed}


def _find_directory(fd: int, size: int, file: str) -> tuple[int, int, int]:
    """Where the directory starts, its bytes, its entries."""
    if size < END.size:
        refuse(file, f"expected at least {END.size} bytes, found {size}")
    at = size - END.size
    magic, *disks, count, length, start, comment = END.unpack(pread(fd, END.size, at, file))
    # A comment would let a second end record hide in it.
    if magic != END_MAGIC or comment:
        refuse(file, f"expected the zip directory's end at byte {at}, found {magic!r}: it may be cut short")
    here, first, on_disk = disks
    if at >= LOCATOR.size:
        locator = LOCATOR.unpack(pread(fd, LOCATOR.size, at - LOCATOR.size, file))
        if locator[0] == LOCATOR_MAGIC:
            old = (on_disk, count, length, start)
            at, on_disk, count, length, start = _read_end64(fd, locator[2], at - LOCATOR.size, file)
            for short, true, full in zip(
                old, (on_disk, count, length, start), (FULL16, FULL16, FULL32, FULL32), strict=True
            ):
                if short not in (true, full):
                    refuse(file, f"expected {true} or {full} in the zip's end record, found {short}")
    if here or first or on_disk != count:
        raise UnsupportedError(f"{file} is a zip archive in several parts")
    if length > MAX_DIRECTORY:
        refuse(file, f"expected a directory of at most {MAX_DIRECTORY} bytes, found {length}")
    if start + length != at or count * CENTRAL.size > length:
        refuse(file, f"expected the directory to end at byte {at}, found {count} entries in bytes {start} "
               f"to {start + length}")  # fmt: skip
    return start, length, count


def _read_end64(fd: int, offset: int, before: int, file: str) -> tuple[int, int, int, int, int]:
    if offset + END64.size != before:
        refuse(file, f"expected the zip64 record at byte {before - END64.size}, found it at {offset}")
    magic, size, *_, here, first, on_disk, count, length, start = END64.unpack(
        pread(fd, END64.size, offset, file)
    )
    if magic != END64_MAGIC or size != END64.size - 12 or here or first:
        refuse(file, "expected a zip64 end record, found something else")
    return offset, on_disk, count, length, start


def _parse_listed(directory: bytes, position: int, file: str) -> tuple[_Listed, int]:
    if position + CENTRAL.size > len(directory):
        refuse(file, "expected another entry in the directory, found its end")
    # fmt: off
    (magic, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, disk, _, attributes,
     header) = CENTRAL.unpack_from(directory, position)
    # fmt: on
    begin = position + CENTRAL.size
    end = begin + n_name + n_extra + n_comment
    if magic != CENTRAL_MAGIC or end > len(directory):
        refuse(file, f"expected an entry at byte {position} of the directory, found {magic!r}")
    raw = directory[begin : begin + n_name]
    name = _decode(raw, flags, file)
    extra = directory[begin + n_name : begin + n_name + n_extra]
    size, packed, header = _widened([size, packed, header], extra, name, file)
    if flags & _ENCRYPTED:
        raise UnsupportedError(f"{file}: entry {name!r} is encrypted")
    # torch reads nothing of what is called a folder, and leaves whatever is in the memory for it.
    if size and (attributes & _FOLDER or name.endswith("/")):
        refuse(file, f"expected a file at {name!r}, found a folder of {size} bytes")
    if disk or (packed != size and not method):
        refuse(file, f"expected {size} stored bytes for {name!r}, found {packed}")
    return _Listed(Entry(name, 0, packed, crc, method), raw, header, flags), end


def _data_offset(fd: int, one: _Listed, limit: int, file: str) -> int:
    """Where an entry's bytes start, by its own header: only that one knows how long its extra field is."""
    name = one.entry.name
    if one.header + LOCAL.size + len(one.raw_name) > limit:
        refuse(file, f"expected entry {name!r} before byte {limit}, found it at {one.header}")
    raw = pread(fd, LOCAL.size, one.header, file)
    magic, _, flags, method, _, _, _, packed, size, n_name, n_extra = LOCAL.unpack(raw)
    offset: int = one.header + LOCAL.size + n_name + n_extra
    if magic != LOCAL_MAGIC or offset > limit:
        refuse(file, f"expected entry {name!r} at byte {one.header}, found {magic!r}")
    rest = pread(fd, n_name + n_extra, one.header + LOCAL.size, file)
    if rest[:n_name] != one.raw_name or (flags, method) != (one.flags, one.entry.method):
        refuse(file, f"expected entry {name!r} at byte {one.header}, found {rest[:n_name]!r:.80}")
    if not flags & _SIZES_FOLLOW:
        size, packed = _widened([size, packed], rest[n_name:], name, file)
        if packed != one.entry.size or (size != packed and not method):
            refuse(
                file, f"expected {one.entry.size} bytes in entry {name!r}, found {packed} in its own header"
            )
    return offset


def _widened(values: list[int], extra: bytes, name: str, file: str) -> list[int]:
    """`values` with every all-ones one replaced from the zip64 extra field, which holds just those."""
    missing = values.count(FULL32)
    if not missing:
        return values
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == ZIP64_EXTRA and 8 * missing <= length <= len(extra) - position:
            wide: Iterator[int] = iter(struct.unpack_from(f"<{missing}Q", extra, position))
            return [next(wide) if value == FULL32 else value for value in values]
        position += length
    return refuse(file, f"expected a zip64 field for entry {name!r}, found none")


def _decode(raw: bytes, flags: int, file: str) -> str:
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        refuse(file, f"expected entry names in UTF-8, found {raw!r:.80}")
    if not name or not name.isprintable() or "\\" in name:
        refuse(file, f"expected plain entry names, found {name!r:.80}")
    return name


def pread(fd: int, length: int, offset: int, file: str) -> bytes:
    """Exactly `length` bytes from byte `offset` on; MalformedError where the file ends before."""
    pieces = b""
    while len(pieces) < length:
        piece = os.pread(fd, length - len(pieces), offset + len(pieces))
        if not piece:
            refuse(file, f"expected {length} bytes at byte {offset}, found {len(pieces)}")
        pieces += piece
    return pieces


def refuse(file: str, cause: str) -> NoReturn:
    raise MalformedError(f"{file} is malformed", cause=cause)
