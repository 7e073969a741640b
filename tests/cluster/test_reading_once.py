"""A tensor that is transposed into a bucket is asked of the source once, whatever the size of a part."""

import json
import tempfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import porter
from porter.errors import PorterError
from porter.execution import spool
from porter.execution.sinks import bucket_writer
from porter.execution.sinks.bucket import BucketSink
from porter.execution.watch import Watch

pytestmark = pytest.mark.cluster

# Rows of the MLP, whose matrices Keras has the other way round: 13.2 MB each.
HIDDEN = 50_000


@pytest.fixture
def there(bucket, tmp_path, checkpoint):
    """A Gemma whose MLP is most of it, in a bucket; and the same on this machine."""
    source = checkpoint(tmp_path / "model")
    for shard in source.glob("*.safetensors"):
        weights = load_file(shard)
        for name in [name for name in weights if ".mlp." in name]:
            shape = (66, HIDDEN) if "down" in name else (HIDDEN, 66)
            weights[name] = np.random.default_rng(len(name)).standard_normal(shape, np.float32)
        save_file(weights, shard, metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"intermediate_size": HIDDEN}))
    return source, bucket.fill(source, "model")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(bucket_writer, "PART", 5 << 20)
    monkeypatch.setattr(BucketSink, "unit_bytes", 5 << 20)


def asked(bucket):
    return sum(r.range[1] - r.range[0] for r in bucket.server.of("get", "model-0") if r.range)


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}], ids=["as it is", "cast"])
def test_each_byte_is_asked_for_once(bucket, there, tmp_path, options, monkeypatch):
    source, address = there
    stored = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    porter.convert(source, tmp_path / "near", to="keras", **options)
    expected = (tmp_path / "near" / "model.weights.h5").read_bytes()
    bucket.server.forget()
    porter.convert(address, f"{bucket.url}/out", to="keras", **options)
    assert bucket.read("out/model.weights.h5") == expected
    assert asked(bucket) < 1.1 * stored
    # The control: without it, once for each unit; that the disk is full is said, and no failure.
    monkeypatch.setattr(spool.shutil, "disk_usage", lambda place: spool.shutil._ntuple_diskusage(1, 1, 0))
    said = []
    bucket.server.forget()
    porter.convert(address, f"{bucket.url}/again", to="keras", watch=Watch(notice=said.append), **options)
    assert bucket.read("again/model.weights.h5") == expected
    assert asked(bucket) > 1.8 * stored and "several times, for want of room" in said[0]


def test_a_temporary_file_that_cannot_be_written_is_named(bucket, there, monkeypatch):
    _, address = there
    plain = tempfile.TemporaryFile

    def full(*given, **more):
        made = plain(*given, **more)

        class Full:
            def __getattr__(self, name):
                return getattr(made, name)

            def __enter__(self):
                return self

            def __exit__(self, *given):
                made.close()

            def write(self, data):
                raise OSError(28, "No space left on device")

        return Full()

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", full)
    with pytest.raises(PorterError, match="cannot be kept in") as caught:
        porter.convert(address, f"{bucket.url}/out", to="keras")
    assert "TMPDIR" in caught.value.hint and caught.value.exit_code == 1
    assert bucket.names("out/") == [] and bucket.uploads() == []
