"""The beginning of a file as bytes that grow when more of it is asked for.

A header's length stands nowhere in a GGUF, so pieces are read, each larger than the one before. Nothing is
mapped: a file that is cut short under a map ends the process by a signal, and here it is an error.
"""

from __future__ import annotations

import os
from typing import BinaryIO

# Bytes. A header without a vocabulary takes some 100 kB, one with it 5 to 15 MB.
_FIRST = 1 << 20


class LeadingBytes:
    """At most `limit` bytes of a stream; slices and `struct.unpack_from` see what has been read."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._fd = stream.fileno()
        self._size = min(os.fstat(self._fd).st_size, limit)
        self.read = b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: slice) -> bytes:
        return self.upto(index.stop)[index.start : index.stop]

    def upto(self, end: int) -> bytes:
        """What has been read, at least to byte `end` where the file is that long."""
        while len(self.read) < min(end, self._size):
            have = len(self.read)
            piece = os.pread(self._fd, min(max(_FIRST, have, end - have), self._size - have), have)
            if not piece:
                # Cut short since it was opened: it ends here.
                self._size = have
                break
            self.read += piece
        return self.read
