"""A repository with more than one checkpoint, and LitGPT's: chosen from afar as they are near."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import porter

from .test_convert_from_the_hub import REPO, checkpoint, run, serve, tensors


def same(one: Path, other: dict[str, np.ndarray]) -> bool:
    found = load_file(one)
    return found.keys() == other.keys() and all(np.array_equal(found[name], other[name]) for name in other)


def test_a_whole_file_comes_before_an_index_as_it_does_near(hub, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "source", tensors(1))
    save_file(tensors(2), folder / "model.safetensors", metadata={"format": "pt"})
    serve(hub, folder)
    out = tmp_path / "out"
    said = run(hub, "convert", REPO, "--to", "hf", "-o", out).stderr
    assert "not read: model.safetensors.index.json" in said
    assert same(out / "model.safetensors", tensors(2))
    assert not same(out / "model.safetensors", tensors(1)), "negative control"
    near = porter.plan(folder, to="hf")
    assert any("not read: model.safetensors.index.json" in note for note in near.notes)
    assert "not read: model.safetensors.index.json" in run(hub, "inspect", REPO).stderr


@pytest.mark.parametrize("both", [False, True])
def test_a_litgpt_repository_brings_its_own_config(hub, tmp_path: Path, both: bool) -> None:
    porter.convert(checkpoint(tmp_path / "source", tensors(1)), tmp_path / "lit", to="litgpt")
    folder = tmp_path / "lit"
    if both:
        save_file(tensors(2), folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text((tmp_path / "source" / "config.json").read_text())
    serve(hub, folder)
    word = ["--from", "litgpt"] if both else []
    if both:
        done = run(hub, "convert", REPO, "--to", "hf", "-o", tmp_path / "either")
        assert (done.returncode, "two checkpoints" in done.stderr) == (2, True)
    assert json.loads(run(hub, "inspect", REPO, "--json", *word).stdout)["dialect"] == "litgpt"
    run(hub, "convert", REPO, "--to", "hf", "-o", tmp_path / "streamed", *word)
    assert same(tmp_path / "streamed" / "model.safetensors", tensors(1))
    if not both:
        run(hub, "download", REPO)
        run(hub, "convert", REPO, "--to", "hf", "-o", tmp_path / "downloaded")
        assert same(tmp_path / "downloaded" / "model.safetensors", tensors(1))


def test_blocks_cannot_be_shared_with_what_is_far(hub, tmp_path: Path) -> None:
    serve(hub, checkpoint(tmp_path / "source", tensors(1)))
    done = run(hub, "convert", REPO, "--to", "hf", "-o", tmp_path / "out", "--reflink", "always")
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)
    assert "not on this machine" in done.stderr


def test_an_adapter_is_named_as_one(hub, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({"a": np.ones(3, np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    serve(hub, folder)
    done = run(hub, "convert", REPO, "--to", "hf", "-o", tmp_path / "out")
    assert done.returncode == 5
    assert "is an adapter" in done.stderr
    assert "merge_and_unload" in done.stderr
