"""Placing tensors in an HDF5 file, and all of its bytes that are not tensor data.

The HDF5 library lays the file out itself: it is given every group and dataset, with space reserved at once
and never filled, in an image that keeps only what it writes. The data's offsets are then read back, and
what lies outside the data are the literal bytes. The same tensors give the same bytes, with the same
release of the library: no times are kept, and the file format's version is pinned.

Nothing is written here and no weight is touched: data of the placed tensors come from the plan's copies.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from porter.containers.base import OutputFile, StoredTensor, TensorSpec
from porter.containers.keras.hdf5 import BF16_ATTRIBUTE, BF16_WORD, CONTAINER, require_h5py
from porter.dtypes import Dtype
from porter.errors import UnsupportedError

# The oldest format that holds what is needed here: Keras' own default, readable by every release.
_FORMAT = ("earliest", "v110")

# Bytes that the image keeps or leaves out at a time.
_PAGE = 4096


class Image(io.RawIOBase):
    """A file in memory of which only the pages that were written take space; the rest reads as zeros."""

    def __init__(self) -> None:
        self.size = 0
        self._at = 0
        self._pages: dict[int, bytearray] = {}

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        return self.size

    def readinto(self, buffer: Any) -> int:
        data = self.bytes(self._at, min(self._at + len(buffer), max(self.size, self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            number, within = divmod(self._at + done, _PAGE)
            piece = view[done : done + _PAGE - within]
            self._pages.setdefault(number, bytearray(_PAGE))[within : within + len(piece)] = piece
            done += len(piece)
        self._at += done
        self.size = max(self.size, self._at)
        return done

    def bytes(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`."""
        pieces = []
        while start < end:
            number, within = divmod(start, _PAGE)
            length = min(end - start, _PAGE - within)
            page = self._pages.get(number)
            pieces.append(bytes(length) if page is None else bytes(page[within : within + length]))
            start += length
        return b"".join(pieces)


def place(name: str, tensors: Sequence[TensorSpec], metadata: Mapping[str, str]) -> OutputFile:
    """Where each tensor of the output file `name` goes; a name's parts are the groups around it.

    Raises UnsupportedError for a dtype that Keras does not store, for names that cannot stand beside each
    other, and where h5py is missing. `metadata` is kept as attributes of the file.
    """
    return _lay_out(name, tensors, metadata)[0]


def literals(file: OutputFile) -> list[tuple[int, bytes]]:
    """(offset, bytes) of all that is not tensor data."""
    specs = [(tensor.name, tensor.dtype, tensor.shape) for tensor in file.tensors]
    again, image = _lay_out(file.name, specs, file.metadata)
    if again != file:
        raise ValueError(f"{file.name}: the HDF5 library would place its tensors elsewhere now")
    found, end = [], 0
    for tensor in sorted(file.tensors, key=lambda tensor: tensor.offset):
        if tensor.offset > end:
            found.append((end, image.bytes(end, tensor.offset)))
        end = tensor.offset + tensor.nbytes
    if file.size > end:
        found.append((end, image.bytes(end, file.size)))
    return found


def _lay_out(
    name: str, tensors: Sequence[TensorSpec], metadata: Mapping[str, str]
) -> tuple[OutputFile, Image]:
    h5py = require_h5py()
    image = Image()
    with h5py.File(image, "w", libver=_FORMAT) as file:
        for key, text in metadata.items():
            file.attrs[key] = text
        for tensor, dtype, shape in tensors:
            try:
                _create(h5py, file, tensor, dtype, shape)
            except (ValueError, TypeError, OSError, RuntimeError) as error:
                cause = str(error)
                raise UnsupportedError(f"{name}: cannot name a tensor {tensor!r}", cause=cause) from None
    # Only a closed file has all of its bytes.
    with h5py.File(image, "r") as file:
        placed = tuple(
            StoredTensor(tensor, dtype, tuple(shape), name, file[tensor].id.get_offset())
            for tensor, dtype, shape in tensors
        )
    return OutputFile(name, CONTAINER, image.size, placed, dict(metadata)), image


def _create(h5py: Any, file: Any, name: str, dtype: Dtype, shape: tuple[int, ...]) -> None:
    kind = _type(h5py, dtype)
    if kind is None or 0 in shape:
        cause = f"it is {dtype.name}" if kind is None else f"its shape is {list(shape)}"
        raise UnsupportedError(f"Keras' HDF5 cannot hold {name!r}", cause=cause)
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    group, _, last = name.rpartition("/")
    parent = file.require_group(group) if group else file
    space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    identifier = h5py.h5d.create(parent.id, last.encode(), kind, space, dcpl=layout)
    if dtype.name == "BF16":
        h5py.Dataset(identifier).attrs[BF16_ATTRIBUTE] = BF16_WORD


def _type(h5py: Any, dtype: Dtype) -> Any:
    if dtype.name == "BF16":
        opaque = h5py.h5t.create(h5py.h5t.OPAQUE, dtype.itemsize)
        # The library wants a tag before it writes an opaque type; Keras leaves it empty.
        opaque.set_tag(b"")
        return opaque
    return {"F32": h5py.h5t.IEEE_F32LE, "F16": h5py.h5t.IEEE_F16LE}.get(dtype.name)
