"""Folders that hold more than one checkpoint, and files whose names say nothing or too much.

What transformers itself loads from the same folder is the standard; LitGPT reads `lit_model.pth`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import porter
from porter.errors import MalformedError, PorterError, UnsupportedError, UsageError

SIZES = {
    "vocab_size": 23,
    "hidden_size": 12,
    "intermediate_size": 7,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 32,
}
INDEX = "model.safetensors.index.json"
NORM, FINAL = "model.layers.0.input_layernorm.weight", "model.norm.weight"


def model(seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    made = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


@pytest.fixture(scope="module")
def states() -> dict[int, dict[str, torch.Tensor]]:
    return {seed: model(seed).state_dict() for seed in (1, 2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SIZES})
    )
    return place


def save(state: dict[str, torch.Tensor], path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)


def save_shards(state: dict[str, torch.Tensor], folder: Path, *names: str, index: str | None = INDEX) -> None:
    keys = sorted(state)
    weight_map = {}
    for number, name in enumerate(names):
        part = {key: state[key] for key in keys[number :: len(names)]}
        save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    if index is not None:
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BINS = tuple(name.replace("model-", "pytorch_model-").replace(".safetensors", ".bin") for name in SHARDS)


def transformers_reads(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import LlamaForCausalLM

    return dict(LlamaForCausalLM.from_pretrained(folder).state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def notes(folder: Path | str, **options: Any) -> str:
    return "\n".join(porter.plan(folder, to="hf", **options).notes)


@pytest.mark.parametrize(
    "kind", ["file before index", "safetensors before bin", "bin before its index", "index before bins"]
)
def test_transformers_order_is_followed(folder: Path, states: Any, kind: str) -> None:
    taken, left = states[1], states[2]
    if kind == "file before index":
        save(taken, folder / "model.safetensors")
        save_shards(left, folder, *SHARDS)
        other = INDEX
    elif kind == "safetensors before bin":
        save(taken, folder / "model.safetensors")
        save(left, folder / "pytorch_model.bin")
        other = "pytorch_model.bin"
    elif kind == "bin before its index":
        save(taken, folder / "pytorch_model.bin")
        save_shards(left, folder, *BINS, index="pytorch_model.bin.index.json")
        other = "pytorch_model.bin.index.json"
    else:
        save_shards(taken, folder, *SHARDS)
        save_shards(left, folder, *BINS, index="pytorch_model.bin.index.json")
        other = "pytorch_model.bin.index.json"
    peer = transformers_reads(folder)
    assert same(peer, taken)
    assert not same(peer, left), "negative control: the two differ"
    assert same(porter.load_state_dict(folder), peer)
    assert other in notes(folder)
    assert other in "\n".join(porter.inspect(folder).notes)
    # The other one, by its name.
    assert same(porter.load_state_dict(folder / other), left)


def test_one_checkpoint_alone_needs_no_note(folder: Path, states: Any) -> None:
    save_shards(states[1], folder, *SHARDS)
    assert "not read" not in notes(folder)


def test_two_frameworks_in_one_folder_ask_which(folder: Path, states: Any, tmp_path: Path) -> None:
    """LitGPT keeps what it downloaded beside its own file, which may have been trained on."""
    save(states[2], tmp_path / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    porter.convert(
        tmp_path / "model.safetensors",
        tmp_path / "lit",
        to="litgpt",
        container="pth",
        config=tmp_path / "config.json",
    )
    save(states[1], folder / "model.safetensors")
    for name in ("lit_model.pth", "model_config.yaml"):
        shutil.copy(tmp_path / "lit" / name, folder)
    with pytest.raises(UsageError, match="two checkpoints") as caught:
        porter.plan(folder, to="hf")
    assert 'source_dialect="litgpt"' in caught.value.hint
    for word, state in (("hf", states[1]), ("litgpt", states[2])):
        out = tmp_path / f"from-{word}"
        porter.convert(folder, out, to="hf", source_dialect=word)
        assert same(dict(load_file(out / "model.safetensors")), state)
        assert "not read" in notes(folder, source_dialect=word)
        assert porter.inspect(folder, source_dialect=word).dialect == word
    assert porter.inspect(folder / "lit_model.pth").dialect == "litgpt"


def test_litgpt_s_older_downloads(folder: Path, states: Any, tmp_path: Path) -> None:
    """Its shards were saved anew as `.bin`, beside the index of the safetensors: only LitGPT reads them."""
    save_shards(states[1], folder, *SHARDS)
    for name in SHARDS:
        torch.save(load_file(folder / name), (folder / name).with_suffix(".bin"))
        (folder / name).unlink()
    assert same(porter.load_state_dict(folder), states[1])
    with pytest.raises(OSError, match="safetensors"):
        transformers_reads(folder)
    save(states[2], tmp_path / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    porter.convert(tmp_path / "model.safetensors", tmp_path / "lit", to="litgpt", container="pth")
    for name in ("lit_model.pth", "model_config.yaml"):
        shutil.copy(tmp_path / "lit" / name, folder)
    assert porter.inspect(folder).dialect == "litgpt"
    assert "not read" in notes(folder)
    porter.convert(folder, tmp_path / "hf", to="hf", source_dialect="hf")
    assert same(dict(load_file(tmp_path / "hf" / "model.safetensors")), states[1])


@pytest.mark.parametrize(
    "names",
    [
        ("hf_model_0001_0.pt", "hf_model_0002_0.pt"),
        ("pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"),
        ("part0.bin", "part1.bin"),
        ("weights_00000_of_00002.safetensors", "weights_00001_of_00002.safetensors"),
        BINS,
        SHARDS,
    ],
)
def test_shards_without_an_index(folder: Path, states: Any, names: tuple[str, ...]) -> None:
    save_shards(states[1], folder, *names, index=None)
    assert same(porter.load_state_dict(folder), states[1])
    (folder / names[0]).unlink()
    with pytest.raises(PorterError):
        porter.load_state_dict(folder)


def test_shards_that_no_index_lists_are_not_taken_before_what_transformers_reads(
    folder: Path, states: Any
) -> None:
    save_shards(states[1], folder, *SHARDS, index=None)
    assert "no index lists these shards" in notes(folder)
    save(states[2], folder / "pytorch_model.bin")
    assert same(transformers_reads(folder), states[2]), "what is at stake"
    with pytest.raises(UsageError, match="more than one set of weights") as caught:
        porter.load_state_dict(folder)
    assert "no index that lists the shards" in str(caught.value.cause)
    assert same(porter.load_state_dict(folder / "pytorch_model.bin"), states[2])


def test_shards_of_an_earlier_save_are_said_to_be_left(folder: Path, states: Any) -> None:
    save_shards(states[2], folder, *(name.replace("of-00002", "of-00003") for name in SHARDS), index=None)
    save_shards(states[1], folder, *SHARDS)
    assert same(transformers_reads(folder), states[1])
    assert same(porter.load_state_dict(folder), states[1])
    stale = SHARDS[0].replace("of-00002", "of-00003")
    assert f"not read: {stale}, " in notes(folder) and f"which {INDEX} does not name" in notes(folder)


def test_numbered_copies_of_one_model_are_no_shards(folder: Path, states: Any) -> None:
    for seed in (1, 2):
        torch.save(states[seed], folder / f"epoch_{seed}.pt")
    with pytest.raises(UsageError, match="name the file"):
        porter.inspect(folder)
    assert same(porter.load_state_dict(folder / "epoch_2.pt"), states[2])


def test_an_index_that_is_not_quite_right(folder: Path, states: Any) -> None:
    """transformers reads all tensors of the shards that are named, whatever else the index says."""
    save_shards(states[1], folder, *SHARDS)
    path = folder / INDEX
    index = json.loads(path.read_text())
    del index["weight_map"][NORM]
    index["weight_map"]["model.rotary.inv_freq"] = SHARDS[0]
    index["weight_map"][FINAL] = next(name for name in SHARDS if name != index["weight_map"][FINAL])
    path.write_text(json.dumps(index))
    peer = transformers_reads(folder)
    assert same(peer, states[1])
    assert same(porter.load_state_dict(folder), peer)
    said = notes(folder)
    for name in (NORM, "model.rotary.inv_freq", FINAL):
        assert name in said


def test_a_tied_head_that_the_index_lists_and_no_shard_holds(folder: Path, states: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    state = {name: value for name, value in states[1].items() if name != "lm_head.weight"}
    save_shards(state, folder, *SHARDS)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = SHARDS[0]
    (folder / INDEX).write_text(json.dumps(index))
    peer = transformers_reads(folder)
    assert torch.equal(peer["lm_head.weight"], state["model.embed_tokens.weight"])
    assert same(porter.load_state_dict(folder), peer)
    # Negative control: a weight that is really missing.
    index["weight_map"][FINAL] = SHARDS[0]
    save_shards({name: value for name, value in state.items() if name != FINAL}, folder, *SHARDS)
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(PorterError, match=r"norm"):
        porter.plan(folder, to="hf")


def test_files_are_known_by_what_they_hold(folder: Path, states: Any, tmp_path: Path) -> None:
    """A torch zip under safetensors' suffix, and a blob without any, of which a link may be named."""
    torch.save(states[1], folder / "model.safetensors")
    assert porter.inspect(folder).container == "torch"
    assert same(porter.load_state_dict(folder), states[1])
    porter.convert(folder, tmp_path / "out", to="hf")
    assert same(dict(load_file(tmp_path / "out" / "model.safetensors")), states[1])
    blob = folder / "sha256-0123"
    save(states[2], folder / "model.safetensors")
    (folder / "model.safetensors").rename(blob)
    assert porter.inspect(blob).container == "safetensors"
    link = tmp_path / "link"
    link.symlink_to(blob)
    for named in (blob, link):
        assert porter.plan(named, to="litgpt").source_dialect == "hf"
        porter.convert(named, tmp_path / f"from-{named.name}", to="hf")
        assert same(dict(load_file(tmp_path / f"from-{named.name}" / "model.safetensors")), states[2])
    blob.write_bytes(b"nothing that anybody knows")
    with pytest.raises(UnsupportedError, match="no container"):
        porter.inspect(blob)


def test_a_gguf_blob_through_a_link(tmp_path: Path) -> None:
    import gguf

    blobs = tmp_path / "blobs"
    blobs.mkdir()
    writer = gguf.GGUFWriter(blobs / "sha256-77", "llama")
    writer.add_tensor("token_embd.weight", np.ones((3, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    link = tmp_path / "models" / "model.gguf"
    link.parent.mkdir()
    link.symlink_to(blobs / "sha256-77")
    for named in (blobs / "sha256-77", link):
        found = porter.inspect(named)
        assert (found.container, len(found.tensors)) == ("gguf", 1)


def test_an_unknown_dialect_is_a_usage_error(folder: Path, states: Any) -> None:
    save(states[1], folder / "model.safetensors")
    with pytest.raises(UsageError, match="no dialect called 'bin'"):
        porter.plan(folder, to="hf", source_dialect="bin")
    with pytest.raises(UsageError, match="no weights that could be gguf"):
        porter.plan(folder, to="hf", source_dialect="gguf")
    save_shards(states[1], folder, *SHARDS)
    (folder / SHARDS[0]).unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(MalformedError, match=SHARDS[0]):
        porter.plan(folder, to="hf")
