"""Digests as a sink: of each tensor that a plan makes, over its bytes in row-major order.

A tensor is cut into pieces of PIECE bytes, the last one perhaps shorter. Its digest is the hash of a header
and the digests of its pieces, one after the other. So pieces may come in any order and from several threads,
and no more is held than those that have come in part.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any, Protocol

from porter.containers.base import OutputFile, StoredTensor
from porter.errors import PorterError
from porter.execution.sinks.tensors import TensorSink, TensorWriter
from porter.execution.writers import Writer

# Bytes. What an extent is read by, so that such a piece is hashed where it lies, in the processor's cache.
PIECE = 256 << 10


class Hash(Protocol):
    """A hash of some bytes, as hashlib's and blake3's functions make one."""

    def digest(self) -> bytes: ...


NewHash = Callable[[Any], Hash]
Header = Callable[[StoredTensor], bytes]


class DigestWriter(TensorWriter):
    """The digests of the pieces of an output file's tensors."""

    def __init__(self, file: OutputFile, new: NewHash) -> None:
        super().__init__(file)
        self._new = new
        self._pieces: dict[int, list[bytes | None]] = {
            tensor.offset: [None] * -(-tensor.nbytes // PIECE) for tensor in file.tensors if tensor.nbytes
        }
        self._parts: dict[tuple[int, int], tuple[bytearray, list[int]]] = {}
        self._lock = threading.Lock()

    def take(self, tensor: StoredTensor, start: int, data: memoryview) -> None:
        done = 0
        while done < len(data):
            index, within = divmod(start + done, PIECE)
            size = min(PIECE, tensor.nbytes - index * PIECE)
            count = min(size - within, len(data) - done)
            part = data[done : done + count]
            if count == size:
                self._pieces[tensor.offset][index] = self._new(part).digest()
            else:
                self._gather(tensor.offset, index, size, within, part)
            done += count

    def _gather(self, tensor: int, index: int, size: int, within: int, part: memoryview) -> None:
        """Takes a part of a piece, and hashes the piece when it is whole."""
        with self._lock:
            held, missing = self._parts.setdefault((tensor, index), (bytearray(size), [size]))
        held[within : within + len(part)] = part
        with self._lock:
            missing[0] -= len(part)
            whole = missing[0] == 0
            if whole:
                del self._parts[tensor, index]
        if whole:
            self._pieces[tensor][index] = self._new(held).digest()

    def digest(self, tensor: StoredTensor, header: bytes) -> str:
        pieces = self._pieces[tensor.offset] if tensor.nbytes else []
        found = [piece for piece in pieces if piece is not None]
        if len(found) < len(pieces):
            raise PorterError(f"{tensor.name!r} did not come whole")
        return self._new(header + b"".join(found)).digest().hex()


class DigestSink(TensorSink):
    """`digests` are there after `commit`: hex by name.

    `new` makes a hash of some bytes, by default sha256; `header` says what is hashed before the digests of a
    tensor's pieces.
    """

    def __init__(self, new: NewHash = hashlib.sha256, header: Header = lambda tensor: b"") -> None:
        super().__init__()
        self._new, self._header = new, header
        self._made: list[tuple[OutputFile, DigestWriter]] = []
        self.digests: dict[str, str] = {}

    def writer(self, file: OutputFile) -> Writer:
        writer = DigestWriter(file, self._new)
        self._made.append((file, writer))
        return writer

    def commit(self) -> None:
        self.digests = {
            tensor.name: writer.digest(tensor, self._header(tensor))
            for file, writer in self._made
            for tensor in file.tensors
        }
