"""Single elements of stored tensors as float values, wherever they lie in their files.

For samples and for proofs of what went wrong, which ask for elements in any order. Files are mapped; for
samples the system is told not to read ahead, which would cost a hundred times what is looked at. Pages that
were touched are given back as soon as there are many.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from porter.containers.base import StoredTensor
from porter.dtypes import Dtype
from porter.errors import UnsupportedError
from porter.sources.base import NearFile, SourceFile
from porter.system import forget
from porter.values.encodings import encoding_of
from porter.values.numbers import bits, numbers

Values = NDArray[Any]
Addresses = NDArray[np.int64]

# Bytes that may be mapped before their pages are given back.
_TOUCHED = 32 << 20

# Elements of one read up to which they are samples, far apart, of which some are read at a time; with more,
# reading ahead pays.
_MANY, _SOME = 1 << 16, 512

# Bytes that a read of one element or of its neighbours may map: newer kernels map all that the system's cache
# holds in one piece. Samples come in clusters of sixteen.
_MAPPED = (2 << 20) // 16


class StoredValues:
    """`files` are open; `stored` are the tensors of this side by name, for the factors of rows."""

    def __init__(self, files: Mapping[str, SourceFile], stored: Mapping[str, StoredTensor]) -> None:
        self._files, self._stored = files, stored
        self._maps: dict[tuple[str, bool], mmap.mmap] = {}
        self._touched = 0

    def at(self, tensor: StoredTensor, addresses: Addresses) -> Values:
        """The values of elements by their place among the tensor's; float64 for F64, else float32."""
        encoding = encoding_of(tensor.dtype)
        if encoding is None:
            return numbers(self._words(tensor, addresses), tensor.dtype)
        unit = encoding.unit(tensor.dtype, tensor.shape)
        units, back = np.unique(addresses // unit, return_inverse=True)
        size = tensor.dtype.nbytes(unit)
        raw = self._bytes(tensor.file, tensor.offset + units * size, size)
        factors = None
        if tensor.scales is not None:
            scale = self._stored[tensor.scales]
            factors = self.at(scale, units.astype(np.int64)).astype(np.float32)
        values = encoding.decode(raw.reshape(-1).data, tensor.dtype, unit, factors)
        found: Values = values.reshape(-1)[back * unit + addresses % unit]
        return found

    def view(
        self, tensor: StoredTensor, offset: int, sizes: Sequence[int], strides: Sequence[int]
    ) -> Values | None:
        """The bits of a strided part of a tensor as they lie in the mapped file; None for encoded ones.

        Whoever has it drops it before this is closed.
        """
        if encoding_of(tensor.dtype) is not None:
            return None
        item = tensor.dtype.itemsize
        whole = np.frombuffer(self._map(tensor.file, swept=True), f"<u{item}", tensor.span, tensor.offset)
        steps = [stride * item for stride in strides]
        found: Values = np.lib.stride_tricks.as_strided(whole[offset:], sizes, steps, writeable=False)
        return found

    def give_back(self, nbytes: int) -> None:
        """Notes that so many bytes of views were looked at."""
        self._touched += nbytes
        self._give_back(0)

    def close(self) -> None:
        for mapped in self._maps.values():
            # An array that still looks at it keeps it open.
            with contextlib.suppress(BufferError):
                mapped.close()
        self._maps = {}

    def _words(self, tensor: StoredTensor, addresses: Addresses) -> Values:
        if _SOME < len(addresses) <= _MANY:
            parts = range(0, len(addresses), _SOME)
            return np.concatenate([self._words(tensor, addresses[at : at + _SOME]) for at in parts])
        item = tensor.dtype.itemsize
        mapped = self._map(tensor.file, swept=len(addresses) > _MANY)
        whole = np.frombuffer(mapped, f"<u{item}", tensor.span, tensor.offset)
        found: Values = whole[addresses]
        del whole
        self._give_back(len(addresses))
        return found

    def _bytes(self, file: str, starts: Addresses, size: int) -> Values:
        mapped = self._map(file, swept=len(starts) * size >= _MANY)
        whole = np.frombuffer(mapped, np.uint8)
        found: Values = whole[starts[:, None] + np.arange(size)]
        del whole
        self._give_back(len(starts))
        return found

    def _map(self, name: str, *, swept: bool) -> mmap.mmap:
        """The mapped file. Where all of a tensor is `swept` over, the system may read ahead."""
        if (name, swept) not in self._maps:
            file = self._files[name]
            if not isinstance(file, NearFile):
                raise UnsupportedError(f"{name} is not on this machine, and single elements of it are needed")
            mapped = mmap.mmap(file.fd, 0, access=mmap.ACCESS_READ)
            if not swept and hasattr(mmap, "MADV_RANDOM"):
                mapped.madvise(mmap.MADV_RANDOM)
            self._maps[name, swept] = mapped
        return self._maps[name, swept]

    def _give_back(self, count: int) -> None:
        self._touched += count * _MAPPED
        if self._touched > _TOUCHED:
            self._touched = 0
            for mapped in self._maps.values():
                forget(mapped, 0, len(mapped))


def relabelled(values: Values, source: Dtype, target: Dtype) -> Values:
    """The values whose bits in one dtype are taken for those of another of its size."""
    found: Values = numbers(bits(values, source), target).astype(np.float32, copy=False)
    return found
