"""HDF5 files placed by porter: h5py finds in them what was placed, and their bytes are the same each time."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porter.containers.base import OutputFile
from porter.containers.keras import hdf5
from porter.containers.keras.hdf5_writer import literals, place
from porter.dtypes import DTYPES
from porter.errors import UnsupportedError

h5py = importlib.import_module("h5py")

F32, F16, BF16 = DTYPES["F32"], DTYPES["F16"], DTYPES["BF16"]
SPECS = [
    ("layers/embedding/vars/0", BF16, (31, 7)),
    ("layers/block/attention/query_dense/vars/0", F32, (2, 7, 5)),
    ("layers/block_1/norm/vars/0", F16, (7,)),
    ("scalar", F32, ()),
]


def write(path: Path, file: OutputFile) -> Path:
    """The literals, and for each tensor bytes that count up from its number."""
    with path.open("wb") as stream:
        stream.truncate(file.size)
        for offset, data in literals(file):
            stream.seek(offset)
            stream.write(data)
        for number, tensor in enumerate(file.tensors):
            stream.seek(tensor.offset)
            stream.write(bytes((number + at) % 256 for at in range(tensor.nbytes)))
    return path


def test_h5py_finds_what_was_placed(tmp_path):
    path = write(tmp_path / "m.h5", place("m.h5", SPECS, {}))
    with h5py.File(path) as file:
        for number, (name, dtype, shape) in enumerate(SPECS):
            dataset = file[name]
            assert dataset.shape == shape
            expected = bytes((number + at) % 256 for at in range(dataset.nbytes))
            assert dataset[()].tobytes() == expected
            assert dataset.attrs.get("dtype") == ("bfloat16" if dtype is BF16 else None)


names = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda parts: "/".join([*parts, "v"])),
    unique=True,
    max_size=12,
)


@given(names, st.data())
def test_literals_and_tensors_cover_every_byte_once(found, data):
    shapes = st.lists(st.integers(1, 9), max_size=3).map(tuple)
    specs = [(name, data.draw(st.sampled_from([F32, F16, BF16])), data.draw(shapes)) for name in found]
    file = place("m.h5", specs, {})
    pieces = [(offset, len(text)) for offset, text in literals(file)]
    pieces += [(tensor.offset, tensor.nbytes) for tensor in file.tensors]
    end = 0
    for offset, length in sorted(pieces):
        assert offset == end
        end += length
    assert end == file.size
    assert [(t.name, t.dtype, t.shape) for t in file.tensors] == specs


def test_porter_reads_what_it_placed(tmp_path):
    placed = place("m.h5", SPECS, {})
    header = hdf5.read_header(write(tmp_path / "m.h5", placed), "m.h5")
    assert sorted(header.tensors, key=lambda t: t.name) == sorted(placed.tensors, key=lambda t: t.name)


def test_a_huge_tensor_takes_no_memory():
    file = place("m.h5", [("a/huge", BF16, (2**20, 2**20)), ("b", F32, (3,))], {})
    assert file.size > 2**41
    assert sum(len(text) for _, text in literals(file)) < 20_000


def test_another_process_at_another_time_makes_the_same_bytes(tmp_path):
    code = (
        "import hashlib; from porter.containers.keras.hdf5_writer import literals, place;"
        "from porter.dtypes import DTYPES as d;"
        "f = place('m.h5', [('a/x', d['BF16'], (3, 5)), ('b/y', d['F32'], (2,))], {});"
        "print(hashlib.sha256(repr((f, literals(f))).encode()).hexdigest())"
    )
    one, two = (subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    "specs",
    [
        [("a", F32, (3,)), ("a", F32, (3,))],
        [("a", F32, (3,)), ("a/b", F32, (3,))],
        [("a/b", F32, (3,)), ("a", F32, (3,))],
        [("a", DTYPES["I8"], (3,))],
        [("a", DTYPES["F64"], (3,))],
        [("a", F32, (0, 3))],
        [("a//", F32, (3,))],
    ],
)
def test_what_keras_could_not_hold_is_refused(specs):
    with pytest.raises(UnsupportedError):
        place("m.h5", specs, {})
