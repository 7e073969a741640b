"""`porter check s3://…`: an output in a bucket against its receipt, by sha256 or by the parts' CRC-32."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

import porter
from porter.api.convert import prepare, receipt
from porter.errors import MalformedError, UnsupportedError
from porter.execution.cluster.cluster_driver import ClusterDriver
from porter.execution.cluster.divide import Division
from porter.execution.publish import publish_plan
from porter.execution.run_options import RunOptions
from porter.sources.buckets.bucket_address import parse_address

spec = importlib.util.spec_from_file_location("check_models", Path(__file__).parent / "models.py")
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)


class Here:
    """Tasks in this process, in the place of a cluster."""

    def map(self, function, shared, items, watch):
        for item in items:
            yield function(shared, *item)


def in_parts(source, out):
    """An output whose large file nobody has hashed whole."""
    prepared = prepare(source, to="litgpt")
    publish_plan(
        prepared.plan,
        prepared.opened.checkpoint.source,
        parse_address(str(out)) or out,
        options=RunOptions(),
        receipt=lambda made: receipt(prepared, made),
        driver=ClusterDriver(Here(), Division(5 << 20, 5 << 20, 5 << 20)),
    )


@pytest.fixture
def source(tmp_path):
    return models.checkpoint(tmp_path / "model", vocab=30_000)


def replaced(bucket, key, at):
    """An object with one bit another one."""
    content = bytearray(bucket.read(key))
    content[at] ^= 1
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=bytes(content))


@pytest.mark.parametrize("options", [{"to": "litgpt"}, {"to": "keras"}], ids=["litgpt", "keras"])
def test_an_output_that_is_as_it_was_written(bucket, source, options):
    out = f"{bucket.url}/out"
    porter.convert(source, out, **options)
    found = porter.check(out)
    assert (found.verdict, found.exit_code) == ("verified", 0)
    assert all(file.sha256 for file in found.files)
    # Negative controls: one bit, one byte more, one file less, one more.
    weights = next(file.name for file in found.files if file.size > 1 << 20)
    replaced(bucket, f"out/{weights}", -5)
    changed = porter.check(out)
    assert (changed.verdict, changed.exit_code) == ("differs", 3)
    assert [file.name for file in changed.files if file.state == "changed"] == [weights]
    assert porter.check(out, quick=True).verdict != "differs", "sizes alone do not show it"
    bucket.client.put_object(Bucket=bucket.name, Key="out/new.json", Body=b"{}")
    bucket.client.delete_object(Bucket=bucket.name, Key=f"out/{weights}")
    states = {file.name: file.state for file in porter.check(out).files}
    assert (states["new.json"], states[weights]) == ("added", "missing")
    replaced(bucket, "out/porter-receipt.json", 40)
    with pytest.raises(MalformedError):
        porter.check(out)
    bucket.client.delete_object(Bucket=bucket.name, Key="out/porter-receipt.json")
    with pytest.raises(UnsupportedError, match="holds no"):
        porter.check(out)


@pytest.mark.parametrize("kind", ["bucket", "shared"])
def test_what_was_made_in_parts_is_verified_by_its_crc_and_can_be_recorded(bucket, source, tmp_path, kind):
    out = f"{bucket.url}/out" if kind == "bucket" else tmp_path / "out"
    in_parts(source, out)
    found = porter.check(out)
    (large,) = [file for file in found.files if file.name == "lit_model.safetensors"]
    assert found.verdict == "verified" and "CRC-32" in large.detail
    recorded = porter.check(out, record=True)
    assert recorded.recorded == ("the digest of lit_model.safetensors",)

    def raw(name):
        return bucket.read(f"out/{name}") if kind == "bucket" else (out / name).read_bytes()

    entry = json.loads(raw("porter-receipt.json"))["files"]["lit_model.safetensors"]
    assert entry["sha256"] == "sha256:" + hashlib.sha256(raw("lit_model.safetensors")).hexdigest()
    assert len(entry["parts"]) > 1 and entry["crc32"], "what was there is kept"
    assert porter.check(out).files[0].detail is None
    # Negative control: the CRC-32 shows what is another.
    if kind == "bucket":
        bucket.client.delete_object(Bucket=bucket.name, Key="out/porter-receipt.json")
        for name in bucket.names("out/"):
            bucket.client.delete_object(Bucket=bucket.name, Key=name)
        in_parts(source, out)
        replaced(bucket, "out/lit_model.safetensors", 7_000_000)
        assert porter.check(out).verdict == "differs"


def test_digest_always_reads_again_what_nobody_has_hashed(bucket, source, monkeypatch):
    monkeypatch.setattr(
        "porter.api.convert.cluster_driver",
        lambda on, stack: ClusterDriver(Here(), Division(5 << 20, 5 << 20, 5 << 20)),
    )
    out = f"{bucket.url}/out"
    done = porter.convert(source, out, to="litgpt", run_options=RunOptions(on="ray", digest="always"))
    digest = "sha256:" + hashlib.sha256(bucket.read("out/lit_model.safetensors")).hexdigest()
    assert done.digests["lit_model.safetensors"] == digest
    entry = json.loads(bucket.read("out/porter-receipt.json"))["files"]["lit_model.safetensors"]
    assert entry["sha256"] == digest and len(entry["parts"]) > 1


def test_the_command(bucket, source):
    out = f"{bucket.url}/out"
    porter.convert(source, out, to="litgpt")
    ran = bucket.porter("check", out)
    assert ran.returncode == 0 and "each as it was written" in ran.stdout
    replaced(bucket, "out/lit_model.safetensors", -1)
    ran = bucket.porter("check", out)
    assert ran.returncode == 3 and "changed" in ran.stdout
