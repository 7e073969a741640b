"""What every container tells the rest of porter: which tensors a file holds, and where their bytes lie.

Nothing here reads a weight. A container module turns a file's header into `StoredTensor`s, and, for
containers that porter writes, turns the tensors of one output file into `OutputFile` placements plus
the literal bytes (headers) that surround the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from porter.dtypes import Dtype

# A tensor that is to be placed: its name, dtype and shape, outermost first.
TensorSpec = tuple[str, Dtype, tuple[int, ...]]


class StoredTensor(NamedTuple):
    """One tensor as it lies in a file.

    `shape` is row-major, outermost first (GGUF's reversed dims are already turned round); `file` is
    the file's name relative to the checkpoint, with forward slashes; `offset` is in bytes from the
    start of that file. The data are `dtype.nbytes(elements)` contiguous bytes, row-major; with `strides`
    (in elements, one a dim) they lie that far apart instead, as torch keeps views. `scales` names the
    tensor that holds a factor for each row of one that is stored in whole numbers.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    file: str
    offset: int
    scales: str | None = None
    strides: tuple[int, ...] | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def span(self) -> int:
        """Elements from the first to the last one in the file, those between them included."""
        if self.strides is None:
            return self.elements
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))

    @property
    def nbytes(self) -> int:
        return self.dtype.nbytes(self.elements)


@dataclass(frozen=True)
class Header:
    """What one weight file's header says: its tensors in file order, free metadata, its size in bytes.

    `notes` are what a user should know of how the file was read.
    """

    container: str
    file: str
    size: int
    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutputFile:
    """One weight file to be written: its container, total size in bytes, and its placed tensors."""

    name: str
    container: str
    size: int
    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
