"""A checkpoint in any `Source`: opened as in a directory, or refused in words that say why."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
from safetensors.numpy import save, save_file

import porter
from porter.containers.checkpoint import open_checkpoint
from porter.containers.from_source import open_from
from porter.errors import ChangedError, MalformedError, UnsupportedError, UsageError
from porter.sources.in_memory import MemorySource
from porter.sources.local import Location
from porter.sources.local_files import LocalSource
from tests.tiny_llama import CONFIG, SHAPES

WEIGHTS = {name: np.full(shape, n + 0.5, np.float32) for n, (name, shape) in enumerate(SHAPES.items())}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def sharded():
    """The files of a checkpoint in two shards, by name."""
    names = list(WEIGHTS)
    parts = [names[:5], names[5:]]
    files = {
        file: save({name: WEIGHTS[name] for name in part}) for file, part in zip(SHARDS, parts, strict=True)
    }
    weight_map = {name: file for file, part in zip(SHARDS, parts, strict=True) for name in part}
    index = {"metadata": {}, "weight_map": weight_map}
    return {
        **files,
        "model.safetensors.index.json": json.dumps(index).encode(),
        "config.json": json.dumps(CONFIG).encode(),
        "additional_chat_templates/tools.jinja": b"{{ messages }}",
        "vocab.bpe": b"?",
        "README.md": b"#",
    }


def written(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


class FarSource(MemorySource):
    """As if over a network: read front to back, each byte once."""

    near = False


SOURCES = {
    "far": lambda root, files: FarSource(files, "model"),
    "memory": lambda root, files: MemorySource(files, "model"),
    "directory": lambda root, files: LocalSource(written(root, files), "model"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_opens_as_the_directory_does(kind, tmp_path):
    root = written(tmp_path / "plain", sharded())
    expected = open_checkpoint(Location(root, None, "model"))
    (tmp_path / "small").mkdir()
    found = open_from(SOURCES[kind](tmp_path / "own", sharded()), tmp_path / "small")
    for field in ("label", "container", "headers", "remarks", "others", "single"):
        assert getattr(found, field) == getattr(expected, field), field
    assert {name: path.read_bytes() for name, path in found.files.items()} == {
        name: path.read_bytes() for name, path in expected.files.items()
    }
    assert set(found.files) >= {"config.json", "additional_chat_templates/tools.jinja"}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_python_functions_take_a_source(kind, tmp_path):
    source = SOURCES[kind](tmp_path / "own", sharded())
    plain = written(tmp_path / "plain" / "model", sharded())
    assert porter.inspect(source).dialect == "hf"
    assert porter.plan(source, to="litgpt").hash == porter.plan(plain, to="litgpt").hash
    porter.convert(source, tmp_path / "out", to="litgpt")
    porter.convert(plain, tmp_path / "expected", to="litgpt")
    for name in ("lit_model.safetensors", "model_config.yaml"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    state = porter.load_state_dict(source)
    assert set(state) == set(WEIGHTS)
    assert all(np.array_equal(state[name].numpy(), weight) for name, weight in WEIGHTS.items())


def opened(files, tmp_path):
    return open_from(MemorySource(files, "model"), tmp_path)


def test_a_change_after_it_was_opened_publishes_nothing(tmp_path):
    files = sharded()
    source = MemorySource(files, "model")
    files[SHARDS[1]] = files[SHARDS[1]][:-1] + b"\x01"
    with pytest.raises(ChangedError, match=SHARDS[1]):
        porter.convert(source, tmp_path / "out", to="litgpt")
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_is_named(tmp_path):
    files = sharded()
    del files[SHARDS[1]]
    with pytest.raises(MalformedError, match=SHARDS[1]):
        opened(files, tmp_path)
    del files["model.safetensors.index.json"]
    with pytest.raises(MalformedError, match="1 of 2 shards are missing"):
        opened(files, tmp_path)


def test_two_shards_with_one_tensor_are_refused(tmp_path):
    files = sharded()
    files[SHARDS[1]] = files[SHARDS[0]]
    with pytest.raises(MalformedError, match="expected it once"):
        opened(files, tmp_path)


def torch_file(path):
    torch = importlib.import_module("torch")
    torch.save({"w": torch.ones(3)}, path)


def hdf5_file(path):
    with importlib.import_module("h5py").File(path, "w") as file:
        file["w"] = np.ones(3, np.float32)


def gguf_file(path):
    path.write_bytes(b"GGUF" + bytes(60))


def orbax_file(path):
    path.write_bytes(b"{}")


@pytest.mark.parametrize(
    ("name", "make", "container"),
    [
        ("pytorch_model.bin", torch_file, "torch"),
        ("model.weights.h5", hdf5_file, "hdf5"),
        ("model.gguf", gguf_file, "gguf"),
        ("_METADATA", orbax_file, "orbax"),
        # What a file holds counts, whatever its name says.
        ("model.safetensors", torch_file, "torch"),
    ],
)
def test_containers_that_need_a_path_are_named(name, make, container, tmp_path):
    make(tmp_path / name)
    with pytest.raises(UnsupportedError, match=f"{name} cannot be looked into in model") as caught:
        opened({name: (tmp_path / name).read_bytes()}, tmp_path)
    assert f"it is {container}," in caught.value.cause
    assert "directory" in caught.value.hint


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({"notes.txt": b"x"}, MalformedError, "model holds no weights"),
        ({"adapter_model.safetensors": b"x"}, UnsupportedError, "adapter"),
        ({"../model.safetensors": b"x"}, MalformedError, "unsafe file name"),
        (
            {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
            MalformedError,
            "Git LFS pointer",
        ),
        (
            {
                "model.safetensors": save(WEIGHTS),
                "tokenizer.json": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            },
            MalformedError,
            "tokenizer.json is a Git LFS pointer",
        ),
        ({"model.safetensors": save(WEIGHTS)[:40]}, MalformedError, "model.safetensors"),
        ({"model.safetensors": b"{"}, MalformedError, "model.safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_refused(files, error, words, tmp_path):
    with pytest.raises(error, match=words):
        opened(files, tmp_path)


def test_what_is_no_source_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="a path, a name or a Source"):
        porter.inspect(5)
    with pytest.raises(UsageError, match="key="):
        porter.inspect(MemorySource(sharded(), "model"), key="ema")


def test_a_path_still_is_a_path(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    assert porter.inspect(tmp_path).dialect == porter.inspect(str(tmp_path)).dialect == "hf"
