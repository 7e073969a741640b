"""Arrays whose bytes are no range of a file, written out as plain files before they are read.

Compressed and chunked arrays are such. They are known by name and shape from headers; when a plan is run,
those that it reads are written out by the library that made them, in a directory of their own that goes
afterwards. Every other part of porter then deals with plain bytes alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from porter import system
from porter.containers.array_names import ARRAY, HDF5
from porter.containers.base import StoredTensor
from porter.containers.keras import hdf5_export
from porter.containers.orbax import orbax_arrays
from porter.sources.base import Source
from porter.sources.local_files import LocalSource
from porter.sources.overlay import OverlaySource


@contextmanager
def exported(root: Path, tensors: Iterable[StoredTensor], folder: Path) -> Iterator[Mapping[str, Path]]:
    """Plain files, in the directory `folder` that is made and goes afterwards, for those tensors that have
    none.

    The directory is locked while it is used, so that others can tell it from what a killed run has left.
    Raises MalformedError for arrays that cannot be read or have changed since their header was.
    """
    wanted = [tensor for tensor in tensors if tensor.file.startswith(ARRAY)]
    if not wanted:
        yield {}
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(0o700)
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        system.try_lock(held)
        paths = {}
        for number, tensor in enumerate(wanted):
            paths[tensor.file] = folder / str(number)
            _export(root, tensor, paths[tensor.file])
        yield paths
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


@contextmanager
def overlaid(source: Source, tensors: Iterable[StoredTensor], folder: Path | None = None) -> Iterator[Source]:
    """The source, with those arrays of `tensors` that are no range of a file as plain files in `folder`,
    which is made for them: where none is named, among the system's temporary files.
    """
    if not isinstance(source, LocalSource):
        yield source
        return
    folder = folder or Path(tempfile.gettempdir()) / f"porter-arrays-{secrets.token_hex(6)}"
    with exported(source.root, tensors, folder) as arrays:
        yield OverlaySource(source, arrays) if arrays else source


def _export(root: Path, tensor: StoredTensor, path: Path) -> None:
    library = hdf5_export if tensor.file.startswith(HDF5) else orbax_arrays
    library.export(root, tensor, path)
