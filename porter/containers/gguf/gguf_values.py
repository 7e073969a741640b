"""The typed values of a GGUF header: scalars, strings and arrays, read in bounds.

`Cursor` walks little-endian bytes and never reads past its limit: every count is compared with the
bytes that remain before anything is allocated. Arrays stay the bytes that the file holds and become
Python values on access, so that a vocabulary of 262,144 tokens costs its own size and no more.

Source: the GGUF specification (ggml's `docs/gguf.md`, version 3) and `gguf.constants.GGUFValueType` (0.19).
Arrays of arrays are refused, as ggml's own reader refuses them.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, overload

from porter.errors import MalformedError, PorterError, UnsupportedError

STRING, ARRAY, BOOL = 8, 9, 7

# ggml's number for each scalar type, and its struct code.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}

_LENGTH = struct.Struct("<Q")


# Bytes of one string. Chat templates, the longest, have some 100,000.
MAX_STRING = 4 << 20

# Strings of all arrays together. The largest vocabularies have 262,144 tokens, and 514,000 merges.
MAX_STRINGS = 2**20


class Bytes(Protocol):
    """What a cursor reads from: the beginning of a file, of which `upto` gives what has been read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> bytes: ...

    def upto(self, end: int, /) -> bytes: ...


class _Array(Sequence[Any]):
    """Shared by the two kinds of array: equality with any sequence, and slices as tuples."""

    def _item(self, index: int) -> Any:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return tuple(self._item(at) for at in range(*index.indices(len(self))))
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(index)
        return self._item(at)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(repr(value) for value in self[:4])
        return f"<{len(self)} values: {shown}{', …' if len(self) > 4 else ''}>"


class ScalarArray(_Array):
    """Numbers or booleans of one type, unpacked on access."""

    def __init__(self, code: str, data: bytes) -> None:
        self._struct = struct.Struct("<" + code)
        self._data = data

    def __len__(self) -> int:
        return len(self._data) // self._struct.size

    def _item(self, index: int) -> Any:
        return self._struct.unpack_from(self._data, index * self._struct.size)[0]

    def __iter__(self) -> Iterator[Any]:
        return (value for (value,) in self._struct.iter_unpack(self._data))


class StringArray(_Array):
    """UTF-8 strings, checked when they were read and decoded on access."""

    def __init__(self, data: bytes, ends: array[int]) -> None:
        self._data = data
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    def _item(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._data[start + _LENGTH.size : self._ends[index]].decode()

    def __iter__(self) -> Iterator[str]:
        return (self._item(index) for index in range(len(self)))


class Cursor:
    """A position in a header's bytes; `file` names it in errors, `limit` is where reading must stop."""

    def __init__(self, data: Bytes, file: str, limit: int) -> None:
        self.data = data
        self.file = file
        self.limit = min(limit, len(data))
        self.position = 0
        self.strings = 0

    def malformed(self, what: str, expected: object, found: object) -> PorterError:
        return MalformedError(f"{self.file}: {what}", cause=f"expected {expected}, found {found}")

    def take(self, count: int, what: str) -> bytes:
        left = self.limit - self.position
        if count > left:
            raise self.malformed(f"the GGUF header ends inside {what}", f"{count} more bytes", f"{left}")
        taken = self.data[self.position : self.position + count]
        if len(taken) < count:
            raise self.malformed("it was cut short while it was read", f"{count} more bytes", len(taken))
        self.position += count
        return taken

    def number(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def count(self, code: str, what: str, each: int, most: int | None = None) -> int:
        """A number of things that take at least `each` bytes, and so fit in what is left of the header."""
        found: int = self.number(code, what)
        bound = (self.limit - self.position) // each
        bound = bound if most is None else min(bound, most)
        if found > bound:
            raise self.malformed(f"{what} cannot be", f"at most {bound}", f"{found}")
        return found

    def string(self, what: str, most: int = MAX_STRING) -> str:
        return self._decoded(self.take(self.count("Q", f"the length of {what}", 1, most), what), what)

    def value(self, kind: int, what: str) -> Any:
        """A value of ggml's type number `kind`: bool, int, float, str or a sequence of one of these."""
        if kind == STRING:
            return self.string(what)
        if kind != ARRAY:
            data = self.take(struct.calcsize("<" + self._code(kind, what)), what)
            return self._checked(kind, data, what)[0]
        kind = self.number("I", f"the element type of {what}")
        if kind == ARRAY:
            raise UnsupportedError(f"{self.file}: {what} is an array of arrays")
        if kind == STRING:
            return self._strings(self.count("Q", f"the length of {what}", _LENGTH.size), what)
        size = struct.calcsize("<" + self._code(kind, what))
        data = self.take(self.count("Q", f"the length of {what}", size) * size, what)
        return self._checked(kind, data, what)

    def _code(self, kind: int, what: str) -> str:
        if kind not in SCALARS:
            raise self.malformed(f"unknown value type of {what}", "a number from 0 to 12", kind)
        return SCALARS[kind]

    def _checked(self, kind: int, data: bytes, what: str) -> ScalarArray:
        if kind == BOOL and (odd := data.translate(None, b"\x00\x01")):
            raise self.malformed(f"{what} is no boolean", "a byte 0 or 1", odd[0])
        return ScalarArray(SCALARS[kind], data)

    def _decoded(self, data: bytes, what: str) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.malformed(f"{what} is not text", "UTF-8", f"byte {data[error.start]:#04x}") from None

    def _strings(self, count: int, what: str) -> StringArray:
        self.strings += count
        if self.strings > MAX_STRINGS:
            raise self.malformed("its arrays hold too many strings", f"at most {MAX_STRINGS:,}", "more")
        # A plain loop over local names: it runs once for each token of a vocabulary.
        start, limit, length_at, prefix = self.position, self.limit, _LENGTH.unpack_from, _LENGTH.size
        ends, position = array("Q"), start
        # `have` bytes were read, of which those before `sure` are the header's.
        data, have, sure = self.data.upto(start), 0, 0
        for _ in range(count):
            body = position + prefix
            if body > have:
                data = self.data.upto(min(body, limit))
                have = len(data)
                sure = min(have, limit)
            end = body + length_at(data, position)[0] if body <= sure else limit + 1
            if have < end <= limit:
                data = self.data.upto(end)
                have = len(data)
                sure = min(have, limit)
            if end > sure:
                raise self.malformed(f"the GGUF header ends inside {what}", f"{count} strings", len(ends))
            try:
                data[body:end].decode()
            except UnicodeDecodeError:
                self._decoded(data[body:end], f"string {len(ends)} of {what}")
            ends.append(end - start)
            position = end
        return StringArray(self.take(position - start, what), ends)
