"""Orbax checkpoints: plain arrays are byte ranges, others come through tensorstore; trees are one tree."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from porter.containers.array_files import exported
from porter.containers.array_names import ARRAY
from porter.containers.base import StoredTensor
from porter.containers.checkpoint import open_checkpoint
from porter.containers.orbax.orbax_tree import holds_orbax, read_directory
from porter.containers.orbax.orbax_writer import place
from porter.dtypes import DTYPES
from porter.errors import MalformedError, PorterError, UnsupportedError, UsageError
from porter.sources.local import locate

SHAPE = (5, 3, 4)


def values(shape=SHAPE):
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def plain(root, param, array, **changes):
    """An array as Orbax stores it without compression and without OCDBT."""
    folder = root / param
    folder.mkdir(parents=True)
    stated = {
        "zarr_format": 2,
        "shape": list(array.shape),
        "chunks": list(array.shape),
        "dtype": "<f4",
        "order": "C",
        "compressor": None,
        "filters": None,
        "fill_value": None,
        "dimension_separator": ".",
        **changes,
    }
    (folder / ".zarray").write_text(json.dumps(stated))
    (folder / ".".join("0" * array.ndim)).write_bytes(array.tobytes())


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "checkpoint"
    root.mkdir()
    (root / "_METADATA").write_text("{}")
    return root


@pytest.fixture
def tensorstore():
    return importlib.import_module("tensorstore")


def written(tensorstore, root, param, array, *, database=True, chunks=None, driver="zarr"):
    """An array as Orbax stores it by default: in OCDBT, compressed."""
    kvstore = {"driver": "file", "path": f"{root}/"}
    if database:
        kvstore = {"driver": "ocdbt", "base": kvstore, "path": f"{param}/"}
    else:
        kvstore["path"] += f"{param}/"
    spec = {"driver": driver, "kvstore": kvstore}
    if driver == "zarr":
        spec["metadata"] = {"chunks": list(chunks or array.shape), "compressor": {"id": "zstd", "level": 1}}
    options = {"dtype": array.dtype.name, "shape": array.shape, "create": True, "open": True}
    tensorstore.open(spec, **options).result().write(array).result()


def read(root, header):
    """The bytes of a header's only tensor, row-major."""
    (tensor,) = header.tensors
    with exported(root, header.tensors, root.parent / "arrays") as arrays:
        raw = (arrays.get(tensor.file) or root / tensor.file).read_bytes()
    return raw[tensor.offset : tensor.offset + tensor.nbytes]


def test_a_plain_array_is_a_range_of_a_file(root):
    plain(root, "layer_0.attn.q_einsum.w", values())
    (header,) = read_directory(root)
    (tensor,) = header.tensors
    assert tensor == StoredTensor(
        "layer_0/attn/q_einsum/w", DTYPES["F32"], SHAPE, "layer_0.attn.q_einsum.w/0.0.0", 0
    )
    assert read(root, header) == values().tobytes()


@pytest.mark.parametrize(
    "changes", [{"compressor": {"id": "zstd", "level": 1}}, {"order": "F"}, {"chunks": [5, 3, 2]}]
)
def test_what_is_not_plain_is_no_range(root, changes):
    plain(root, "w", values(), **changes)
    assert read_directory(root)[0].tensors[0].file == f"{ARRAY}w"


@pytest.mark.parametrize("stated", [{}, {"store_array_data_equal_to_fill_value": False}])
def test_a_chunk_that_was_left_out_is_the_fill_value_and_said(root, tensorstore, stated):
    (root / "_METADATA").write_text(json.dumps(stated))
    plain(root, "w", values(), fill_value=0.0)
    (root / "w" / "0.0.0").unlink()
    (header,) = read_directory(root)
    assert header.tensors[0].file == f"{ARRAY}w"
    assert "0.0.0 is not stored" in header.notes[0]
    assert read(root, header) == bytes(values().nbytes)


@pytest.mark.parametrize("chunks", [(5, 3, 4), (2, 3, 2)])
@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
def test_a_chunk_that_is_lost_is_named(root, tensorstore, chunks, driver):
    (root / "_METADATA").write_text('{"store_array_data_equal_to_fill_value": true}')
    written(tensorstore, root, "a.w", values(), database=False, chunks=chunks, driver=driver)
    (header,) = read_directory(root)
    assert read(root, header) == values().tobytes()
    lost = sorted(path for path in (root / "a.w").rglob("*") if path.is_file() and path.name[0].isdigit())[-1]
    lost.unlink()
    with pytest.raises(MalformedError, match="a/w is not complete") as refused:
        read_directory(root)
    assert lost.relative_to(root / "a.w").as_posix() in refused.value.cause
    # Lost in between, after the plan was made.
    with pytest.raises(MalformedError, match="a/w cannot be read"):
        read(root, header)


@pytest.mark.parametrize("kind", [{"use_ocdbt": False}, {"use_ocdbt": True}])
@pytest.mark.parametrize("zarr3", [False, True])
def test_what_orbax_does_not_restore_is_not_read(tmp_path, monkeypatch, kind, zarr3):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    orbax = importlib.import_module("orbax.checkpoint")
    root = tmp_path / "saved"
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler(use_zarr3=zarr3, **kind)) as saver:
        saver.save(root, args=orbax.args.PyTreeSave({"a": {"w": values()}, "zero": values() * 0}))
    found = {header.tensors[0].name: header for header in read_directory(root)}
    assert read(root, found["a/w"]) == values().tobytes()
    if kind["use_ocdbt"]:
        for path in [path for path in root.rglob("*") if path.parent.name == "d"]:
            path.unlink()
    else:
        (root / "a.w" / ("c/0/0/0" if zarr3 else "0.0.0")).unlink()
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler()) as saver, pytest.raises(Exception):  # noqa: B017
        saver.restore(root)
    with pytest.raises(MalformedError):
        read(root, found["a/w"])
    if not kind["use_ocdbt"]:
        with pytest.raises(MalformedError, match="a/w is not complete"):
            read_directory(root)


@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("harm", ["missing", "empty", "cut"])
def test_a_database_without_its_data(tmp_path, root, tensorstore, driver, compressed, harm):
    """Values beyond a kilobyte lie in files of their own, which the manifest only names."""
    noise = np.random.default_rng(0).standard_normal((60, 50)).astype(np.float32)
    codecs = {"codecs": [{"name": "zstd"}] if compressed else []}
    plain = {"compressor": {"id": "zstd"} if compressed else None}
    spec = {
        "driver": driver,
        "kvstore": {"driver": "ocdbt", "base": {"driver": "file", "path": f"{root}/"}, "path": "a.w/"},
        "metadata": plain if driver == "zarr" else codecs,
    }
    tensorstore.open(spec, dtype="float32", shape=noise.shape, create=True).result().write(noise).result()
    (header,) = read_directory(root)
    assert read(root, header) == noise.tobytes()
    data = max(root.rglob("d/*"), key=lambda path: path.stat().st_size)
    assert data.stat().st_size > noise.nbytes / 2, "the values lie outside of the manifest"
    if harm == "missing":
        data.rename(tmp_path / data.name)
    else:
        os.truncate(data, 0 if harm == "empty" else data.stat().st_size // 2)
    with pytest.raises(MalformedError):
        read(root, read_directory(root)[0])


@pytest.mark.peer
def test_a_database_whose_processes_wrote_elsewhere(tmp_path, monkeypatch):
    """Orbax's manifest names files in `ocdbt.process_N`; where Orbax restores nothing, nothing is read."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    orbax = importlib.import_module("orbax.checkpoint")
    noise = np.random.default_rng(0).standard_normal((60, 50)).astype(np.float32)
    root = tmp_path / "saved"
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler(use_ocdbt=True)) as saver:
        saver.save(root, args=orbax.args.PyTreeSave({"a": {"w": noise}}))
    assert read(root, read_directory(root)[0]) == noise.tobytes()
    (process,) = root.glob("ocdbt.process_*")
    process.rename(tmp_path / process.name)
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler()) as saver, pytest.raises(Exception):  # noqa: B017
        saver.restore(root)
    with pytest.raises(MalformedError, match="a/w cannot be read"):
        read(root, read_directory(root)[0])


@pytest.mark.parametrize(
    ("part", "lost"),
    [("manifest.ocdbt", False), ("manifest.ocdbt", True), ("d", False), ("d", True), ("a file in d", False)],
)
def test_a_database_whose_parts_are_elsewhere_or_lost_is_refused(tmp_path, root, tensorstore, part, lost):
    written(tensorstore, root, "a.w", values(), chunks=(2, 3, 2))
    (header,) = read_directory(root)
    assert read(root, header) == values().tobytes()
    path = root / part if part in ("manifest.ocdbt", "d") else next(iter(sorted((root / "d").iterdir())))
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    if not lost:
        path.symlink_to(elsewhere)
    with pytest.raises(PorterError) as refused:
        read(root, read_directory(root)[0])
    assert refused.value.exit_code == 6


def test_each_file_of_a_database_is_needed_or_superseded(tmp_path, root, tensorstore):
    """What is read without one is what is read with it; writes leave some behind that nothing refers to."""
    written(tensorstore, root, "a.w", values(), chunks=(2, 3, 2))
    refused = 0
    for path in sorted((root / "d").iterdir()):
        path.rename(tmp_path / "elsewhere")
        try:
            (header,) = read_directory(root)
            assert read(root, header) == values().tobytes()
        except PorterError:
            refused += 1
        (tmp_path / "elsewhere").rename(path)
    assert refused > 0
    (header,) = read_directory(root)
    assert read(root, header) == values().tobytes()


def test_a_chunk_that_is_a_link_out_is_refused(tmp_path, root, tensorstore):
    written(tensorstore, root, "w", values(), database=False, chunks=(2, 3, 4))
    (header,) = read_directory(root)
    moved = root / "w" / "0.0.0"
    moved.rename(root / "elsewhere")
    moved.symlink_to(root / "elsewhere")
    assert read(root, header) == values().tobytes(), "a link inside is followed"
    (root / "elsewhere").rename(tmp_path / "outside")
    moved.unlink()
    moved.symlink_to(tmp_path / "outside")
    for look in (read_directory, lambda root: read(root, header)):
        with pytest.raises(MalformedError, match="leads out of the checkpoint"):
            look(root)


@pytest.mark.parametrize("chunks", [None, (2, 3, 4), (2, 2, 3)])
@pytest.mark.parametrize("database", [True, False])
@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
def test_arrays_come_through_tensorstore(root, tensorstore, monkeypatch, database, chunks, driver):
    # Small pieces, so that there are several.
    monkeypatch.setattr("porter.containers.array_names.PIECE", 64)
    written(tensorstore, root, "a.w", values(), database=database, chunks=chunks, driver=driver)
    written(tensorstore, root, "b/c.scale", values((7,)), database=database, driver=driver)
    found = {header.tensors[0].name: header for header in read_directory(root)}
    assert set(found) == {"a/w", "b/c/scale"}
    assert found["a/w"].tensors[0].shape == SHAPE
    assert read(root, found["a/w"]) == values().tobytes()
    assert read(root, found["b/c/scale"]) == values((7,)).tobytes()
    assert list(root.parent.iterdir()) == [root], "what was written out is gone again"


def test_a_checkpoint_may_lie_in_a_folder_beside_its_tokenizer(tmp_path, root):
    plain(root, "w", values())
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    opened = open_checkpoint(locate(tmp_path))
    assert (opened.container, set(opened.files)) == ("orbax", {"tokenizer.model"})
    assert opened.tensors["w"].file == "checkpoint/w/0.0.0"


def test_of_two_checkpoints_one_has_to_be_named(tmp_path, root):
    plain(root, "w", values())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "_METADATA").write_text("{}")
    assert holds_orbax(tmp_path)
    with pytest.raises(UsageError, match="2 Orbax checkpoints") as refused:
        read_directory(tmp_path)
    assert refused.value.cause == "found checkpoint, other"


def test_a_managers_root_says_which_steps_there_are(tmp_path):
    for step in (900, 1000):
        folder = tmp_path / "run" / str(step) / "default"
        folder.mkdir(parents=True)
        (folder / "_METADATA").write_text("{}")
        plain(folder, "w", values())
    (tmp_path / "run" / "1000" / "metrics").mkdir()
    with pytest.raises(UsageError, match="2 steps") as refused:
        open_checkpoint(locate(tmp_path / "run"))
    assert refused.value.cause == "found the steps 900, 1000"
    opened = open_checkpoint(locate(tmp_path / "run" / "900"))
    assert opened.tensors["w"].file == "default/w/0.0.0"


@pytest.mark.parametrize("raw", ["", "[1]", '{"shape": [-1]}', '{"shape": "5"}', '{"shape": [1e3]}'])
def test_broken_metadata_are_malformed(root, raw):
    plain(root, "w", values())
    (root / "w" / ".zarray").write_text(raw)
    with pytest.raises(MalformedError):
        read_directory(root)


def test_two_arrays_of_one_name_are_malformed(root):
    plain(root, "a.w", values())
    plain(root, "a/w", values())
    with pytest.raises(MalformedError, match="two arrays"):
        read_directory(root)


def test_an_unknown_dtype_is_unsupported(root):
    plain(root, "w", values(), dtype="<c8")
    with pytest.raises(UnsupportedError, match="dtype"):
        read_directory(root)


def test_a_link_out_of_the_checkpoint_is_not_followed(root):
    plain(root, "w", values())
    outside = root.parent / "outside"
    outside.write_bytes(values().tobytes())
    (root / "w" / "0.0.0").unlink()
    (root / "w" / "0.0.0").symlink_to(outside)
    with pytest.raises(MalformedError, match="leads out"):
        read_directory(root)


def test_without_tensorstore_the_error_names_the_extra(root):
    (root / "manifest.ocdbt").write_bytes(b"")
    code = (
        "import sys; sys.modules['tensorstore'] = None\n"
        "from pathlib import Path\n"
        "from porter.containers.orbax.orbax_tree import read_directory\n"
        "from porter.errors import UnsupportedError\n"
        "try:\n    read_directory(Path(sys.argv[1]))\n"
        "except UnsupportedError as error:\n    print(error.hint)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, env=dict(os.environ)
    )
    assert ran.stdout.strip() == "pip install 'tensorstore>=0.1.60' (the extra orbax)", ran.stderr


def test_what_is_placed_is_read_again(tmp_path):
    """Paths are those of the flat tree: all but the last part in one key."""
    files, small = place([("a/b/w", DTYPES["BF16"], (3, 2)), ("norm", DTYPES["F32"], (4,))])
    root = tmp_path / "out"
    for name, content in small.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    for file in files:
        (root / file.name).write_bytes(bytes(range(file.size)))
    found = {tensor.name: tensor for header in read_directory(root) for tensor in header.tensors}
    assert found == {tensor.name: tensor for file in files for tensor in file.tensors}
    tree = json.loads(small["_METADATA"])["tree_metadata"]
    assert set(tree) == {"('a/b', 'w')", "('norm',)"}


@pytest.mark.peer
def test_orbax_restores_what_is_placed(tmp_path):
    checkpoint = importlib.import_module("orbax.checkpoint")
    files, small = place([("a/b/w", DTYPES["F32"], SHAPE)])
    root = tmp_path / "out"
    for name, content in [*small.items(), *((file.name, values().tobytes()) for file in files)]:
        path = Path(root / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    tree = checkpoint.StandardCheckpointer().restore(root)
    assert np.array_equal(tree["a/b"]["w"], values())


@pytest.mark.peer
@pytest.mark.parametrize("ocdbt", [True, False], ids=["ocdbt", "a file per chunk"])
def test_what_orbax_saves_is_read(tmp_path, ocdbt):
    """Orbax writes with JAX; porter reads shapes from the directory, and the bytes when a plan is run."""
    import orbax.checkpoint as checkpoint

    root = tmp_path / "saved"
    tree = {"transformer": {"layer_0": {"mlp": {"w": values()}}}}
    handler = checkpoint.PyTreeCheckpointHandler(use_ocdbt=ocdbt)
    with checkpoint.Checkpointer(handler) as saver:
        saver.save(root, tree)
    found = {tensor.name: tensor for header in read_directory(root) for tensor in header.tensors}
    assert {name: tensor.shape for name, tensor in found.items()} == {"transformer/layer_0/mlp/w": SHAPE}


def test_a_manifest_of_absurd_size_is_refused_before_tensorstore_reads_it(tmp_path):
    """It would end the process."""
    with (tmp_path / "manifest.ocdbt").open("wb") as stream:
        stream.truncate(20 << 30)
    with pytest.raises(MalformedError, match=r"manifest\.ocdbt is too large"):
        read_directory(tmp_path)
