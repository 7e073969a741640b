"""Reading an HDF5 file that holds Keras weights: every dataset as a plain range of bytes.

HDF5 can say that data lie elsewhere, are compressed, or are made up on reading. One strict rule keeps the
first and the last out: hard links only and each object linked once; datasets neither virtual nor external;
contiguous and unfiltered, with an offset that is known, as many stored bytes as declared, inside the file,
or else chunks that are all there, to be written out before they are read (`hdf5_arrays`); elements F16, F32,
or BF16 as Keras marks it. What breaks the rule is refused with the reason. No dataset is read here.

What Keras keeps beside weights (`is_state`: an optimizer's variables, random seeds) is listed too and may
hold whole numbers. Whole numbers anywhere else are quantised weights and not read.

Format: https://support.hdfgroup.org/documentation/hdf5 and Keras' `saving_lib.py` (3.15).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from porter.containers.base import Header, StoredTensor
from porter.containers.keras.hdf5_arrays import array_name, check_array
from porter.containers.storage_kinds import KERAS_LORA
from porter.containers.window import Window
from porter.dtypes import DTYPES, Dtype
from porter.errors import MalformedError, UnsupportedError
from porter.reading.regular import open_regular, unreadable
from porter.sources.paths import CONTROL
from porter.system.extras import install_line

CONTAINER = "hdf5"

# Gemma 27B with an optimizer takes some 3,000 objects, at a depth of six.
MAX_OBJECTS = 200_000
MAX_DEPTH = 32

# The attribute by which Keras marks two opaque bytes as bfloat16, which HDF5 itself has no type for.
BF16_ATTRIBUTE, BF16_WORD = "dtype", "bfloat16"

_STATE = re.compile(r"(^|/)optimizer/|/seed_generator/")
_STATE_INTEGERS = {("i", 4): "I32", ("i", 8): "I64", ("u", 4): "U32", ("u", 8): "U64"}
# Ranks and sizes are unsigned 64-bit numbers in the format; torch has no larger tensors.
_MAX_ELEMENTS = 2**63 - 1


def require_h5py() -> Any:
    """The module `h5py`; UnsupportedError that names the extra where it is not installed."""
    try:
        return import_module("h5py")
    except ImportError:
        raise UnsupportedError(
            "Keras HDF5 files are read and written through h5py, which is not installed",
            hint=f"{install_line('keras')} (the extra keras)",
        ) from None


def is_state(name: str) -> bool:
    """Whether a dataset is what Keras keeps beside weights: an optimizer's variable, a random seed."""
    return _STATE.search(name) is not None


def read_header(path: Path, file: str, start: int = 0, size: int | None = None) -> Header:
    """The datasets of the HDF5 file at `path`, whose name in the checkpoint is `file`, by their full paths.

    With `start` and `size` the HDF5 file is that range of bytes of `path`; offsets stay those of `path`.
    Raises MalformedError where the rule is broken, UnsupportedError for quantised weights.
    """
    h5py = require_h5py()
    try:
        with open_regular(path, file) as stream:
            whole = os.fstat(stream.fileno()).st_size
            window = Window(stream, start, whole - start if size is None else size)
            tensors = tuple(_read(h5py, window, file, start))
    except OSError as error:
        if error.errno is not None and error.strerror:
            raise unreadable(error, file) from error
        raise MalformedError(f"{file} is malformed", cause=f"no HDF5 file: {error}") from None
    return Header(CONTAINER, file, whole, tensors)


def _read(h5py: Any, window: Window, file: str, start: int) -> Iterator[StoredTensor]:
    try:
        opened = h5py.File(window, "r")
    except (OSError, RuntimeError, ValueError) as error:
        _refuse(file, f"no HDF5 file: {error}")
    with opened as root:
        try:
            _refuse_other_files(root, file)
            datasets = list(_walk(h5py, root, file))
            tensors = [_tensor(h5py, name, dataset, window.size, file, start) for name, dataset in datasets]
        except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
            # What the library raises for structures that it cannot follow.
            _refuse(file, str(error))
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.file == file and tensor.nbytes and tensor.offset < end:
            _refuse(file, f"expected data of its own, found it to overlap {before!r}", tensor.name)
        if tensor.file == file:
            end, before = max(end, tensor.offset + tensor.nbytes), tensor.name
    yield from tensors


def _refuse_other_files(root: Any, file: str) -> None:
    """What Keras stores under the same suffix, and is no file of weights by their layers' paths."""
    if "model_config" in root.attrs or "layer_names" in root.attrs or "model_weights" in root:
        raise UnsupportedError(
            f"{file} is Keras' older HDF5 format, which model.save() writes",
            cause="it names weights by what layers were called, in an order that its attributes say",
            hint='load it in Keras and save its weights: model.save_weights("model.weights.h5")',
        )
    if list(root) == ["lora"]:
        raise UnsupportedError(
            f"{file} is an adapter (Keras' LoRA), not a whole model",
            cause="it holds changes to the weights of another checkpoint, by the numbers of its layers",
            hint=KERAS_LORA.hint,
        )


def _walk(h5py: Any, root: Any, file: str) -> Iterator[tuple[str, Any]]:
    """Every dataset with its path, depth first in order of name; only hard links, each object once."""
    seen = {h5py.h5o.get_info(root.id).addr}
    pending: list[tuple[str, Any, int]] = [("", root, 0)]
    while pending:
        path, group, depth = pending.pop()
        if depth > MAX_DEPTH:
            _refuse(file, f"expected groups at most {MAX_DEPTH} deep", path)
        inner: list[tuple[str, Any, int]] = []
        for key in group:
            name = f"{path}/{key}" if path else key
            if CONTROL.search(key):
                _refuse(file, "expected a name without control characters", name)
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                _refuse(file, f"expected a hard link, found {_a(type(link).__name__)}", name)
            item = _open(group, key, name, file)
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                _refuse(file, "expected each object under one name, found it under two", name)
            seen.add(address)
            if len(seen) > MAX_OBJECTS:
                _refuse(file, f"expected at most {MAX_OBJECTS} objects")
            if isinstance(item, h5py.Dataset):
                yield name, item
            elif isinstance(item, h5py.Group):
                inner.append((name, item, depth + 1))
            else:
                _refuse(file, "expected groups and datasets only, found a named datatype", name)
        pending.extend(reversed(inner))


def _open(group: Any, key: str, name: str, file: str) -> Any:
    try:
        return group[key]
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        return _refuse(file, str(error.args[0]), name)


def _tensor(h5py: Any, name: str, dataset: Any, size: int, file: str, start: int) -> StoredTensor:
    layout = dataset.id.get_create_plist()
    if layout.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED, h5py.h5d.COMPACT):
        _refuse(file, "expected contiguous or chunked data, found them virtual", name)
    if layout.get_external_count():
        _refuse(file, "expected data in this file, found external storage", name)
    if dataset.shape is None:
        _refuse(file, "expected an array, found an empty dataspace", name)
    shape = tuple(int(dim) for dim in dataset.shape)
    bound = 1
    for dim in shape:
        bound *= max(dim, 1)
    if bound > _MAX_ELEMENTS:
        _refuse(file, f"expected less than 2^63 elements, found the shape {list(shape)!r:.80}", name)
    dtype = _dtype(h5py, name, dataset, file)
    tensor = StoredTensor(name, dtype, shape, file, 0)
    if layout.get_layout() != h5py.h5d.CONTIGUOUS:
        check_array(h5py, name, dataset, file)
        return tensor._replace(file=array_name(file, name))
    stored, offset = dataset.id.get_storage_size(), dataset.id.get_offset()
    if stored != tensor.nbytes:
        _refuse(file, f"expected {tensor.nbytes} stored bytes for {list(shape)!r:.80}, found {stored}", name)
    if offset is None:
        _refuse(file, "expected stored data, found none", name)
    if offset + stored > size:
        _refuse(file, f"expected data within {size} bytes, found them to end at {offset + stored}", name)
    return StoredTensor(name, dtype, shape, file, start + offset)


def _dtype(h5py: Any, name: str, dataset: Any, file: str) -> Dtype:
    kind = dataset.id.get_type()
    if kind.get_class() == h5py.h5t.OPAQUE and kind.get_size() == DTYPES["BF16"].itemsize:
        word = dataset.attrs.get(BF16_ATTRIBUTE)
        if isinstance(word, bytes):
            word = word.decode("ascii", "replace")
        if word == BF16_WORD:
            return DTYPES["BF16"]
        _refuse(
            file, f"expected two opaque bytes to be marked {BF16_ATTRIBUTE}={BF16_WORD}, found {word!r}", name
        )
    for known, word in ((h5py.h5t.IEEE_F32LE, "F32"), (h5py.h5t.IEEE_F16LE, "F16")):
        if kind.equal(known):
            return DTYPES[word]
    plain = dataset.dtype
    if plain.kind in "iu":
        word = _STATE_INTEGERS.get((plain.kind, plain.itemsize))
        if is_state(name) and word is not None and plain.isnative:
            return DTYPES[word]
        raise UnsupportedError(
            f"{file}: {name!r} is quantised: it holds whole numbers of type {plain}",
            cause="porter does not undo Keras' quantisation",
            hint="port the weights that were quantised, or save the model from Keras in a float dtype",
        )
    return _refuse(file, f"expected float16, float32, or bfloat16 as Keras marks it, found {plain}", name)


def _a(word: str) -> str:
    return f"an {word}" if word[:1] in "AEIOU" else f"a {word}"


def _refuse(file: str, cause: str, dataset: str | None = None) -> NoReturn:
    where = f"{file}: dataset {dataset!r}" if dataset else file
    raise MalformedError(f"{where} is malformed", cause=cause)
