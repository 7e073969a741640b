"""Keras checkpoints as directories, shards and archives: which tensors, where, and what must agree."""

from __future__ import annotations

import importlib
import json
import zipfile
from pathlib import Path

import pytest

from porter.containers.array_files import exported
from porter.containers.checkpoint import open_checkpoint
from porter.containers.keras import keras_files as keras
from porter.errors import MalformedError, UnsupportedError, UsageError
from porter.sources.local import locate

h5py = importlib.import_module("h5py")
np = importlib.import_module("numpy")

ONE, TWO = np.arange(6, dtype="<f4"), np.arange(8, dtype="<f4")


def h5(path: Path, **arrays) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[f"layers/{name}/vars/0"] = array
    return path


def sharded(root: Path, weight_map=None) -> Path:
    h5(root / "model_00000.weights.h5", a=ONE)
    h5(root / "model_00001.weights.h5", b=TWO)
    weight_map = weight_map or {
        "/layers/a/vars": "model_00000.weights.h5",
        "/layers/b/vars": ["model_00001.weights.h5"],
    }
    (root / "model.weights.json").write_text(json.dumps({"weight_map": weight_map}))
    return root


def test_a_preset_is_its_weights_its_config_and_its_tokenizer(tmp_path):
    h5(tmp_path / "model.weights.h5", a=ONE)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metadata.json").write_text('{"parameter_count": 6}')
    (tmp_path / "assets" / "tokenizer").mkdir(parents=True)
    (tmp_path / "assets" / "tokenizer" / "vocabulary.spm").write_bytes(b"model")
    opened = open_checkpoint(locate(tmp_path))
    assert opened.container == "hdf5"
    assert list(opened.tensors) == ["layers/a/vars/0"]
    assert opened.files["assets/tokenizer/vocabulary.spm"].read_bytes() == b"model"
    assert "config.json" in opened.files


def test_a_tokenizer_that_leads_out_of_the_preset_is_refused(tmp_path):
    root = tmp_path / "preset"
    (root / "assets" / "tokenizer").mkdir(parents=True)
    h5(root / "model.weights.h5", a=ONE)
    (tmp_path / "elsewhere").write_bytes(b"secret")
    (root / "assets" / "tokenizer" / "vocabulary.spm").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MalformedError, match="leads out of the checkpoint"):
        open_checkpoint(locate(root))


@pytest.mark.parametrize("count", [5, 7, "6", 6.5])
def test_metadata_must_count_the_parameters(tmp_path, count):
    h5(tmp_path / "model.weights.h5", a=ONE)
    (tmp_path / "metadata.json").write_text(json.dumps({"parameter_count": count}))
    with pytest.raises(MalformedError) as caught:
        keras.read_directory(tmp_path)
    assert f"counts {count!r} parameters, the tensors hold 6" in str(caught.value)


def test_optimizer_and_seeds_are_not_counted(tmp_path):
    path = h5(tmp_path / "model.weights.h5", a=ONE)
    with h5py.File(path, "a") as file:
        file["optimizer/vars/0"] = np.int64(1)
        file["layers/a/seed_generator/vars/0"] = np.arange(2, dtype="<u4")
    (tmp_path / "metadata.json").write_text('{"parameter_count": 6}')
    assert len(keras.read_directory(tmp_path)[0].tensors) == 3


def test_two_weight_files_need_a_name(tmp_path):
    h5(tmp_path / "a.weights.h5", a=ONE)
    assert len(open_checkpoint(locate(tmp_path)).headers) == 1
    h5(tmp_path / "b.weights.h5", b=TWO)
    with pytest.raises(UsageError, match="more than one set") as error:
        open_checkpoint(locate(tmp_path))
    assert "name the file" in error.value.hint
    assert list(open_checkpoint(locate(tmp_path / "b.weights.h5")).tensors) == ["layers/b/vars/0"]


# --- shards ------------------------------------------------------------------------------------------


def test_shards_together_hold_the_tensors(tmp_path):
    headers = keras.read_directory(sharded(tmp_path))
    assert [(h.file, [t.name for t in h.tensors]) for h in headers] == [
        ("model_00000.weights.h5", ["layers/a/vars/0"]),
        ("model_00001.weights.h5", ["layers/b/vars/0"]),
    ]


def test_a_missing_shard_is_named(tmp_path):
    sharded(tmp_path)
    (tmp_path / "model_00001.weights.h5").unlink()
    with pytest.raises(MalformedError, match=r"shard model_00001\.weights\.h5 is missing"):
        keras.read_directory(tmp_path)


A, B = "model_00000.weights.h5", "model_00001.weights.h5"


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"/layers/a/vars": A, "/layers/b/vars": A, "/layers/c/vars": B}, "expected only groups"),
        ({"/layers/a/vars": [A, B], "/layers/b/vars": B}, "found none"),
        ({"/layers/a/vars": A, "/layers/b/vars": B, "/layers/c/vars": B}, "found none"),
        ({"/layers/a/vars": A, "layers/a/vars": A, "/layers/b/vars": B}, "once, found it twice"),
        ({"/layers/a/vars": A, "/layers/b/vars": "../x.h5"}, "is in another directory"),
        ({"/layers/a/vars": A, "/layers/b/vars": ".."}, "has '..'"),
        ({"/layers/a/vars": A, "/layers/b/vars": []}, "expected file names"),
        ({"/layers/a/vars": A, "/layers/b/vars": 3}, "expected file names"),
        ([], "an object called weight_map"),
    ],
)
def test_an_index_that_disagrees_with_the_shards_is_refused(tmp_path, weight_map, reason):
    sharded(tmp_path)
    (tmp_path / "model.weights.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(MalformedError) as caught:
        keras.read_directory(tmp_path)
    assert reason in str(caught.value)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    sharded(tmp_path, {"/layers/a/vars": [A, B], "/layers/b/vars": B})
    h5(tmp_path / B, a=ONE, b=TWO)
    with pytest.raises(MalformedError, match="once, found it in"):
        keras.read_directory(tmp_path)


# --- archives ----------------------------------------------------------------------------------------


def archive(path: Path, method: int = zipfile.ZIP_STORED, **texts) -> Path:
    weights = h5(path.with_suffix(".h5"), a=ONE)
    with zipfile.ZipFile(path, "w", method) as file:
        for name, value in texts.items():
            file.writestr(f"{name}.json", json.dumps(value))
        file.write(weights, "model.weights.h5")
    weights.unlink()
    return path


def test_an_archive_is_read_where_it_lies(tmp_path):
    path = archive(tmp_path / "m.keras", config={"class_name": "X"}, metadata={"keras_version": "3"})
    header = keras.read_file(tmp_path, "m.keras")[0]
    assert header.metadata["config.json"] == {"class_name": "X"}
    (tensor,) = header.tensors
    assert path.read_bytes()[tensor.offset : tensor.offset + tensor.nbytes] == ONE.tobytes()


def test_a_compressed_archive_cannot_be_read_where_it_lies(tmp_path):
    archive(tmp_path / "m.keras", zipfile.ZIP_DEFLATED, config={"class_name": "X"})
    with pytest.raises(UnsupportedError) as caught:
        keras.read_file(tmp_path, "m.keras")
    assert "is compressed in the archive" in str(caught.value)
    assert "unzip m.keras" in str(caught.value)


@pytest.mark.parametrize("options", [{"chunks": (1, 2)}, {"compression": "gzip"}, {"fletcher32": True}])
def test_a_chunked_dataset_within_an_archive_is_written_out(tmp_path, options):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["plain"] = ONE
        file.create_dataset("a", data=values, **options)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as file:
        file.writestr("config.json", "{}")
        file.write(tmp_path / "w.h5", "model.weights.h5")
    tensors = {
        tensor.name: tensor for header in keras.read_file(tmp_path, "m.keras") for tensor in header.tensors
    }
    with exported(tmp_path, list(tensors.values()), tmp_path / "beside") as paths:
        found = tensors["a"]
        raw = paths[found.file].read_bytes()
        assert raw[found.offset : found.offset + found.nbytes] == values.tobytes()
        # Negative control: what is plain bytes of the archive is read where it lies.
        assert tensors["plain"].file not in paths


def test_an_archive_without_weights_or_cut_short_is_refused(tmp_path):
    path = archive(tmp_path / "m.keras", metadata={"parameter_count": 9})
    with pytest.raises(MalformedError, match="counts 9 parameters"):
        keras.read_file(tmp_path, "m.keras")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(MalformedError):
        keras.read_file(tmp_path, "m.keras")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(MalformedError, match=r"expected model\.weights\.h5"):
        keras.read_file(tmp_path, "m.keras")
