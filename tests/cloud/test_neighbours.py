"""Outputs beside and within one another, and whose uploads are whose: nothing of another run is touched."""

import importlib.util
import json
import threading
from pathlib import Path

import pytest

import porter
from porter.api.leftovers import clean_bucket, left_in_bucket
from porter.errors import AccessError, PorterError, UsageError
from porter.execution.sinks import claim, multipart
from porter.execution.sinks.bucket import BucketSink
from porter.execution.watch import Watch
from porter.sources.buckets.bucket_address import parse_address
from porter.sources.buckets.bucket_store import s3_endpoint

_spec = importlib.util.spec_from_file_location("models", Path(__file__).parent / "models.py")
models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(models)


@pytest.fixture
def source(tmp_path):
    return models.checkpoint(tmp_path / "model")


def leave(bucket, folder, *, state="stopped", noted=("lit_model.safetensors",)):
    """What a run into a folder leaves that was killed long ago: a claim, and uploads."""
    out = parse_address(f"{bucket.url}/{folder}")
    begun = {name: multipart.begin(out, name) for name in noted}
    content = {
        "state": state,
        "run": "x",
        "host": "elsewhere",
        "files": {name: {"upload": upload.id, "parts": []} for name, upload in begun.items()},
    }
    parent, name = out.parent()
    bucket.client.put_object(
        Bucket=bucket.name, Key=parent.key(claim.claim_name(name)), Body=json.dumps(content).encode()
    )
    return out


def test_an_output_within_one_left_behind_keeps_its_uploads(bucket, source):
    """`out` was left behind, `out/inner` is being written: the doctor ends the uploads of the first alone."""
    leave(bucket, "out")
    said = []

    def look(name):
        if not said:
            said.extend(clean_bucket(parse_address(bucket.url)))

    porter.convert(source, f"{bucket.url}/out/inner", to="litgpt", watch=Watch(moving=look))
    assert any("out is removed: 1 uploads" in text for text in said)
    assert any("out/inner: nothing of it is removed" in text for text in said)
    assert "out/inner/porter-receipt.json" in bucket.names() and bucket.uploads() == []


def test_no_output_is_begun_within_one_that_is_being_written(bucket, source):
    begun, go, ended = threading.Event(), threading.Event(), []

    def wait(name):
        begun.set()
        assert go.wait(60)

    def first():
        ended.append(porter.convert(source, f"{bucket.url}/a/out", to="litgpt", watch=Watch(moving=wait)))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(60)
    try:
        with pytest.raises(UsageError, match=r"another porter is writing s3://.*/a/out\n"):
            porter.convert(source, f"{bucket.url}/a/out/deep/inner", to="hf")
        # Beside it, and under a name that begins as its does, there is room.
        porter.convert(source, f"{bucket.url}/a/out-2", to="hf")
    finally:
        go.set()
        thread.join(60)
    assert ended and bucket.uploads() == []
    names = bucket.names()
    assert "a/out/porter-receipt.json" in names and "a/out-2/porter-receipt.json" in names
    assert not any("inner" in name or "claim" in name for name in names)


def test_force_replaces_no_folder_that_holds_another_output(bucket, source):
    porter.convert(source, f"{bucket.url}/out", to="litgpt")
    porter.convert(source, f"{bucket.url}/out/inner", to="hf")
    before = bucket.names()
    with pytest.raises(UsageError, match="another output lies in") as refused:
        porter.convert(source, f"{bucket.url}/out", to="hf", force=True)
    assert "inner/porter-receipt.json" in refused.value.cause
    assert bucket.names() == before
    porter.convert(source, f"{bucket.url}/out/inner", to="litgpt", force=True)


def test_uploads_of_other_programs_into_the_folder_are_left_alone(bucket, source):
    theirs = bucket.client.create_multipart_upload(Bucket=bucket.name, Key="out/theirs.bin")
    porter.convert(source, f"{bucket.url}/out", to="litgpt")
    assert bucket.uploads() == ["out/theirs.bin"]
    bucket.client.abort_multipart_upload(
        Bucket=bucket.name, Key="out/theirs.bin", UploadId=theirs["UploadId"]
    )


def test_what_a_killed_run_began_and_had_not_noted_is_ended_by_the_next(bucket, source):
    out = leave(bucket, "out")
    multipart.begin(out, "begun-later.safetensors")
    leave(bucket, "out-2")
    porter.convert(source, out.url, to="litgpt")
    assert bucket.uploads() == ["out-2/lit_model.safetensors"]


def test_the_doctor_does_not_end_what_a_run_has_just_taken_over(bucket, monkeypatch):
    out = leave(bucket, "out")
    plain = claim.Claim.take

    def faster(self, before):
        # Another run renews the claim between the doctor's look and its deed.
        parent, name = out.parent()
        bucket.client.put_object(Bucket=bucket.name, Key=parent.key(claim.claim_name(name)), Body=b"{}")
        plain(self, before)

    monkeypatch.setattr(claim.Claim, "take", faster)
    said = clean_bucket(parse_address(bucket.url))
    assert said == (f"another porter is writing {out.url}: nothing of it is removed",)
    assert bucket.uploads() == ["out/lit_model.safetensors"]


def test_a_commit_that_was_overtaken_takes_nothing_back(bucket, source):
    """Asleep in its commit, it wakes when another run has published: what is there is that one's."""
    out = f"{bucket.url}/out"

    def overtake(request):
        if request.verb == "complete" and request.key.endswith("config.yaml"):
            bucket.server.fault = None
            bucket.client.put_object(Bucket=bucket.name, Key=".out.porter-claim.json", Body=b"{}")
            for upload in bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]:
                bucket.client.abort_multipart_upload(
                    Bucket=bucket.name, Key=upload["Key"], UploadId=upload["UploadId"]
                )

    bucket.server.fault = overtake
    with pytest.raises(PorterError):
        porter.convert(source, out, to="litgpt")
    assert "out/lit_model.safetensors" in bucket.names("out/")


def test_a_folder_that_a_console_has_made_is_empty(bucket, source):
    bucket.client.put_object(Bucket=bucket.name, Key="out/", Body=b"")
    porter.convert(source, f"{bucket.url}/out", to="litgpt")
    assert porter.inspect(f"{bucket.url}/out").dialect == "litgpt"
    porter.convert(source, f"{bucket.url}/out", to="hf", force=True)
    assert "out/" in bucket.names()


@pytest.mark.parametrize(
    "out", ["hf://org/name", "s3:/b/out", Path("s3://b/out"), "s3a://b/out", "file:///tmp/x"]
)
def test_what_looks_like_an_address_is_no_directory(source, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is no directory"):
        porter.convert(source, out, to="litgpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    # A name with a colon in it is one all the same.
    porter.convert(source, "a:b", to="litgpt")
    assert (tmp_path / "a:b" / "lit_model.safetensors").is_file()


def test_schemes_are_read_as_in_any_address(bucket, source):
    porter.convert(source, f"S3://{bucket.name}/out", to="litgpt")
    assert "out/porter-receipt.json" in bucket.names()


def test_claims_of_containers_that_share_a_name(monkeypatch):
    """Numbers of processes say nothing across them."""
    gone = {"state": "writing", "host": claim.platform.node(), "pid": 2**22 + 1, "space": claim._space()}
    assert claim._space() and not claim.Claimed(gone, "x", 1.0).in_use
    assert claim.Claimed({**gone, "space": "another"}, "x", 1.0).in_use
    assert not claim.Claimed({**gone, "space": "another"}, "x", claim.STALE + 1).in_use


def test_a_store_is_found_as_boto3_finds_it(tmp_path, monkeypatch, bucket):
    config = tmp_path / "config"
    config.write_text("[profile mine]\nregion = eu-north-1\nendpoint_url = http://127.0.0.1:9\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert s3_endpoint() == bucket.env["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert s3_endpoint() is None
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert s3_endpoint() == "http://127.0.0.1:9"
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    for run in (lambda: porter.inspect(f"{bucket.url}/x"), lambda: left_in_bucket(parse_address(bucket.url))):
        with pytest.raises(AccessError, match="does not know who asks"):
            run()


def test_a_sink_knows_whether_its_parts_cover_a_range():
    """What is kept of an earlier run has to hold every byte of a unit."""
    from porter.execution.sinks.bucket import _covers

    parts = [multipart.SentPart(n, 10 * n, 10 * n + 10, "", 0) for n in (0, 1, 3)]
    assert _covers(parts, 0, 20) and _covers(parts, 5, 15) and _covers(parts, 30, 40)
    assert not _covers(parts, 15, 25) and not _covers(parts, 25, 30) and not _covers(parts, 35, 41)
    assert BucketSink.unit_bytes
