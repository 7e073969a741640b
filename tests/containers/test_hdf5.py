"""HDF5 headers: what h5py says of a sound file, and a refusal by name for what is not plain bytes in it."""

from __future__ import annotations

import importlib
import os
import struct
from pathlib import Path

import pytest

from porter.containers.array_files import exported
from porter.containers.keras import hdf5, keras_files
from porter.errors import MalformedError, PorterError, UnsupportedError

h5py = importlib.import_module("h5py")
np = importlib.import_module("numpy")

PLAIN = np.arange(6, dtype="<f4").reshape(2, 3)


def write(path: Path, fill) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def read(path: Path):
    return hdf5.read_header(path, "sub/model.weights.h5")


def bf16(group, name: str, shape: tuple[int, ...], mark: str | None = "bfloat16") -> None:
    """As Keras stores it: two opaque bytes an element, and an attribute that says what they are."""
    dataset = group.create_dataset(name, data=np.zeros(shape, "V2"))
    if mark is not None:
        dataset.attrs["dtype"] = mark


def sound(file) -> None:
    file["layers/b/vars/0"] = PLAIN
    file["layers/a/vars/0"] = np.arange(5, dtype="<f2")
    bf16(file, "layers/c/vars/0", (3, 1))
    file["layers/d/vars/0"] = np.float32(7)
    file.create_group("layers/empty/vars").attrs["name"] = "nothing"
    file["optimizer/vars/0"] = np.int64(3)
    file["layers/drop/seed_generator/vars/0"] = np.arange(2, dtype="<u4")


def test_every_dataset_is_a_range_of_bytes(tmp_path):
    path = write(tmp_path / "m.h5", sound)
    header = read(path)
    assert (header.container, header.file, header.size) == (
        "hdf5",
        "sub/model.weights.h5",
        path.stat().st_size,
    )
    found = {tensor.name: (tensor.dtype.name, tensor.shape) for tensor in header.tensors}
    assert found == {
        "layers/a/vars/0": ("F16", (5,)),
        "layers/b/vars/0": ("F32", (2, 3)),
        "layers/c/vars/0": ("BF16", (3, 1)),
        "layers/d/vars/0": ("F32", ()),
        "layers/drop/seed_generator/vars/0": ("U32", (2,)),
        "optimizer/vars/0": ("I64", ()),
    }
    raw = path.read_bytes()
    kernel = next(tensor for tensor in header.tensors if tensor.name == "layers/b/vars/0")
    assert raw[kernel.offset : kernel.offset + kernel.nbytes] == PLAIN.tobytes()
    assert [hdf5.is_state(name) for name in found] == [False, False, False, False, True, True]


def test_a_file_inside_another_is_read_where_it_lies(tmp_path):
    inner = write(tmp_path / "m.h5", sound)
    outer = tmp_path / "outer"
    outer.write_bytes(b"before!" + inner.read_bytes() + b"after")
    header = hdf5.read_header(outer, "outer", 7, inner.stat().st_size)
    alone = hdf5.read_header(inner, "outer")
    assert [(t.name, t.offset - 7) for t in header.tensors] == [(t.name, t.offset) for t in alone.tensors]
    assert header.size == outer.stat().st_size


# --- what is written out before it is read -----------------------------------------------------------

BIG = np.arange(35, dtype="<f4").reshape(7, 5)


def compact(group, name, data) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(data.shape)
    h5py.Dataset(h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(data.dtype), space, dcpl=plist))[
        ...
    ] = data


STORED = {
    "chunks": {"chunks": (2, 3)},
    "gzip": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf", "chunks": (7, 1)},
    "checksums": {"fletcher32": True},
    "everything": {"chunks": (3, 2), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "growing": {"maxshape": (None, None)},
    "compact": None,
}


@pytest.mark.parametrize("options", STORED.values(), ids=STORED)
@pytest.mark.parametrize("dtype", ["<f4", "<f2", "V2"])
def test_chunked_and_compressed_datasets_are_written_out(tmp_path, monkeypatch, options, dtype):
    monkeypatch.setattr("porter.containers.array_names.PIECE", 24)
    data = (BIG.astype("<f2") if dtype != "<f4" else BIG).view(dtype)

    def fill(file):
        file["plain/vars/0"] = PLAIN
        group = file.create_group("layers/x/vars")
        compact(group, "0", data) if options is None else group.create_dataset("0", data=data, **options)
        if dtype == "V2":
            group["0"].attrs["dtype"] = "bfloat16"

    path = write(tmp_path / "model.weights.h5", fill)
    plain, array = keras_files.read_file(tmp_path, "model.weights.h5")
    assert [tensor.name for tensor in plain.tensors] == ["plain/vars/0"]
    (tensor,) = array.tensors
    assert (tensor.name, tensor.shape, array.size) == ("layers/x/vars/0", (7, 5), data.nbytes)
    with exported(tmp_path, [*plain.tensors, tensor], tmp_path / "beside") as paths:
        assert paths.keys() == {tensor.file}
        with h5py.File(path) as opened:
            assert (
                paths[tensor.file].read_bytes() == opened["layers/x/vars/0"][...].tobytes() == data.tobytes()
            )
        assert paths[tensor.file].stat().st_mtime_ns == path.stat().st_mtime_ns
    assert not (tmp_path / "beside").exists()


def test_a_broken_checksum_is_malformed(tmp_path):
    path = write(tmp_path / "m.h5", lambda file: file.create_dataset("x", data=BIG, fletcher32=True))
    _, array = keras_files.read_file(tmp_path, "m.h5")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(BIG.tobytes()[40:80], bytes(40)))
    with (
        pytest.raises(MalformedError, match="x cannot be read"),
        exported(tmp_path, array.tensors, tmp_path / "beside"),
    ):
        pass


def test_a_filter_that_is_a_library_of_somebodys_is_unsupported(tmp_path):
    def fill(file):
        file.create_dataset("x", data=BIG.astype("<f4"), chunks=(7, 5), scaleoffset=3)

    with pytest.raises(UnsupportedError, match="a filter that is not undone") as caught:
        read(write(tmp_path / "m.h5", fill))
    assert caught.value.exit_code == 5


def test_other_files_of_keras_are_named(tmp_path):
    def whole_model(file):
        file.attrs["model_config"] = "{}"
        file["model_weights/dense/kernel:0"] = PLAIN

    def lora(file):
        file["lora/rank"] = 4
        file["lora/0/lora_kernel_a"] = PLAIN

    for fill, words, way in (
        (whole_model, "older HDF5 format", "save_weights"),
        (lora, "an adapter", "load_lora_weights"),
    ):
        with pytest.raises(UnsupportedError, match=words) as caught:
            read(write(tmp_path / "m.h5", fill))
        assert way in caught.value.hint


# --- what is refused ---------------------------------------------------------------------------------


def never_written(file) -> None:
    file.create_dataset("x", (2, 3), "<f4", chunks=(1, 3), fillvalue=5)


def partly_written(file) -> None:
    file.create_dataset("x", (2, 3), "<f4", chunks=(1, 3))[0] = 1


def external(file) -> None:
    file.create_dataset("x", (2, 3), "<f4", external=[("/etc/passwd", 0, 24)])


def virtual(file) -> None:
    layout = h5py.VirtualLayout((2, 3), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "y", (2, 3))
    file.create_virtual_dataset("x", layout)


def unwritten(file) -> None:
    file.create_dataset("x", (2, 3), "<f4")


def soft_link(file) -> None:
    file["y"] = PLAIN
    file["x"] = h5py.SoftLink("/y")


def external_link(file) -> None:
    file["x"] = h5py.ExternalLink("/etc/passwd", "/y")


def linked_twice(file) -> None:
    file["y"] = PLAIN
    file["x"] = file["y"]


def circle(file) -> None:
    file["a/b/x"] = PLAIN
    file["a/b/c"] = file["a"]


def to_the_root(file) -> None:
    file["a/root"] = file["/"]


def named_type(file) -> None:
    file["x"] = np.dtype("<f4")


def empty(file) -> None:
    file["x"] = h5py.Empty("<f4")


def control(file) -> None:
    file["x\x1b[2J"] = PLAIN


def deep(file) -> None:
    file["/".join("a" * (hdf5.MAX_DEPTH + 2))] = PLAIN


REFUSED = {
    never_written: "the one at [0, 0] was never written",
    partly_written: "the one at [1, 0] was never written",
    virtual: "contiguous or chunked data, found them virtual",
    external: "external storage",
    unwritten: "expected 24 stored bytes",
    soft_link: "expected a hard link, found a SoftLink",
    external_link: "expected a hard link, found an ExternalLink",
    linked_twice: "under one name, found it under two",
    circle: "under one name, found it under two",
    to_the_root: "under one name, found it under two",
    named_type: "named datatype",
    empty: "empty dataspace",
    control: "without control characters",
    deep: "at most 32 deep",
}


@pytest.mark.parametrize("fill", REFUSED, ids=lambda fill: fill.__name__)
def test_what_is_not_plain_bytes_of_this_file_is_refused(tmp_path, fill):
    with pytest.raises(MalformedError) as caught:
        read(write(tmp_path / "m.h5", fill))
    assert REFUSED[fill] in str(caught.value)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "value",
    [
        PLAIN.astype("<f8"),
        PLAIN.astype(">f4"),
        PLAIN.astype(">f2"),
        PLAIN.astype("<c8"),
        PLAIN.astype(bool),
        np.array([b"abcd", b"ef"]),
        np.zeros(2, [("a", "<f4")]),
        np.zeros(2, "V4"),
    ],
    ids=lambda value: str(value.dtype),
)
def test_other_types_are_refused(tmp_path, value):
    with pytest.raises(MalformedError, match="expected float16, float32, or bfloat16 as Keras marks it"):
        read(write(tmp_path / "m.h5", lambda file: file.create_dataset("layers/x/vars/0", data=value)))


@pytest.mark.parametrize("mark", [None, "float16", ""])
def test_two_opaque_bytes_are_bfloat16_only_where_keras_says_so(tmp_path, mark):
    with pytest.raises(MalformedError, match="two opaque bytes to be marked dtype=bfloat16"):
        read(write(tmp_path / "m.h5", lambda file: bf16(file, "x", (3,), mark)))


@pytest.mark.parametrize("word", ["int8", "uint8", "int32"])
def test_quantised_weights_are_not_read(tmp_path, word):
    def quantised(file) -> None:
        file["layers/x/vars/0"] = PLAIN.astype(word)
        file["layers/x/vars/1"] = PLAIN[0]

    with pytest.raises(UnsupportedError, match=f"quantised: it holds whole numbers of type {word}"):
        read(write(tmp_path / "m.h5", quantised))


def test_every_way_of_cutting_a_file_short_is_refused(tmp_path):
    path = write(tmp_path / "m.h5", sound)
    whole = path.read_bytes()
    for length in {0, 1, 8, 96, 500, 2048, *range(0, len(whole), 997), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(MalformedError):
            read(path)


def _moved(path: Path, name: str, to: int) -> None:
    """Rewrite where a dataset says that its bytes lie."""
    with h5py.File(path) as file:
        offset, size = file[name].id.get_offset(), file[name].id.get_storage_size()
    old, new = struct.pack("<QQ", offset, size), struct.pack("<QQ", to, size)
    raw = path.read_bytes()
    assert raw.count(old) == 1
    path.write_bytes(raw.replace(old, new))


def test_data_beyond_the_file_are_refused(tmp_path):
    path = write(tmp_path / "m.h5", sound)
    _moved(path, "layers/b/vars/0", path.stat().st_size - 23)
    with pytest.raises(MalformedError, match="layers/b/vars/0"):
        read(path)


def test_data_of_two_datasets_must_not_overlap(tmp_path):
    path = write(tmp_path / "m.h5", sound)
    other = next(tensor for tensor in read(path).tensors if tensor.name == "layers/a/vars/0")
    _moved(path, "layers/b/vars/0", other.offset - 20)
    with pytest.raises(MalformedError, match="overlap"):
        read(path)


def test_flipped_bytes_give_a_header_or_a_reason(tmp_path):
    path = write(tmp_path / "m.h5", sound)
    whole = path.read_bytes()
    generator = np.random.default_rng(7)
    for place in generator.integers(len(whole), size=300):
        broken = bytearray(whole)
        broken[place] ^= int(generator.integers(1, 256))
        path.write_bytes(broken)
        try:
            tensors = read(path).tensors
        except PorterError:
            continue
        assert all(tensor.offset + tensor.nbytes <= len(whole) for tensor in tensors)


def test_what_is_no_hdf5_file_is_refused(tmp_path):
    path = tmp_path / "m.h5"
    path.write_bytes(b"PK\x03\x04" * 999)
    with pytest.raises(MalformedError, match="no HDF5 file"):
        read(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MalformedError, match="regular file"):
        read(tmp_path / "pipe")
    with pytest.raises(PorterError, match="is missing"):
        read(tmp_path / "missing")


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    def missing(name: str):
        raise ImportError(name)

    path = write(tmp_path / "m.h5", sound)
    monkeypatch.setattr(hdf5, "import_module", missing)
    with pytest.raises(UnsupportedError) as caught:
        read(path)
    assert "pip install 'h5py>=3.10' (the extra keras)" in str(caught.value)
