"""Datasets of an HDF5 file that are no range of it, written out as plain files.

Reading follows the chunks, so that each is decoded once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from porter.containers.array_names import HDF5, rows_at_once
from porter.containers.base import StoredTensor
from porter.containers.keras.hdf5 import require_h5py
from porter.containers.keras.hdf5_arrays import check_array
from porter.containers.keras.keras_files import weights_range
from porter.containers.window import Window
from porter.errors import MalformedError
from porter.reading.regular import open_regular
from porter.sources.paths import locate


def export(root: Path, tensor: StoredTensor, path: Path) -> None:
    """Write a dataset's elements, row-major, to a new file. Its time is that of the HDF5 file."""
    h5py = require_h5py()
    file, _, name = tensor.file.removeprefix(HDF5).partition("//")
    real = locate(root, file)
    with open_regular(real, tensor.name) as stream, path.open("xb") as out:
        changed = os.fstat(stream.fileno()).st_mtime_ns
        start, size = weights_range(stream.fileno(), file)
        try:
            with h5py.File(Window(stream, start, size), "r") as opened:
                dataset = opened[name]
                check_array(h5py, name, dataset, file)
                _write(dataset, tensor, out)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise MalformedError(
                f"{tensor.name} cannot be read from {file}", cause=str(error)[:300]
            ) from None
        if out.tell() != tensor.nbytes:
            raise MalformedError(
                f"{tensor.name} has changed", cause=f"expected {tensor.nbytes} bytes, found {out.tell()}"
            )
    os.utime(path, ns=(changed, changed))


def _write(dataset: Any, tensor: StoredTensor, out: Any) -> None:
    if tuple(dataset.shape) != tensor.shape:
        raise ValueError(f"expected the shape {list(tensor.shape)}, found {list(dataset.shape)}")
    if not tensor.shape:
        out.write(dataset[()].tobytes())
        return
    step = rows_at_once(tensor, dataset.chunks[0] if dataset.chunks else tensor.shape[0])
    for start in range(0, tensor.shape[0], step):
        out.write(dataset[start : start + step].tobytes())
