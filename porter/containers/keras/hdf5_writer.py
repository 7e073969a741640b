"""Placing tensors in an HDF5 file, and all of its bytes that are not tensor data.

The HDF5 library lays the file out itself: it is given every group and dataset, with space reserved at once
and never filled, in a sparse file that is gone again afterwards. The data's offsets are read back, and what
lies outside the data are the literal bytes. The same tensors give the same bytes, with the same release of
the library: no times are kept, and the file format's version is pinned.

Nothing else is written here and no weight is touched: data of the placed tensors come from the plan's copies.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from porter.containers.base import OutputFile, StoredTensor, TensorSpec
from porter.containers.keras.hdf5 import BF16_ATTRIBUTE, BF16_WORD, CONTAINER, require_h5py
from porter.dtypes import Dtype
from porter.errors import UnsupportedError

# The oldest format that holds what is needed here: Keras' own default, readable by every release.
_FORMAT = ("earliest", "v110")

# Bytes that a dataset and the groups around it take, about.
_METADATA = 512


def place(name: str, tensors: Sequence[TensorSpec], metadata: Mapping[str, str]) -> OutputFile:
    """Where each tensor of the output file `name` goes; a name's parts are the groups around it.

    Raises UnsupportedError for a dtype that Keras does not store, for names that cannot stand beside each
    other, and where h5py is missing. `metadata` is kept as attributes of the file.
    """
    return _laid_out(name, tuple(tensors), tuple(metadata.items())).file


def literals(file: OutputFile) -> list[tuple[int, bytes]]:
    """(offset, bytes) of all that is not tensor data."""
    specs = tuple((tensor.name, tensor.dtype, tensor.shape) for tensor in file.tensors)
    again = _laid_out(file.name, specs, tuple(file.metadata.items()))
    # It takes room in the file system, and is asked for once.
    _laid_out.cache_clear()
    if again.file != file:
        raise ValueError(f"{file.name}: the HDF5 library would place its tensors elsewhere now")
    descriptor = again.image.fileno()
    found, end = [], 0
    for tensor in sorted(file.tensors, key=lambda tensor: tensor.offset):
        if tensor.offset > end:
            found.append((end, os.pread(descriptor, tensor.offset - end, end)))
        end = tensor.offset + tensor.nbytes
    if file.size > end:
        found.append((end, os.pread(descriptor, file.size - end, end)))
    return found


@dataclass(frozen=True)
class _LaidOut:
    """A placed file, and one that has all of its bytes but the data. It has no name any more."""

    file: OutputFile
    image: IO[bytes]


# A plan places a file, and its run asks for the rest: the library's work is done once for both.
@lru_cache(maxsize=1)
def _laid_out(name: str, tensors: tuple[TensorSpec, ...], metadata: tuple[tuple[str, str], ...]) -> _LaidOut:
    h5py = require_h5py()
    with tempfile.NamedTemporaryFile(prefix="porter-", suffix=".h5") as named:
        block = _metadata_block(len(tensors))
        with h5py.File(named.name, "w", libver=_FORMAT, meta_block_size=block) as file:
            for key, text in metadata:
                file.attrs[key] = text
            making = _Making(h5py, file)
            placed = tuple(
                StoredTensor(tensor, dtype, tuple(shape), name, making.dataset(name, tensor, dtype, shape))
                for tensor, dtype, shape in tensors
            )
        # Only a closed file has all of its bytes.
        image = Path(named.name).open("rb", buffering=0)  # noqa: SIM115
    size = os.fstat(image.fileno()).st_size
    laid_out = _LaidOut(OutputFile(name, CONTAINER, size, placed, dict(metadata)), image)
    # It is let go where another file is laid out, and at the end.
    weakref.finalize(laid_out, image.close)
    return laid_out


def _metadata_block(tensors: int) -> int:
    """Bytes that the library sets aside at once for what is not data, a power of two.

    By default 2 KiB: of a hundred thousand tensors a sparse file in as many pieces, which takes the file
    system seconds to remove.
    """
    return min(1 << 20, max(1 << 11, 1 << (_METADATA * tensors).bit_length()))


class _Making:
    """Datasets of one file, by the library's own calls: a hundred thousand of them take seconds."""

    def __init__(self, h5py: Any, file: Any) -> None:
        self._h5py, self._file = h5py, file.id
        self._types = {"F32": h5py.h5t.IEEE_F32LE, "F16": h5py.h5t.IEEE_F16LE, "BF16": _opaque(h5py)}
        self._text = h5py.h5t.py_create(h5py.string_dtype(), logical=True)
        # Of a text in memory the library is given a pointer.
        self._pointer = h5py.h5t.py_create(h5py.string_dtype())
        self._scalar = h5py.h5s.create(h5py.h5s.SCALAR)
        self._layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        self._layout.set_layout(h5py.h5d.CONTIGUOUS)
        self._layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        self._layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        self._layout.set_obj_track_times(False)
        self._links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        self._links.set_create_intermediate_group(True)
        self._word = _word()

    def dataset(self, file: str, name: str, dtype: Dtype, shape: tuple[int, ...]) -> int:
        """Creates a dataset: the offset of its data. Raises UnsupportedError where it cannot be."""
        kind = self._types.get(dtype.name)
        if kind is None or 0 in shape:
            cause = f"it is {dtype.name}" if kind is None else f"its shape is {list(shape)}"
            raise UnsupportedError(f"Keras' HDF5 cannot hold {name!r}", cause=cause)
        if not {"", "."}.isdisjoint(name.split("/")):
            # The library would read another name: `a/./b` as `a/b`.
            raise UnsupportedError(f"{file}: cannot name a tensor {name!r}")
        try:
            space = self._h5py.h5s.create_simple(shape) if shape else self._scalar
            made = self._h5py.h5d.create(
                self._file, name.encode(), kind, space, dcpl=self._layout, lcpl=self._links
            )
            if dtype.name == "BF16":
                word = self._h5py.h5a.create(made, BF16_ATTRIBUTE.encode(), self._text, self._scalar)
                word.write(self._word, mtype=self._pointer)
            offset: int = made.get_offset()
            return offset
        except (ValueError, TypeError, OSError, RuntimeError, KeyError) as error:
            raise UnsupportedError(f"{file}: cannot name a tensor {name!r}", cause=str(error)) from None


def _opaque(h5py: Any) -> Any:
    """Two bytes that HDF5 has no type for, as Keras stores bfloat16."""
    opaque = h5py.h5t.create(h5py.h5t.OPAQUE, 2)
    # The library wants a tag before it writes an opaque type; Keras leaves it empty.
    opaque.set_tag(b"")
    return opaque


def _word() -> Any:
    import numpy as np

    return np.array(BF16_WORD, dtype=object)
