"""What is no regular file is refused at once, wherever it stands in the place of one."""

import json
import os
import signal
import socket

import numpy as np
import pytest
from safetensors.numpy import save_file

import porter
from porter.errors import MalformedError, PorterError
from porter.reading.regular import read_regular


@pytest.fixture(autouse=True)
def no_waiting():
    """Whoever waits for a pipe's other end fails instead."""

    def late(number, frame):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def in_place_of(path, kind):
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        # Bound by a short name: a socket's may have 107 bytes.
        here = os.open(path.parent, os.O_RDONLY)
        try:
            socket.socket(socket.AF_UNIX).bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


KINDS = ("pipe", "socket", "device", "directory")


@pytest.mark.parametrize("kind", KINDS)
def test_one_function_opens_regular_files_only(tmp_path, kind):
    in_place_of(tmp_path / "file", kind)
    with pytest.raises(MalformedError, match="file"):
        read_regular(tmp_path / "file", "file", 10)
    (tmp_path / "plain").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "plain", "plain", 10) == b"0123456789"
    with pytest.raises(MalformedError, match="plain is too large"):
        read_regular(tmp_path / "plain", "plain", 9)
    with pytest.raises(MalformedError, match="null byte"):
        read_regular(tmp_path / "a\0b", "a", 9)


def sharded(folder):
    save_file({"a": np.zeros(3, np.float32)}, folder / "model-00001-of-00001.safetensors")
    content = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), "utf-8")


def orbax(folder):
    (folder / "_METADATA").write_text('{"store_array_data_equal_to_fill_value": true}', "utf-8")
    array = folder / "a"
    array.mkdir()
    stated = {"shape": [3], "chunks": [3], "dtype": "<f4", "zarr_format": 2, "order": "C"}
    (array / ".zarray").write_text(json.dumps({**stated, "compressor": None, "filters": None}), "utf-8")
    (array / "0").write_bytes(bytes(12))


PLACES = {
    "a GGUF": ("m.gguf", lambda folder: None),
    "safetensors": ("model.safetensors", lambda folder: None),
    "a torch file": ("pytorch_model.bin", lambda folder: None),
    "Keras weights": ("model.weights.h5", lambda folder: None),
    "an archive of Keras": ("m.keras", lambda folder: None),
    "a shard": ("model-00001-of-00001.safetensors", sharded),
    "an index": ("model.safetensors.index.json", sharded),
    "a zarr array": ("a/.zarray", orbax),
    "a tree": ("_METADATA", orbax),
}


@pytest.mark.parametrize("kind", ("pipe", "socket", "device"))
@pytest.mark.parametrize("place", PLACES)
def test_nothing_waits_for_what_stands_in_the_place_of_a_file(tmp_path, place, kind):
    file, make = PLACES[place]
    make(tmp_path)
    in_place_of(tmp_path / file, kind)
    with pytest.raises(PorterError) as refused:
        porter.inspect(tmp_path)
    assert refused.value.exit_code in (2, 6)


def test_negative_control_the_same_places_with_files_are_read(tmp_path):
    for number, make in enumerate((sharded, orbax)):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder)
        assert [tensor.name for tensor in porter.inspect(folder).tensors] == ["a"]


@pytest.mark.parametrize("kind", ("pipe", "directory"))
def test_a_table_or_a_config_that_was_named(tmp_path, kind):
    sharded(tmp_path)
    in_place_of(tmp_path / "own.toml", kind)
    with pytest.raises(PorterError):
        porter.inspect(tmp_path, maps=[tmp_path / "own.toml" if kind == "pipe" else tmp_path / "own.toml/x"])
    in_place_of(tmp_path / "own.json", kind)
    with pytest.raises(PorterError):
        porter.inspect(tmp_path, config=tmp_path / "own.json")


# What is used where it is there, and done without where it is not.
BESIDE = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model")


@pytest.mark.parametrize("kind", (*KINDS, "link to nothing"))
@pytest.mark.parametrize("file", BESIDE)
def test_what_stands_in_the_place_of_a_small_file_is_not_taken_for_none(tmp_path, file, kind):
    sharded(tmp_path)
    assert porter.inspect(tmp_path).tensors
    if kind == "link to nothing":
        (tmp_path / file).symlink_to("nowhere")
    else:
        in_place_of(tmp_path / file, kind)
    with pytest.raises(MalformedError) as refused:
        porter.inspect(tmp_path)
    assert file in refused.value.message or "/dev/zero" in refused.value.cause
    # What nobody reads may be anything.
    (tmp_path / file).rmdir() if kind == "directory" else (tmp_path / file).unlink()
    in_place_of(tmp_path / "README.txt", "pipe")
    assert porter.inspect(tmp_path).tensors


@pytest.mark.parametrize("kind", ("pipe", "device"))
def test_what_was_named_and_is_no_file_is_said_to_be_none(tmp_path, kind):
    sharded(tmp_path)
    in_place_of(tmp_path / "odd.safetensors", kind)
    in_place_of(tmp_path / "odd.json", kind)
    (tmp_path / "out").mkdir()
    in_place_of(tmp_path / "out/porter-receipt.json", kind)
    # In a folder, a link out of it is refused as one.
    word = "no regular file" if kind == "pipe" else "regular file|leads out"
    with pytest.raises(MalformedError, match="no regular file"):
        porter.inspect(tmp_path / "odd.safetensors")
    with pytest.raises(MalformedError, match=word):
        porter.inspect(tmp_path, config=tmp_path / "odd.json")
    with pytest.raises(MalformedError, match=word):
        porter.check(tmp_path / "out")


def test_a_name_that_is_too_long_for_the_system_is_malformed(tmp_path):
    content = {"weight_map": {"a": "x" * 300 + ".safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(MalformedError):
        porter.inspect(tmp_path)
