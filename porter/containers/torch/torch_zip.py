"""Torch files (`.pth`, `.bin`, `.pt`, `.ckpt`): the tensors of a zip that torch.save wrote, as file extents.

Promised: nothing is imported or executed that the file names, torch is not needed, and no weight is read.
Every tensor that is returned lies inside a stored entry of the archive, row-major or, where it was saved as
a view, with its strides; two names may share their bytes, which is how torch keeps ties. Not promised: that
the zip's checksums of weights are right (torch does not check them either), and files in torch's formats from
before 1.6.

Format: torch's `serialization.py` and `caffe2/serialize/inline_container.cc` (2.13).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from porter.containers.base import Header
from porter.containers.safetensors.safetensors_header import check_name, some
from porter.containers.torch.torch_pickle import MAX_PICKLE, unpickle
from porter.containers.torch.torch_state import find_state, place_tensor, unwrapped
from porter.containers.torch.torch_zip_entries import LOCAL_MAGIC, Entry, pread, read_entries, refuse
from porter.errors import UnsupportedError
from porter.reading.regular import open_regular, unreadable
from porter.sources.paths import locate
from porter.wording import option

CONTAINER = "torch"

# Where a header's metadata keep the names as they are stored, by the names without what wrappers put in.
STORED_NAMES = "torch.stored_names"

# In a header's metadata: the key that the state dict stands under.
WRAP = "torch.wrapped_under"

_RESAVE = "save it again where it comes from: torch.save(torch.load(file, weights_only=True), new_file)"

# The versions that torch reads, and bytes of the longest number that is looked at.
_VERSIONS = range(1, 11)
_MAX_VERSION = 16

# Bytes. Longer than any word that may stand in the byteorder entry.
_MAX_BYTEORDER = 16


def read_header(path: Path, file: str, key: str | None = None) -> Header:
    """The tensors of the torch file at `path`, whose name in the checkpoint is `file`, in file order.

    `key` says which of the file's state dicts is meant. `metadata` may hold "torch.wrapped_under" (the key of
    the state dict) and "torch.foreign" (classes and functions that the pickle names and that
    were not looked up). Raises MalformedError for a file that is broken or unsafe, UnsupportedError for
    negated views, other byte orders, compressed entries and formats from before torch 1.6.
    """
    return _strip([_read_raw(path, file, key)])[0]


def read_headers(directory: Path, files: Sequence[str], key: str | None = None) -> tuple[Header, ...]:
    """The headers of files that are one checkpoint; what wrappers put into names is taken out of all."""
    return tuple(_strip([_read_raw(locate(directory, file), file, key) for file in files]))


def _strip(headers: list[Header]) -> list[Header]:
    """Take what wrappers put into names out of them."""
    bare = unwrapped(tensor.name for header in headers for tensor in header.tensors)
    stripped = []
    for header in headers:
        tensors = tuple(tensor._replace(name=bare[tensor.name]) for tensor in header.tensors)
        changed = {bare[t.name]: t.name for t in header.tensors if bare[t.name] != t.name}
        metadata = {**header.metadata, STORED_NAMES: changed} if changed else header.metadata
        stripped.append(replace(header, tensors=tensors, metadata=metadata))
    return stripped


def _read_raw(path: Path, file: str, key: str | None = None) -> Header:
    """A file's header with names as they are stored."""
    try:
        with open_regular(path, file) as stream:
            fd = stream.fileno()
            size = os.fstat(fd).st_size
            _check_format(os.pread(fd, 512, 0), file)
            entries = read_entries(fd, size, file)
            top = _top_folder(entries, file)
            _check_stored(entries, file)
            _check_version(fd, entries.get(f"{top}/.data/version") or entries.get(f"{top}/version"), file)
            _check_byteorder(fd, entries.get(f"{top}/byteorder"), file)
            pickled = _read_pickle(fd, entries[f"{top}/data.pkl"], file)
    except OSError as error:
        raise unreadable(error, file) from error
    found = unpickle(pickled, file, sum(name.startswith(f"{top}/data/") for name in entries))
    state = find_state(found.value, file, key)
    if any(name.endswith("placement_types.Partial") for name in found.foreign):
        raise UnsupportedError(
            f"{file} holds partial sums of a distributed run",
            hint="save a full state dict: StateDictOptions(full_state_dict=True)",
        )
    folder = f"{top}/data/"
    storages = {
        name.removeprefix(folder): entry for name, entry in entries.items() if name.startswith(folder)
    }
    tensors = []
    for name, tensor in state.tensors.items():
        check_name(name, file)
        tensors.append(place_tensor(name, tensor, storages, file))
    tensors.sort(key=lambda tensor: tensor.offset)
    metadata: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if state.key is not None:
        metadata[WRAP] = state.key
    if state.others:
        notes = (
            f"{file}: took the weights under {state.key!r}; it holds others under "
            f"{', '.join(map(repr, state.others))}, which {option('key')} takes",
        )
    if found.foreign:
        metadata["torch.foreign"] = found.foreign
    return Header(CONTAINER, file, size, tuple(tensors), metadata, notes)


def _check_format(start: bytes, file: str) -> None:
    if start.startswith(LOCAL_MAGIC):
        return
    if start[:1] == b"\x80":
        raise UnsupportedError(
            f"{file} is a torch file without a zip", cause="torch wrote such files before 1.6", hint=_RESAVE
        )
    if start[257:262] == b"ustar":
        raise UnsupportedError(
            f"{file} is a tar archive", cause="torch wrote such files before 0.4", hint=_RESAVE
        )
    refuse(file, f"expected a zip archive, found a file that starts with {start[:8]!r}")


def _top_folder(entries: dict[str, Entry], file: str) -> str:
    """The one folder that holds everything; torch names it after the file."""
    folders = {name.partition("/")[0] if "/" in name else "" for name in entries}
    if len(folders) != 1 or "" in folders:
        refuse(file, f"expected one folder in the archive, found {some(sorted(folders)) or 'none'}")
    top = folders.pop()
    if f"{top}/constants.pkl" in entries:
        raise UnsupportedError(
            f"{file} is a TorchScript archive",
            cause="it holds a program, not only weights",
            hint="save its state dict: torch.save(torch.jit.load(file).state_dict(), new_file)",
        )
    if f"{top}/data.pkl" not in entries:
        refuse(file, f"expected the entry {top}/data.pkl, found {some(entries)}")
    return top


def _check_stored(entries: dict[str, Entry], file: str) -> None:
    for entry in entries.values():
        if entry.method:
            raise UnsupportedError(
                f"{file}: entry {entry.name!r} is compressed",
                cause=f"expected stored bytes (method 0), found method {entry.method}",
                hint=_RESAVE,
            )


def _check_version(fd: int, entry: Entry | None, file: str) -> None:
    """That of the archive, without which torch reads no file: `inline_container.h` of torch 2.13."""
    if entry is None:
        refuse(file, "expected the archive's version, found none")
    word = pread(fd, min(entry.size, _MAX_VERSION), entry.offset, file)
    number = re.match(rb"[0-9]+", word)
    if number is None or int(number[0]) not in _VERSIONS:
        refuse(file, f"expected an archive of version {_VERSIONS[0]} to {_VERSIONS[-1]}, found {word!r}")


def _check_byteorder(fd: int, entry: Entry | None, file: str) -> None:
    # Files from before torch 2.1 lack the entry, and are little-endian.
    if entry is None:
        return
    word = pread(fd, min(entry.size, _MAX_BYTEORDER), entry.offset, file)
    if word == b"big":
        raise UnsupportedError(
            f"{file} holds big-endian numbers", cause="expected little-endian ones", hint=_RESAVE
        )
    if word != b"little":
        refuse(file, f"expected the byte order little or big, found {word!r}")


def _read_pickle(fd: int, entry: Entry, file: str) -> bytes:
    if entry.size > MAX_PICKLE:
        refuse(file, f"expected a pickle of at most {MAX_PICKLE} bytes, found {entry.size}")
    pickled = pread(fd, entry.size, entry.offset, file)
    # torch leaves 0 there when told not to compute checksums.
    if entry.crc not in (0, zlib.crc32(pickled)):
        refuse(file, f"expected the checksum {entry.crc:#010x} of {entry.name!r}, found another")
    return pickled
