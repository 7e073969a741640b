"""Arrays of an Orbax checkpoint that are no plain files, written out as such by tensorstore.

tensorstore is what Orbax itself stores arrays with; reading through it alone needs no JAX. Pieces follow the
array's own chunks, so that each is decoded once; an array that is one chunk passes through memory whole.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from porter.containers.array_names import ARRAY, rows_at_once
from porter.containers.base import StoredTensor
from porter.containers.orbax.orbax_database import files_of, store_of, tensorstore
from porter.containers.orbax.orbax_folders import DATABASE, array_folder, check_links
from porter.containers.orbax.orbax_tree import stores_every_chunk
from porter.errors import MalformedError


def export(root: Path, tensor: StoredTensor, path: Path) -> None:
    """Write the array's elements, row-major, to a new file. Its time is the checkpoint's."""
    array, changed = _open(root, tensor)
    if tuple(array.shape) != tensor.shape:
        raise MalformedError(
            f"{tensor.name} has changed", cause=f"expected {tensor.shape}, found {array.shape}"
        )
    with path.open("xb") as stream:
        try:
            if not tensor.shape:
                stream.write(array.read(order="C").result().tobytes())
            else:
                step = rows_at_once(tensor, int(array.chunk_layout.read_chunk.shape[0]))
                for start in range(0, tensor.shape[0], step):
                    piece = array[start : min(start + step, tensor.shape[0])].read(order="C").result()
                    stream.write(piece.tobytes())
        except (ValueError, OSError) as error:
            raise MalformedError(f"{tensor.name} cannot be read", cause=str(error)[:300]) from None
    os.utime(path, ns=(changed, changed))


def _open(root: Path, tensor: StoredTensor) -> tuple[Any, int]:
    package = tensorstore()
    name = tensor.file.removeprefix(ARRAY)
    folder, param = array_folder(root, name)
    check_links(root, folder)
    # What was left out on purpose is the fill value to Orbax; what is lost is an error, as it is there.
    filled = not stores_every_chunk(root, folder)
    base = root / folder
    store: dict[str, Any]
    if (base / DATABASE).is_file():
        store = {**store_of(base), "path": f"{param}/"}
        changed = (base / DATABASE).stat().st_mtime_ns
    else:
        store = files_of(base / param)
        changed = max(path.stat().st_mtime_ns for path in (base / param).iterdir())
    # Nothing is read twice, so nothing need be kept.
    context = package.Context({"cache_pool": {"total_bytes_limit": 0}})
    for driver in ("zarr", "zarr3"):
        try:
            spec = {"driver": driver, "kvstore": store, "fill_missing_data_reads": filled}
            return package.open(spec, open=True, read=True, context=context).result(), changed
        except ValueError as error:
            cause = str(error)
    raise MalformedError(f"{tensor.name} cannot be opened", cause=cause[:300])
