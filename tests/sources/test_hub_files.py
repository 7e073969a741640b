"""Which files of a repository a checkpoint needs, and when a directory holds them all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from porter.errors import MalformedError, UsageError
from porter.sources.hub.listing import RepoFile, complete, select

SHARDS = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]


def chosen(*names: str, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> set[str]:
    return {file.name for file in select([RepoFile(name, 1) for name in names], include, exclude)}


def test_safetensors_are_preferred_and_nothing_is_fetched_twice() -> None:
    here = ["config.json", "tokenizer.json", "chat_template.jinja", *SHARDS, "model.safetensors.index.json"]
    others = [
        "pytorch_model.bin",
        "consolidated.safetensors",
        "model.gguf",
        "flax_model.msgpack",
        "README.md",
    ]
    others += ["onnx/model.onnx", "original/consolidated.00.pth", "model.h5", "pytorch_model.bin.index.json"]
    assert chosen(*here, *others, "LICENSE", ".gitattributes") == set(here)


def test_torch_files_are_fetched_where_there_is_nothing_better() -> None:
    shards = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    index = "pytorch_model.bin.index.json"
    assert chosen("config.json", *shards, index, "training_args.bin", "x.pth") == {
        "config.json",
        *shards,
        index,
    }
    assert chosen("config.json", "gemma-2b.ckpt", "gemma.gguf") == {"config.json", "gemma-2b.ckpt"}


def test_other_kinds_come_only_when_they_are_named() -> None:
    with pytest.raises(UsageError, match=r"gemma\.gguf"):
        chosen("config.json", "gemma.gguf")
    assert chosen("config.json", "gemma.gguf", include=("*.gguf",)) == {"gemma.gguf"}


PRESET = ["config.json", "metadata.json", "preprocessor.json", "task.json", "tokenizer.json"]
PRESET += ["assets/tokenizer/vocabulary.spm"]
PARTS = ["model_00000.weights.h5", "model_00001.weights.h5"]


def test_a_keras_preset_is_fetched_whole_where_there_is_nothing_else() -> None:
    here = [*PRESET, "model.weights.h5"]
    assert chosen(*here, "task.weights.h5", "README.md", "assets/image.png", "tf_model.h5") == set(here)
    assert chosen(*PRESET, "model.weights.json", *PARTS) == {*PRESET, "model.weights.json", *PARTS}
    assert chosen("config.json", "tuned.weights.h5") == {"config.json", "tuned.weights.h5"}


def test_keras_weights_come_last_unless_they_are_asked_for() -> None:
    both = [
        RepoFile(name, 1) for name in ("config.json", "model.safetensors", "model.weights.h5", "task.json")
    ]
    assert {file.name for file in select(both)} == {"config.json", "model.safetensors"}
    asked = {file.name for file in select(both, keras=True)}
    assert asked == {"config.json", "model.weights.h5", "task.json"}
    with pytest.raises(UsageError, match="no Keras weights"):
        select(both[:2], keras=True)


def test_a_keras_preset_is_complete_with_all_its_parts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"/layers/a/vars": PARTS[0], "/layers/b/vars": PARTS}}
    (tmp_path / "model.weights.json").write_text(json.dumps(index))
    (tmp_path / PARTS[0]).touch()
    assert not complete(tmp_path)
    (tmp_path / PARTS[1]).touch()
    assert complete(tmp_path)
    (tmp_path / "config.json").unlink()
    assert not complete(tmp_path)


def test_patterns() -> None:
    names = ("config.json", "a/b/x.json", "model.safetensors", "pytorch_model.bin")
    assert chosen(*names, include=("*.json",)) == {"config.json", "a/b/x.json"}
    assert chosen(*names, include=("a/",)) == {"a/b/x.json"}
    assert chosen(*names, include=("*.bin", "*.json"), exclude=("a/*",)) == {
        "pytorch_model.bin",
        "config.json",
    }
    assert chosen(*names, exclude=("model.*",)) == {"config.json"}
    with pytest.raises(UsageError):
        chosen(*names, exclude=("*",))


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a/../../x", "a\\b", "a\nb", "a//b"])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        chosen(name, include=("*",))


def place(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).write_bytes(b"")
    return directory


def test_a_directory_is_complete_with_config_and_all_shards(tmp_path: Path) -> None:
    index = {"weight_map": {f"t{number}": name for number, name in enumerate(SHARDS)}}
    place(tmp_path, "config.json", *SHARDS[:2])
    assert not complete(tmp_path), "two of three by their numbers"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not complete(tmp_path)
    (tmp_path / SHARDS[2]).symlink_to(tmp_path / "gone")
    assert not complete(tmp_path), "a link that leads nowhere"
    (tmp_path / SHARDS[2]).unlink()
    place(tmp_path, SHARDS[2])
    assert complete(tmp_path)
    (tmp_path / "config.json").unlink()
    assert not complete(tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json", "model.safetensors"], True),
        (["model.safetensors"], False),
        (["config.json", "tokenizer.json"], False),
        (["model.gguf"], True),
        (["config.json", "model.gguf", SHARDS[0]], False),
        (["config.json", "training_args.bin"], False),
        (["config.json", "pytorch_model.bin"], True),
        (["config.json", "gemma-2b.ckpt"], True),
    ],
)
def test_other_shapes_of_a_directory(tmp_path: Path, names: list[str], expected: bool) -> None:
    assert complete(place(tmp_path, *names)) is expected


def test_a_broken_index_is_not_complete(tmp_path: Path) -> None:
    place(tmp_path, "config.json", "model.safetensors.index.json", SHARDS[0])
    assert not complete(tmp_path)


def test_a_whole_file_needs_no_index(tmp_path: Path) -> None:
    """transformers looks for `model.safetensors` first, and then reads no index."""
    place(tmp_path, "config.json", "model.safetensors.index.json", "model.safetensors")
    assert complete(tmp_path)
    both = ["config.json", "model.safetensors", "model.safetensors.index.json"]
    assert chosen(*both, *SHARDS) == set(both[:2])
    assert chosen(both[0], both[2], *SHARDS) == {both[0], both[2], *SHARDS}


def test_litgpt_s_config_comes_with_its_weights(tmp_path: Path) -> None:
    here = ["lit_model.safetensors", "model_config.yaml", "tokenizer.json"]
    assert chosen(*here, "README.md") == set(here)
    assert complete(place(tmp_path, *here[:2]))
    (tmp_path / here[1]).unlink()
    assert not complete(tmp_path)
