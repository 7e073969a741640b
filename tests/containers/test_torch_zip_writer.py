"""What is placed and surrounded with literals is what torch.load reads, with and without mmap."""

import io
import subprocess
import sys
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from porter.containers.base import OutputFile
from porter.containers.torch.torch_state import unwrapped
from porter.containers.torch.torch_zip import read_header
from porter.containers.torch.torch_zip_writer import literals, place
from porter.dtypes import DTYPES
from porter.errors import UnsupportedError

TORCH_DTYPES = [dtype for dtype in DTYPES.values() if dtype.torch]
F32 = DTYPES["F32"]


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().clone().reshape(-1).view(torch.uint8).numpy().tobytes()


def content(file: OutputFile, seed: int = 0) -> dict[int, bytes]:
    """Other bytes for each storage, all of them valid in any dtype (a bool must be 0 or 1)."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {tensor.offset: tensor.nbytes for tensor in file.tensors}
    return {
        offset: torch.randint(0, 2, (size,), generator=generator, dtype=torch.uint8).numpy().tobytes()
        for offset, size in sizes.items()
    }


def write(path: Path, file: OutputFile, data: dict[int, bytes], crcs=None) -> None:
    """Puts literals and data in their places; that they cover each byte once is checked."""
    pieces = sorted([*literals(file, crcs), *((offset, piece) for offset, piece in data.items() if piece)])
    end = 0
    with path.open("wb") as stream:
        for offset, piece in pieces:
            assert offset == end
            stream.write(piece)
            end += len(piece)
    assert end == file.size


ALL = [(f"{dtype.name}{list(shape)}", dtype, shape) for dtype in TORCH_DTYPES
       for shape in [(2, 3, 5), (7,), (), (0, 4), (4, 0)]]  # fmt: skip


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("weights_only", [True, False])
def test_torch_loads_every_dtype_and_rank(tmp_path, mmap, weights_only):
    path = tmp_path / "m.pth"
    file = place("m.pth", ALL)
    data = content(file)
    write(path, file, data)
    state = torch.load(path, weights_only=weights_only, mmap=mmap)
    assert list(state) == [name for name, _, _ in ALL]
    for tensor in file.tensors:
        loaded = state[tensor.name]
        assert (str(loaded.dtype), tuple(loaded.shape)) == (f"torch.{tensor.dtype.torch}", tensor.shape)
        assert as_bytes(loaded) == data[tensor.offset]
        assert loaded.is_contiguous() and not loaded.requires_grad


def test_values_arrive_as_values(tmp_path):
    """Against torch's own idea of what the bytes mean, not only the bytes."""
    weight = torch.randn(3, 4, dtype=torch.bfloat16)
    file = place("m.pth", [("w", DTYPES["BF16"], (3, 4))])
    write(tmp_path / "m.pth", file, {file.tensors[0].offset: as_bytes(weight)})
    assert torch.equal(torch.load(tmp_path / "m.pth", mmap=True, weights_only=True)["w"], weight)


def test_data_are_aligned_as_torch_aligns_them():
    assert all(tensor.offset % 64 == 0 for tensor in place("m.pth", ALL).tensors)
    assert all(tensor.offset % 4096 == 0 for tensor in place("m.pth", ALL, alignment=4096).tensors)
    with pytest.raises(ValueError, match="align"):
        place("m.pth", ALL, alignment=48)


@pytest.mark.parametrize("mmap", [False, True])
def test_tied_tensors_share_their_storage(tmp_path, mmap):
    specs = [("head", F32, (5, 3)), ("norm", F32, (3,)), ("embed", F32, (5, 3))]
    file = place("m.pth", specs, {"head": "embed"})
    assert file.tensors[0].offset == file.tensors[2].offset
    data = content(file)
    assert len(data) == 2
    write(tmp_path / "m.pth", file, data)
    state = torch.load(tmp_path / "m.pth", mmap=mmap, weights_only=True)
    assert list(state) == ["head", "norm", "embed"]
    assert state["head"].data_ptr() == state["embed"].data_ptr() != state["norm"].data_ptr()
    assert torch.equal(state["head"], state["embed"])
    untied = place("m.pth", specs)
    assert untied.size >= file.size + 60, "the control: without the tie the bytes are there twice"


def test_ties_that_cannot_be_are_unsupported():
    specs = [("a", F32, (2,)), ("b", F32, (2,)), ("c", F32, (1, 2)), ("d", DTYPES["I32"], (2,))]
    for ties in [{"a": "c"}, {"a": "d"}, {"a": "x"}, {"x": "a"}, {"a": "b", "b": "a"}, {"a": "a"}]:
        with pytest.raises(UnsupportedError, match="tie"):
            place("m.pth", specs, ties)


def test_what_torch_cannot_hold_is_unsupported():
    for specs in [[("a", F32, (2,))] * 2, [("a", DTYPES["Q4_K"], (256,))], [("a", DTYPES["F4"], (2,))]]:
        with pytest.raises(UnsupportedError):
            place("m.pth", specs)


def test_a_file_without_tensors(tmp_path):
    file = place("m.pth", [])
    write(tmp_path / "m.pth", file, {})
    assert torch.load(tmp_path / "m.pth", weights_only=True) == {}
    assert read_header(tmp_path / "m.pth", "m.pth").tensors == ()


def test_the_archive_is_a_zip_to_others(tmp_path):
    path = tmp_path / "m.pth"
    file = place("m.pth", [("a", F32, (2,)), ("b", F32, (3,))])
    data = content(file)
    crcs = {tensor.name: zlib.crc32(data[tensor.offset]) for tensor in file.tensors}
    write(path, file, data, crcs)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert [entry.filename for entry in archive.infolist()] == [
            *("archive/data.pkl", "archive/byteorder", "archive/data/0", "archive/data/1", "archive/version")
        ]
        assert archive.read("archive/byteorder") == b"little"
        assert archive.read("archive/data/1") == data[file.tensors[1].offset]
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", path], capture_output=True, text=True)
    assert "archive/data/1" in listed.stdout
    write(path, file, data)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == "archive/data/0", "the control: unknown checksums are 0"
    assert torch.load(path, weights_only=True)["b"].shape == (3,)


def test_the_same_tensors_give_the_same_bytes():
    assert literals(place("m.pth", ALL)) == literals(place("m.pth", ALL))


def test_headers_fill_the_room_before_data_that_were_moved(tmp_path):
    file = place("m.pth", [("a", F32, (2,)), ("b", F32, (3,))])
    moved = replace(file, tensors=tuple(t._replace(offset=t.offset + 4100) for t in file.tensors))
    moved = replace(moved, size=file.size + 4100)
    data = content(moved)
    write(tmp_path / "m.pth", moved, data)
    state = torch.load(tmp_path / "m.pth", mmap=True, weights_only=True)
    assert as_bytes(state["b"]) == data[moved.tensors[1].offset]
    crowded = replace(file, tensors=tuple(t._replace(offset=t.offset - 60) for t in file.tensors))
    with pytest.raises(ValueError, match="header"):
        literals(crowded)


def test_our_reader_gives_back_what_was_placed(tmp_path):
    file = place("m.pth", ALL)
    write(tmp_path / "m.pth", file, content(file))
    header = read_header(tmp_path / "m.pth", "m.pth")
    assert header.size == file.size
    assert {tensor.name: tensor for tensor in header.tensors} == {t.name: t for t in file.tensors}


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
        st.tuples(st.sampled_from(TORCH_DTYPES), st.lists(st.integers(0, 4), max_size=4).map(tuple)),
        max_size=6,
    ),
    st.sampled_from([4, 64, 512]),
)
def test_any_names_and_shapes_round_trip(tmp_path_factory, chosen, alignment):
    path = tmp_path_factory.mktemp("any") / "m.pth"
    specs = [(name, dtype, shape) for name, (dtype, shape) in chosen.items()]
    file = place("m.pth", specs, alignment=alignment)
    data = content(file)
    write(path, file, data)
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    assert {name: as_bytes(tensor) for name, tensor in state.items()} == {
        tensor.name: data[tensor.offset] for tensor in file.tensors
    }
    found = read_header(path, "m.pth")
    # What a wrapper might have put into a name is taken out again.
    names = unwrapped(t.name for t in file.tensors)
    assert sorted((t.name, t.shape, t.offset) for t in found.tensors) == sorted(
        (names[t.name], t.shape, t.offset) for t in file.tensors
    )


def test_more_than_4_gib(tmp_path):
    """Sizes and offsets that need zip64, in a sparse file: only literals and a few bytes are written."""
    path = tmp_path / "m.pth"
    big = (1 << 32) // 4 + 3
    file = place("m.pth", [("a", F32, (3,)), ("big", F32, (big,)), ("z", DTYPES["U8"], (5,))])
    assert file.size > 1 << 32
    with path.open("wb") as stream:
        stream.truncate(file.size)
        for offset, piece in literals(file):
            stream.seek(offset)
            stream.write(piece)
        stream.seek(file.tensors[2].offset)
        stream.write(b"\1\2\3\4\5")
    state = torch.load(path, mmap=True, weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "a": (3,),
        "big": (big,),
        "z": (5,),
    }
    assert state["z"].tolist() == [1, 2, 3, 4, 5]
    header = read_header(path, "m.pth")
    assert header.tensors == file.tensors
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("archive/data/1").file_size == big * 4
        assert archive.getinfo("archive/version").header_offset > 1 << 32


def test_more_than_65535_entries(tmp_path):
    path = tmp_path / "m.pth"
    file = place("m.pth", [(f"t{index}", DTYPES["U8"], (1,)) for index in range(65_540)], alignment=4)
    write(path, file, {tensor.offset: b"\1" for tensor in file.tensors})
    assert read_header(path, "m.pth").tensors == file.tensors
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 65_543
