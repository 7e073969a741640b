"""Torch files are read as extents: the bytes at each are those of the tensor that torch.save was given."""

import argparse
import json
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from litgpt.utils import incremental_save

from porter.containers.checkpoint import open_checkpoint
from porter.containers.torch.torch_zip import read_header
from porter.dtypes import DTYPES
from porter.errors import MalformedError, PorterError, UnsupportedError, UsageError
from porter.sources.local import locate

TORCH_DTYPES = [dtype for dtype in DTYPES.values() if dtype.torch]


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().clone().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def read(path: Path):
    """The header, and each tensor's dtype, shape and bytes at its extent."""
    header = read_header(path, "sub/m.pth")
    assert (header.container, header.file, header.size) == ("torch", "sub/m.pth", path.stat().st_size)
    raw = path.read_bytes()
    found = {
        tensor.name: (tensor.dtype.torch, tensor.shape, raw[tensor.offset : tensor.offset + tensor.nbytes])
        for tensor in header.tensors
    }
    assert [tensor.offset for tensor in header.tensors] == sorted(tensor.offset for tensor in header.tensors)
    return header, found


def expected(state) -> dict:
    return {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), as_bytes(tensor))
        for name, tensor in state.items()
    }


def saved(path: Path, value, **options) -> Path:
    torch.save(value, path, **options)
    return path


def repacked(source: Path, target: Path, change=None, compression=zipfile.ZIP_STORED) -> Path:
    """The same entries packed by another zip writer; `change(name, data)` may give other ones, or None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            data = old.read(entry)
            name, data = change(entry.filename, data) if change else (entry.filename, data)
            if name is not None:
                new.writestr(name, data)
    return target


SMALL = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(5, dtype=torch.bfloat16)}


# --- what torch.save writes ------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype_and_rank_is_found_where_it_lies(tmp_path, protocol):
    state = {
        f"{dtype.name}{shape}": torch.randint(0, 2, shape).to(getattr(torch, dtype.torch))
        for dtype in TORCH_DTYPES
        for shape in [(2, 3, 5), (7,), (), (0, 4), (1, 1)]
    }
    _, found = read(saved(tmp_path / "m.pth", state, pickle_protocol=protocol))
    assert found == expected(state)
    assert len(found) == len(state)


def test_a_modules_state_dict_with_its_metadata_and_ties(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(3, 5))
    model[2].weight = model[0].weight
    header, found = read(saved(tmp_path / "m.pth", model.state_dict()))
    assert found == expected(model.state_dict())
    offsets = {tensor.name: tensor.offset for tensor in header.tensors}
    assert offsets["0.weight"] == offsets["2.weight"] != offsets["2.bias"]
    assert dict(header.metadata) == {}


def test_parameters_and_tensors_with_attributes(tmp_path):
    plain, weight = torch.randn(3), torch.nn.Parameter(torch.randn(2, 3))
    plain.tag = weight.tag = "seen"
    state = {"plain": plain, "weight": weight, "other": torch.nn.Parameter(torch.randn(4))}
    _, found = read(saved(tmp_path / "m.pth", state))
    assert found == expected(state)


def test_contiguous_views_are_extents_inside_their_storage(tmp_path):
    base = torch.arange(60.0).reshape(10, 6)
    words = torch.arange(8, dtype=torch.int32).to(torch.uint16)
    state = {"all": base, "rows": base[3:7], "row": base[9], "flat": base.view(-1)[5:9], "u": words[3:6]}
    state |= {"cell": base[4, 2], "thin": base[2:5, 1:2][1:2], "none": base[3:3, ::2]}
    header, found = read(saved(tmp_path / "m.pth", state))
    assert found == expected(state)
    offsets = {tensor.name: tensor.offset for tensor in header.tensors}
    assert offsets["rows"] - offsets["all"] == 3 * 6 * 4


@pytest.mark.parametrize(
    "view",
    [
        lambda base: base.T,
        lambda base: base[:, :3],
        lambda base: base[::2],
        lambda base: torch.ones(1, 6).expand(10, 6),
        lambda base: torch.ones(1).expand(4),
    ],
    ids=["transposed", "columns", "every other row", "expanded", "expanded scalar"],
)
def test_a_view_lies_by_its_strides(tmp_path, view):
    value = view(torch.randn(10, 6))
    path = saved(tmp_path / "m.pth", {"fine": torch.ones(2), "h.0.odd": value})
    (stored,) = [tensor for tensor in read_header(path, path.name).tensors if tensor.name == "h.0.odd"]
    assert stored.strides == value.stride()
    flat = np.fromfile(path, "<f4", stored.span, offset=stored.offset)
    found = np.lib.stride_tricks.as_strided(flat, stored.shape, [4 * step for step in stored.strides])
    assert np.array_equal(found, value.numpy())


def test_a_conjugated_view_is_refused_by_name(tmp_path):
    value = torch.complex(torch.ones(3), torch.ones(3)).conj()
    with pytest.raises(UnsupportedError, match=r"h\.0\.odd") as error:
        read(saved(tmp_path / "m.pth", {"fine": torch.ones(2), "h.0.odd": value}))
    assert "save it again" in error.value.hint


@pytest.mark.parametrize("value", [torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex128)])
def test_what_is_no_plain_tensor_is_unsupported(tmp_path, value):
    with pytest.raises(UnsupportedError, match="odd"):
        read(saved(tmp_path / "m.pth", {"odd": value}))


@pytest.mark.parametrize(
    "wrapper",
    ["model", "state_dict", "model_state_dict", "module", "model.module", "net", "params", "weights", "ema"],
)
def test_the_state_dict_may_be_wrapped(tmp_path, wrapper):
    value = SMALL
    for key in reversed(wrapper.split(".")):
        value = {"epoch": 3, key: value, "rng": torch.zeros(9)}
    header, found = read(saved(tmp_path / "m.pth", value))
    assert found == expected(SMALL)
    assert header.metadata["torch.wrapped_under"] == wrapper


@pytest.mark.parametrize(
    ("prefix", "kept"),
    [
        ("_orig_mod.", ""),
        ("module.", ""),
        ("module._orig_mod.", ""),
        ("_orig_mod.module.", ""),
        ("_forward_module.module.", ""),
        ("model.", "model."),
        ("module", "module"),
    ],
)
def test_what_wrappers_put_before_all_names_is_taken_off(tmp_path, prefix, kept):
    state = {prefix + name: tensor for name, tensor in SMALL.items()}
    _, found = read(saved(tmp_path / "m.pth", state))
    assert set(found) == {kept + name for name in SMALL}
    if prefix == "module.":
        _, found = read(saved(tmp_path / "m.pth", {**state, "extra": torch.ones(1)}))
        assert set(found) == {*state, "extra"}


def test_what_wrappers_put_into_names_is_taken_out(tmp_path):
    state = {
        "h.0._checkpoint_wrapped_module.w": torch.ones(1),
        "h._fsdp_wrapped_module.1._orig_mod.w": torch.ones(2),
        "not_orig_mod.w": torch.ones(3),
    }
    _, found = read(saved(tmp_path / "m.pth", state))
    assert set(found) == {"h.0.w", "h.1.w", "not_orig_mod.w"}
    with pytest.raises(MalformedError, match="two tensors are called"):
        read(saved(tmp_path / "m.pth", {**state, "h.0.w": torch.ones(1)}))


def test_a_training_checkpoint_beside_whose_weights_lie_other_objects(tmp_path):
    model = torch.nn.Linear(3, 5)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 1,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict(model.state_dict()),
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": argparse.Namespace(lr=0.1, path=Path("x")),
        "callbacks": {("ModelCheckpoint", 3): {"best": torch.tensor(1.0), "seen": {1, 2}, "raw": b"abc"}},
        "dtype": torch.bfloat16,
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "generator": torch.get_rng_state(),
    }
    for protocol in (2, 4):
        header, found = read(saved(tmp_path / "m.ckpt", checkpoint, pickle_protocol=protocol))
        assert found == expected(model.state_dict())
        assert header.metadata["torch.wrapped_under"] == "state_dict"
        assert "argparse.Namespace" in header.metadata["torch.foreign"]


def test_entries_of_a_state_dict_that_are_no_tensors_are_left_out(tmp_path):
    state = {**SMALL, "version": 3, "note": "text", "none": None, "a._extra_state": argparse.Namespace()}
    _, found = read(saved(tmp_path / "m.pth", state))
    assert found == expected(SMALL)


def test_litgpts_incremental_save_with_its_whole_number_keys(tmp_path):
    shared = torch.randn(4, 3)
    state = {"early": torch.randn(5, 2), "shared": shared, "again": shared, "half": torch.ones(3).half()}
    with incremental_save(tmp_path / "lit_model.pth") as saver:
        early = saver.store_early(state["early"])
        saver.save({"shared": shared, "early": early, "again": shared, "half": state["half"]})
    _, found = read(tmp_path / "lit_model.pth")
    assert found == expected(state)


def test_files_that_other_zip_tools_have_repacked(tmp_path):
    source = saved(tmp_path / "m.pth", SMALL)
    _, found = read(repacked(source, tmp_path / "again.pth"))
    assert found == expected(SMALL)


def test_torch_with_checksums_turned_off(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "m.pth", SMALL)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read(path)[1] == expected(SMALL)


def test_reading_does_not_import_torch(tmp_path):
    path = saved(tmp_path / "m.pth", SMALL)
    code = (
        "import sys; from pathlib import Path; from porter.containers.torch.torch_zip import read_header;"
        f"read_header(Path({str(path)!r}), 'm'); assert not {{'torch', 'numpy', 'pickle'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- what is refused -------------------------------------------------------------------------------


def test_formats_from_before_the_zip_are_unsupported_with_a_way_out(tmp_path):
    path = saved(tmp_path / "m.pth", SMALL, _use_new_zipfile_serialization=False)
    with pytest.raises(UnsupportedError, match=r"before 1\.6") as error:
        read(path)
    assert "weights_only=True" in error.value.hint
    with tarfile.open(tmp_path / "t.pth", "w") as archive:
        archive.add(path, "storages")
    with pytest.raises(UnsupportedError, match="tar"):
        read(tmp_path / "t.pth")


def test_a_torchscript_archive_is_unsupported(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 3)).save(tmp_path / "m.pt")
    with pytest.raises(UnsupportedError, match="TorchScript"):
        read(tmp_path / "m.pt")


def test_a_compressed_archive_is_unsupported(tmp_path):
    source = saved(tmp_path / "m.pth", SMALL)
    path = repacked(source, tmp_path / "z.pth", compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsupportedError, match="compressed"):
        read(path)


def renamed(old: str, new: str):
    return lambda name, data: (name.replace(old, new), data)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda n, d: (n, b"big" if n.endswith("byteorder") else d), UnsupportedError, "big-endian"),
        (lambda n, d: (n, b"middle" if n.endswith("byteorder") else d), MalformedError, "middle"),
        (lambda n, d: (n, b"#" if n == "m/version" else d), MalformedError, "version 1 to 10"),
        (lambda n, d: (n, b"11" if n == "m/version" else d), MalformedError, "version 1 to 10"),
        (renamed("m/version", "m/other"), MalformedError, "version, found none"),
        (lambda n, d: (n, d[:-1] if n.endswith("data/0") else d), MalformedError, "24 bytes"),
        (lambda n, d: (n, d + b"x" if n.endswith("data/0") else d), MalformedError, "24 bytes"),
        (renamed("data/1", "data/7"), MalformedError, "no such entry"),
        (renamed("m/data.pkl", "m/code.pkl"), MalformedError, "data.pkl"),
        (renamed("m/version", "n/version"), MalformedError, "one folder"),
        (renamed("m/", ""), MalformedError, "one folder"),
        (renamed("m/data/1", "m/DATA/0"), MalformedError, "twice"),
        (renamed("m/version", "m/ver\x07sion"), MalformedError, "plain entry names"),
        (renamed("m/version", "m\\version"), MalformedError, "plain entry names"),
    ],
)
def test_an_archive_with_other_entries(tmp_path, change, kind, words):
    path = repacked(saved(tmp_path / "m.pth", SMALL), tmp_path / "x.pth", change)
    with pytest.raises(kind, match=words):
        read(path)


def patched(path: Path, at: int, layout: str, value: int) -> Path:
    raw = bytearray(path.read_bytes())
    struct.pack_into(layout, raw, at, value)
    path.write_bytes(raw)
    return path


def directory(path: Path, name: str) -> int:
    """Where the central directory lists an entry."""
    raw = path.read_bytes()
    return raw.index(b"PK\x01\x02", raw.rindex(name.encode()) - 46)


@pytest.mark.parametrize(
    ("where", "layout", "value", "words"),
    [
        (42, "<I", 0, "inside|found it at"),
        (42, "<I", 1 << 30, "before byte"),
        (8, "<H", 1, "encrypted"),
        (10, "<H", 12, "found b"),
        (24, "<I", 1 << 20, "stored bytes"),
        (34, "<H", 1, "stored bytes"),
        (28, "<H", 60_000, "found b"),
        (38, "<I", 0x5B, "found a folder"),
    ],
    ids=["overlap", "outside", "encrypted", "method", "sizes", "disk", "name length", "folder"],
)
def test_a_directory_that_lies(tmp_path, where, layout, value, words):
    path = repacked(saved(tmp_path / "m.pth", SMALL), tmp_path / "x.pth")
    patched(path, directory(path, "m/data/1") + where, layout, value)
    with pytest.raises(PorterError, match=words):
        read(path)


def test_entries_that_overlap(tmp_path):
    """One entry's size, raised in both of its headers so that it reaches into the next entry."""
    path = repacked(saved(tmp_path / "m.pth", SMALL), tmp_path / "x.pth")
    with zipfile.ZipFile(path) as archive:
        local = archive.getinfo("m/data/0").header_offset
    for at in (directory(path, "m/data/0") + 20, directory(path, "m/data/0") + 24, local + 18, local + 22):
        patched(path, at, "<I", 60)
    with pytest.raises(MalformedError, match="inside 'm/data/0'"):
        read(path)


def test_sizes_that_differ_between_the_two_headers(tmp_path):
    path = repacked(saved(tmp_path / "m.pth", SMALL), tmp_path / "x.pth")
    with zipfile.ZipFile(path) as archive:
        patched(path, archive.getinfo("m/data/0").header_offset + 22, "<I", 23)
    with pytest.raises(MalformedError, match="own header"):
        read(path)


def test_bytes_before_and_after_the_archive(tmp_path):
    raw = saved(tmp_path / "m.pth", SMALL).read_bytes()
    for content in (b"PK\x03\x04" + raw, raw + b"\0", raw + raw, b"#!/bin/sh\n" + raw, b"", b"PK\x03\x04"):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(MalformedError):
            read(tmp_path / "x.pth")


def test_a_damaged_pickle_is_noticed_by_its_checksum(tmp_path):
    path = saved(tmp_path / "m.pth", SMALL)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"cpu")] ^= 1
    path.write_bytes(raw)
    with pytest.raises(MalformedError, match="checksum"):
        read(path)


def test_every_truncation_is_malformed(tmp_path):
    raw = saved(tmp_path / "m.pth", SMALL).read_bytes()
    for length in range(0, len(raw), 13):
        (tmp_path / "x.pth").write_bytes(raw[:length])
        with pytest.raises(MalformedError):
            read(tmp_path / "x.pth")


@pytest.mark.parametrize("value", [3, "text", [torch.ones(2)], {"a": 1}, {"x": {"w": torch.ones(2)}}])
def test_a_file_without_a_state_dict(tmp_path, value):
    with pytest.raises(UnsupportedError, match="holds no state dict"):
        read(saved(tmp_path / "m.pth", value))


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "a\x00"])
def test_names_with_control_characters_are_malformed(tmp_path, name):
    with pytest.raises(MalformedError, match="control"):
        read(saved(tmp_path / "m.pth", {name: torch.ones(2)}))


def test_what_is_no_file(tmp_path):
    with pytest.raises(MalformedError, match="regular"):
        read_header(tmp_path, "m.pth")
    with pytest.raises(PorterError, match="is missing"):
        read_header(tmp_path / "none.pth", "none.pth")


# --- directories -----------------------------------------------------------------------------------


def sharded(directory: Path, prefix: str = "") -> dict:
    state = {f"{prefix}{name}": torch.randn(2, 3) for name in ("a", "b", "c")}
    files = {
        "pytorch_model-00001-of-00002.bin": list(state)[:2],
        "pytorch_model-00002-of-00002.bin": list(state)[2:],
    }
    for file, names in files.items():
        torch.save({name: state[name] for name in names}, directory / file)
    weight_map = {name: file for file, names in files.items() for name in names}
    (directory / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return state


def test_shards_with_an_index(tmp_path):
    sharded(tmp_path)
    torch.save({"x": 1}, tmp_path / "training_args.bin")
    headers = open_checkpoint(locate(tmp_path)).headers
    assert [header.file for header in headers] == [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    assert [[tensor.name for tensor in header.tensors] for header in headers] == [["a", "b"], ["c"]]


def test_a_prefix_is_taken_off_only_if_all_shards_have_it(tmp_path):
    sharded(tmp_path, "module.")
    headers = open_checkpoint(locate(tmp_path)).headers
    assert [t.name for header in headers for t in header.tensors] == ["a", "b", "c"]
    torch.save({"d": torch.ones(1)}, tmp_path / "d.bin")
    index = json.loads((tmp_path / "pytorch_model.bin.index.json").read_text())
    index["weight_map"]["d"] = "d.bin"
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    names = [t.name for header in open_checkpoint(locate(tmp_path)).headers for t in header.tensors]
    assert names == ["d", "module.a", "module.b", "module.c"]


def test_shards_that_the_index_does_not_match(tmp_path):
    sharded(tmp_path)
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    found = open_checkpoint(locate(tmp_path))
    assert (set(found.tensors), found.remarks) == (
        {"a", "c"},
        ("pytorch_model.bin.index.json lists 1 tensor (b) that no shard holds",),
    )
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(MalformedError, match="missing"):
        open_checkpoint(locate(tmp_path))


@pytest.mark.parametrize("shard", ["../m.bin", "/etc/m.bin", "link.bin"])
def test_an_index_cannot_lead_out_of_the_directory(tmp_path, shard):
    inside = tmp_path / "checkpoint"
    inside.mkdir()
    saved(tmp_path / "m.bin", SMALL)
    (inside / "link.bin").symlink_to(tmp_path / "m.bin")
    (inside / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": shard, "b": shard}}))
    with pytest.raises(MalformedError, match=r"unsafe|leads out"):
        open_checkpoint(locate(inside))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "lit_model.pth", "gemma-2b.ckpt", "weights.pt"])
def test_a_single_file_beside_what_a_trainer_leaves(tmp_path, name):
    saved(tmp_path / name, SMALL)
    for other in ("optimizer.pt", "rng_state_0.pth", "scheduler.pt", "training_args.bin"):
        saved(tmp_path / other, {"x": torch.ones(1)})
    [header] = open_checkpoint(locate(tmp_path)).headers
    assert (header.file, len(header.tensors)) == (name, 2)


def test_several_files_ask_for_a_name(tmp_path):
    with pytest.raises(MalformedError, match="holds no weights"):
        open_checkpoint(locate(tmp_path))
    saved(tmp_path / "a.pt", SMALL)
    saved(tmp_path / "b.pt", SMALL)
    with pytest.raises(UsageError, match=r"a\.pt, b\.pt") as error:
        open_checkpoint(locate(tmp_path))
    assert "name the file" in error.value.hint
