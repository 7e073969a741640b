"""Chunked, compressed and checksummed datasets of an HDF5 file: whether they can be read.

h5py and h5repack store so when a file is saved again. Only the filters that HDF5 itself and h5py bring along
are let through, since any other is a library that HDF5 would load. A chunk that was never written is absent
data and not the fill value.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from porter.containers.array_names import HDF5
from porter.errors import MalformedError, UnsupportedError

# HDF5's numbers: deflate (gzip), shuffle, fletcher32; and h5py's own lzf.
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}


def array_name(file: str, dataset: str) -> str:
    """What stands for the file of a dataset that is written out before it is read."""
    return f"{HDF5}{file}//{dataset}"


def check_array(h5py: Any, name: str, dataset: Any, file: str) -> None:
    """Raises UnsupportedError for filters that are not undone, MalformedError where a chunk is missing."""
    layout = dataset.id.get_create_plist()
    filters = [layout.get_filter(number)[0] for number in range(layout.get_nfilters())]
    odd = [str(number) for number in filters if number not in _FILTERS]
    if odd:
        raise UnsupportedError(
            f"{file}: dataset {name!r} is stored through a filter that is not undone",
            cause=f"expected {', '.join(_FILTERS.values())}, found the filter {', '.join(odd)}",
            hint=f"save it again without: h5repack -f NONE {Path(file).name} plain.weights.h5",
        )
    if layout.get_layout() != h5py.h5d.CHUNKED or 0 in dataset.shape:
        return
    counts = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    expected = 1
    for count in counts:
        expected *= count
    stored = dataset.id.get_num_chunks()
    if stored == expected:
        return
    there = {dataset.id.get_chunk_info(number).chunk_offset for number in range(stored)}
    starts = (
        tuple(number * chunk for number, chunk in zip(point, dataset.chunks, strict=True))
        for point in itertools.product(*map(range, counts))
    )
    missing = next(start for start in starts if start not in there)
    raise MalformedError(
        f"{file}: dataset {name!r} is not complete",
        cause=f"expected {expected} chunks, found {stored}; the one at {list(missing)} was never written",
        hint="copy the checkpoint again; what was never written is no weight",
    )
