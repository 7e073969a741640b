"""The two examples of a part of one's own, on a Llama of two layers: a zip as source, .npz as container."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import porter

EXAMPLES = Path(__file__).parents[2] / "examples"

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 11,
    "vocab_size": 7,
    "max_position_embeddings": 13,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
LAYER = {
    "input_layernorm": (6,),
    "self_attn.q_proj": (8, 6),
    "self_attn.k_proj": (4, 6),
    "self_attn.v_proj": (4, 6),
    "self_attn.o_proj": (6, 8),
    "post_attention_layernorm": (6,),
    "mlp.gate_proj": (11, 6),
    "mlp.up_proj": (11, 6),
    "mlp.down_proj": (6, 11),
}


@pytest.fixture(scope="module")
def weights():
    shapes = {"model.embed_tokens.weight": (7, 6), "model.norm.weight": (6,), "lm_head.weight": (7, 6)}
    for layer in range(2):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in LAYER.items()}
    random = np.random.default_rng(5)
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def llama(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("llama") / "model"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return folder


def pack(path, folder, how=zipfile.ZIP_STORED, within="model/"):
    with zipfile.ZipFile(path, "w", how) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{within}{file.name}")
    return path


def run(example, *args):
    return subprocess.run(
        [sys.executable, EXAMPLES / example, *map(str, args)], capture_output=True, text=True, timeout=300
    )


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "porter-receipt.json"}


@pytest.fixture(scope="module")
def zip_source():
    sys.path.insert(0, str(EXAMPLES))
    try:
        import zip_source

        yield zip_source
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.mark.parametrize("within", ["model/", ""])
def test_a_zip_converts_as_the_directory_in_it_does(llama, tmp_path, within):
    done = run("zip_source.py", pack(tmp_path / "model.zip", llama, within=within), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    porter.convert(llama, tmp_path / "plain", to="litgpt")
    made, plain = files_of(tmp_path / "out"), files_of(tmp_path / "plain")
    assert made == plain
    assert "lit_model.safetensors" in made and "model_config.yaml" in made


def test_a_zip_is_inspected_and_loaded(llama, tmp_path, zip_source, weights):
    source = zip_source.ZipSource(pack(tmp_path / "model.zip", llama))
    assert porter.inspect(source).dialect == "hf"
    assert porter.plan(source, to="litgpt").target_dialect == "litgpt"
    state = porter.load_state_dict(source)
    assert set(state) == set(weights)
    for name, weight in weights.items():
        assert np.array_equal(state[name].numpy(), weight)


def test_a_zip_that_cannot_be_read_by_ranges_is_refused(llama, tmp_path):
    done = run("zip_source.py", pack(tmp_path / "m.zip", llama, zipfile.ZIP_DEFLATED), tmp_path / "out")
    assert done.returncode == 1 and "compressed" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_zip_that_changes_publishes_nothing(llama, tmp_path, zip_source):
    path = pack(tmp_path / "model.zip", llama)
    source = zip_source.ZipSource(path)
    pack(path, llama, within="")
    with pytest.raises(porter.PorterError, match="not the file that was planned for"):
        porter.convert(source, tmp_path / "out", to="litgpt")
    assert not (tmp_path / "out").exists()


def test_a_torch_file_in_a_zip_is_refused_with_its_container(llama, tmp_path, zip_source, weights):
    import torch

    folder = tmp_path / "torch"
    folder.mkdir()
    torch.save({n: torch.from_numpy(w) for n, w in weights.items()}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    source = zip_source.ZipSource(pack(tmp_path / "model.zip", folder))
    with pytest.raises(porter.PorterError, match="cannot be looked into") as caught:
        porter.inspect(source)
    assert "torch" in caught.value.cause and caught.value.exit_code == 5


def test_npz_there_and_back(llama, tmp_path, weights):
    there = run("npz_container.py", llama, tmp_path / "npz", "npz")
    assert there.returncode == 0, there.stderr
    found = np.load(tmp_path / "npz" / "weights.npz")
    assert set(found) == set(weights)
    for name, weight in weights.items():
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], weight)
    back = run("npz_container.py", tmp_path / "npz", tmp_path / "back", "hf")
    assert back.returncode == 0, back.stderr
    made = (tmp_path / "back" / "model.safetensors").read_bytes()
    assert made == (llama / "model.safetensors").read_bytes()


def test_numpys_own_file_is_read(llama, tmp_path, weights):
    folder = tmp_path / "npz"
    folder.mkdir()
    np.savez(folder / "weights.npz", **weights)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    done = run("npz_container.py", folder, tmp_path / "out", "hf")
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(np.array_equal(found[name], weight) for name, weight in weights.items())


def test_an_npz_that_is_compressed_is_refused(llama, tmp_path, weights):
    folder = tmp_path / "npz"
    folder.mkdir()
    np.savez_compressed(folder / "weights.npz", **weights)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    done = run("npz_container.py", folder, tmp_path / "out", "hf")
    assert done.returncode == 1 and "compressed" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_two_arrays_of_one_name_are_refused(llama, tmp_path, weights):
    folder = tmp_path / "npz"
    folder.mkdir()
    np.savez(folder / "weights.npz", **weights)
    with (
        zipfile.ZipFile(folder / "weights.npz", "a") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr("model.norm.weight.npy", archive.read("model.norm.weight.npy"))
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    done = run("npz_container.py", folder, tmp_path / "out", "hf")
    assert done.returncode == 1 and "expected it once" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_numpy_does_check_what_was_written(llama, tmp_path):
    """Negative control: one changed byte of an array and NumPy refuses it."""
    assert run("npz_container.py", llama, tmp_path / "npz", "npz").returncode == 0
    path = tmp_path / "npz" / "weights.npz"
    with zipfile.ZipFile(path) as archive:
        name = archive.namelist()[0]
    content = bytearray(path.read_bytes())
    content[content.index(b"\x93NUMPY") + 130] ^= 1
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        np.load(path)[name.removesuffix(".npy")]


def test_an_npz_without_its_checksums_is_not_written():
    """Blocks that are shared are never read, so that their checksums are not known."""
    program = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
from npz_container import frame, place
from porter.containers.contract import Placement
from porter.dtypes import DTYPES
from porter.errors import UnsupportedError
((file,), _) = place([("w", DTYPES["F32"], (3,))], Placement("weights.npz"))
assert frame(file, {{"w": 5}})
try:
    frame(file, {{}})
except UnsupportedError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "the checksum of w is not known" in done.stdout, done.stderr


@pytest.mark.parametrize("example", ["zip_source.py", "npz_container.py"])
def test_an_example_is_short(example):
    assert len((EXAMPLES / example).read_text("utf-8").splitlines()) < 120
