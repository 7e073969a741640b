"""How arrays are called whose bytes are no range of a file, and how much of one is read at a time."""

from __future__ import annotations

from porter.containers.base import StoredTensor

# Before the name of an array whose bytes are no range of a file.
ARRAY = "array:"

# What follows where it is a dataset of an HDF5 file: the file, two slashes, and the dataset.
HDF5 = f"{ARRAY}hdf5:"

# Bytes of an array read at a time, where its chunks are smaller.
PIECE = 32 << 20


def rows_at_once(tensor: StoredTensor, rows: int) -> int:
    """Outermost rows that are read at once: whole chunks of `rows`, up to a piece or one chunk."""
    row = max(1, tensor.nbytes // max(1, tensor.shape[0]))
    rows = max(1, rows)
    return max(rows, PIECE // row // rows * rows)
