"""What every container that is written keeps to (porter/containers/contract.py), held against its peer.

The parts are put together by this file: frame and tensors, each byte once, in files that the framework's
own library then reads.
"""

from __future__ import annotations

import importlib
import json
import zlib

import numpy as np
import pytest

from porter.containers.contract import Container, Placement
from porter.containers.registry import (
    container_named,
    containers,
    recognised,
    register,
    writable_container,
)
from porter.dtypes import DTYPES
from porter.errors import UnsupportedError, UsageError
from porter.sources.in_memory import MemoryFile
from porter.sources.weight_files import container_by_suffix

WRITTEN = [container for container in containers() if container.place is not None]
NAMES = [container.name for container in WRITTEN]

ARRAYS = {
    "embed/w": np.arange(21, dtype=np.float32).reshape(3, 7),
    "layer_0/q/w": np.arange(2 * 5 * 4, dtype=np.float16).reshape(2, 5, 4),
    "layer_0/norm/scale": np.linspace(-1, 1, 11, dtype=np.float32),
}
DTYPE = {"float32": DTYPES["F32"], "float16": DTYPES["F16"]}
SPECS = [(name, DTYPE[str(array.dtype)], array.shape) for name, array in ARRAYS.items()]

FILE = {
    "safetensors": "model.safetensors",
    "torch": "model.pth",
    "hdf5": "model.weights.h5",
    "orbax": "checkpoint",
}


def read_safetensors(root):
    return importlib.import_module("safetensors.numpy").load_file(root / FILE["safetensors"])


def read_torch(root):
    state = importlib.import_module("torch").load(root / FILE["torch"], weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


def read_hdf5(root):
    with importlib.import_module("h5py").File(root / FILE["hdf5"]) as file:
        return {name: file[name][()] for name in ARRAYS}


def read_orbax(root):
    tensorstore = importlib.import_module("tensorstore")
    found = {}
    for name in ARRAYS:
        group, _, leaf = name.rpartition("/")
        store = {"driver": "file", "path": str(root / f"{group}.{leaf}")}
        found[name] = tensorstore.open({"driver": "zarr", "kvstore": store}).result().read().result()
    return found


PEER = {"safetensors": read_safetensors, "torch": read_torch, "hdf5": read_hdf5, "orbax": read_orbax}


def crcs():
    return {name: zlib.crc32(array.tobytes()) for name, array in ARRAYS.items()}


def assemble(root, container, specs=SPECS, arrays=ARRAYS, wish=None):
    """Writes what the container placed; every byte of every file has to come from exactly one part."""
    files, small = container.place(specs, wish or Placement(FILE[container.name]))
    for file in files:
        content, times = bytearray(file.size), np.zeros(file.size, int)
        parts = [(tensor.offset, arrays[tensor.name].tobytes()) for tensor in file.tensors]
        assert [len(data) for _, data in parts] == [tensor.nbytes for tensor in file.tensors]
        for at, data in [*container.frame(file, crcs()), *parts]:
            assert at + len(data) <= file.size
            content[at : at + len(data)] = data
            times[at : at + len(data)] += 1
        assert (times == 1).all(), f"{container.name}: {file.name} is not tiled"
        path = root / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, content in small.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return files


def test_every_written_container_has_its_peer():
    assert set(NAMES) == set(PEER) == {"safetensors", "torch", "hdf5", "orbax"}
    assert all(container.frame is not None for container in WRITTEN)
    assert container_named("gguf").place is None and container_named("gguf").frame is None


@pytest.mark.parametrize("container", WRITTEN, ids=NAMES)
def test_the_peer_reads_what_was_placed(container, tmp_path):
    assemble(tmp_path, container)
    found = PEER[container.name](tmp_path)
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


@pytest.mark.parametrize("container", WRITTEN, ids=NAMES)
def test_porter_reads_the_same_places(container, tmp_path):
    files = assemble(tmp_path, container)
    headers = container.read(tmp_path, [file.name for file in files], None)
    found = {t.name: (t.dtype, t.shape) for header in headers for t in header.tensors}
    assert found == {name: (dtype, shape) for name, dtype, shape in SPECS}
    for header in headers:
        for tensor in header.tensors:
            data = (tmp_path / tensor.file).read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
            assert data == ARRAYS[tensor.name].tobytes()


@pytest.mark.parametrize("container", WRITTEN, ids=NAMES)
def test_content_tells_the_container(container, tmp_path):
    for file in assemble(tmp_path, container):
        start = (tmp_path / file.name).read_bytes()[:512]
        # An Orbax chunk is plain numbers.
        assert recognised(start) is (None if container.file_per_tensor else container)


@pytest.mark.parametrize("container", WRITTEN, ids=NAMES)
def test_placing_is_pure_and_sums_change_no_length(container):
    wish = Placement(FILE[container.name])
    files, small = container.place(SPECS, wish)
    assert (files, small) == container.place(SPECS, wish)
    for file in files:
        without, summed = container.frame(file, None), container.frame(file, crcs())
        assert [(at, len(data)) for at, data in without] == [(at, len(data)) for at, data in summed]
        assert (without != summed) == container.sums


@pytest.mark.parametrize("container", WRITTEN, ids=NAMES)
def test_a_gap_is_seen(container, tmp_path):
    """Negative control: with a part of the frame, or of the tensors, left out the files do not tile."""
    part = container.frame
    if container.file_per_tensor:
        broken = Container(
            container.name, container.recognise, container.read, place=container.place, frame=_one_byte
        )
    else:
        broken = Container(
            container.name,
            container.recognise,
            container.read,
            place=container.place,
            frame=lambda file, sums: [(at, data[:-1]) for at, data in part(file, sums)],
        )
    with pytest.raises(AssertionError, match="not tiled"):
        assemble(tmp_path, broken)


def _one_byte(file, sums):
    return [(0, b"\0")]


@pytest.mark.parametrize("container", WRITTEN, ids=NAMES)
def test_wishes_that_are_not_heeded_are_refused(container):
    wishes = {
        "ties": Placement(FILE[container.name], ties={"a": "b"}),
        "wrap": Placement(FILE[container.name], wrap="model"),
        "max_shard_size": Placement(FILE[container.name], max_shard_size=100),
    }
    heeded = {"safetensors": {"max_shard_size"}, "torch": {"ties", "wrap"}}.get(container.name, set())
    for wish in set(wishes) - heeded:
        with pytest.raises(UnsupportedError, match=wish):
            container.place(SPECS, wishes[wish])


def test_shards_and_their_index(tmp_path):
    container = container_named("safetensors")
    files, small = container.place(SPECS, Placement("model.safetensors", max_shard_size=90))
    assert [file.name for file in files] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    index = json.loads(small["model.safetensors.index.json"])
    assert index["weight_map"] == {t.name: file.name for file in files for t in file.tensors}


class Counting(MemoryFile):
    """Remembers the ranges that were asked for."""

    def __init__(self, name, content):
        super().__init__(name, content)
        self.asked = []

    def read(self, views, offset):
        self.asked.append((offset, sum(map(len, views))))
        super().read(views, offset)


@pytest.mark.parametrize("container", [c for c in containers() if c.headers], ids=lambda c: c.name)
def test_headers_come_by_ranges_without_the_weights(container, tmp_path):
    (file,) = assemble(tmp_path, container)
    data = (tmp_path / file.name).read_bytes()
    afar = Counting(file.name, data)
    (near,) = container.read(tmp_path, [file.name], None)
    assert container.headers(afar) == near
    assert len(afar.asked) == 1
    long = {f"{name}/{n}": array for n in range(300) for name, array in ARRAYS.items()}
    specs = [(name, DTYPE[str(array.dtype)], array.shape) for name, array in long.items()]
    (file,) = assemble(tmp_path, container, specs, long)
    afar = Counting(file.name, (tmp_path / file.name).read_bytes())
    assert len(container.headers(afar).tensors) == 900
    assert len(afar.asked) == 2
    assert sum(length for _, length in afar.asked) == min(tensor.offset for tensor in file.tensors)


def test_register_adds_one_and_refuses_what_is_taken():
    own = Container(
        "own", lambda start: start[:4] == b"OWN!", lambda root, files, key: (), suffixes=(".own",)
    )
    before = containers()
    try:
        register(own)
        register(own)
        assert containers() == (own, *before)
        assert recognised(b"OWN!....") is own and container_by_suffix("model.own") == "own"
        with pytest.raises(UsageError, match="already"):
            register(Container("torch", own.recognise, own.read))
        with pytest.raises(UsageError, match=r"\.bin"):
            register(Container("other", own.recognise, own.read, suffixes=(".bin",)))
        with pytest.raises(UnsupportedError, match="cannot write the container own"):
            writable_container("own", "model.own")
        assert containers() == (own, *before)
    finally:
        registry = importlib.import_module("porter.containers.registry")
        weight_files = importlib.import_module("porter.sources.weight_files")
        registry._containers.remove(own)
        del weight_files._SUFFIXES[".own"]
