"""Arrays whose bytes are no range of a file, written out as plain files before they are read.

Compressed and chunked arrays are such. They are known by name and shape from headers; when a plan is run,
those that it reads are written out by the library that made them, in a directory of their own that goes
afterwards. Every other part of porter then deals with plain bytes alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from porter.containers.base import StoredTensor

# Before the name of an array whose bytes are no range of a file.
ARRAY = "array:"

# What follows where it is a dataset of an HDF5 file: the file, two slashes, and the dataset.
HDF5 = f"{ARRAY}hdf5:"

# Bytes of an array read at a time, where its chunks are smaller.
PIECE = 32 << 20


@contextmanager
def exported(root: Path, tensors: Iterable[StoredTensor], beside: Path) -> Iterator[Mapping[str, Path]]:
    """Plain files, in a directory in `beside` that goes afterwards, for those tensors that have none.

    Raises MalformedError for arrays that cannot be read or have changed since their header was.
    """
    wanted = [tensor for tensor in tensors if tensor.file.startswith(ARRAY)]
    if not wanted:
        yield {}
        return
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".porter-arrays-", dir=beside) as folder:
        paths = {}
        for number, tensor in enumerate(wanted):
            paths[tensor.file] = Path(folder) / str(number)
            _export(root, tensor, paths[tensor.file])
        yield paths


def _export(root: Path, tensor: StoredTensor, path: Path) -> None:
    # Each brings its own library along.
    if tensor.file.startswith(HDF5):
        from porter.containers.keras.hdf5_arrays import export
    else:
        from porter.containers.orbax.orbax_arrays import export
    export(root, tensor, path)


def rows_at_once(tensor: StoredTensor, rows: int) -> int:
    """Outermost rows that are read at once: whole chunks of `rows`, up to a piece or one chunk."""
    row = max(1, tensor.nbytes // max(1, tensor.shape[0]))
    rows = max(1, rows)
    return max(rows, PIECE // row // rows * rows)
