"""Buckets as source and target, by real clients on the loopback: the same bytes as on a disk, or nothing.

The oracle is a conversion between directories, whose own tests hold it against the frameworks.
"""

import hashlib
import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest

import porter
from porter.errors import AccessError, ChangedError, PorterError, UnsupportedError, UsageError
from porter.execution.sinks import bucket_writer, claim
from porter.execution.watch import Watch
from porter.sources.buckets import bucket_errors, bucket_source

WEIGHTS = (".safetensors", ".pth", ".h5")


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checkpoint = _load("models").checkpoint


@pytest.fixture
def source(tmp_path):
    return checkpoint(tmp_path / "model")


@pytest.fixture
def large(tmp_path):
    """Some parts of the smallest size that S3 takes."""
    return checkpoint(tmp_path / "large", vocab=90_000)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(bucket_writer, "PART", 5 << 20)


def digests(folder):
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.suffix in WEIGHTS
    }


def bucket_digests(bucket, folder):
    return {
        key.rpartition("/")[2]: hashlib.sha256(bucket.read(key)).hexdigest()
        for key in bucket.names(f"{folder}/")
        if key.endswith(WEIGHTS)
    }


OPTIONS = [
    {"to": "litgpt"},
    {"to": "litgpt", "container": "pth"},
    {"to": "litgpt-legacy"},
    {"to": "hf", "max_shard_size": "100KB"},
    {"to": "keras"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options.values()))
def test_to_and_from_buckets_come_the_bytes_of_a_local_run(bucket, source, tmp_path, options):
    there = bucket.fill(source, "model")
    porter.convert(source, tmp_path / "near", **options)
    expected = digests(tmp_path / "near")
    assert expected
    porter.convert(there, tmp_path / "from", **options)
    assert digests(tmp_path / "from") == expected
    porter.convert(source, f"{bucket.url}/to", **options)
    assert bucket_digests(bucket, "to") == expected
    done = porter.convert(there, f"{bucket.url}/deep/both", **options)
    assert bucket_digests(bucket, "deep/both") == expected
    assert {name: done.digests[name] for name in expected} == {n: f"sha256:{d}" for n, d in expected.items()}
    names = {path.name for path in (tmp_path / "near").iterdir()}
    assert {key.removeprefix("to/") for key in bucket.names("to/")} == names
    assert bucket.uploads() == []
    receipt = json.loads(bucket.read("to/porter-receipt.json"))
    for name in expected:
        assert receipt["files"][name]["crc32"] == f"{zlib.crc32(bucket.read(f'to/{name}')):08x}"


def test_what_is_asked_for_is_megabytes(bucket, large):
    """A table of 24 MB is written twice: never a request for as little as the kernels move at a time."""
    there = bucket.fill(large, "model")
    bucket.server.forget()
    porter.convert(there, f"{bucket.url}/out", to="litgpt")
    ranges = [request.range for request in bucket.server.of("get", "model-00001") if request.range]
    sizes = [stop - start for start, stop in ranges]
    big = [size for size in sizes if size > 1 << 20]
    stored = (large / "model-00001-of-00002.safetensors").stat().st_size
    assert max(sizes) == bucket_source.REQUEST
    assert stored <= sum(big) + 200_000
    assert sum(sizes) < 2.1 * stored, "each byte comes once for each place that it goes to"
    assert len(big) <= 2 * (stored // bucket_source.REQUEST + 3)
    # Negative control: the copies themselves move less than that at a time.
    from porter.execution.kernels.extents import BUFFER

    assert min(big) > BUFFER


def test_a_source_that_is_replaced_on_the_way_is_noticed(bucket, source, tmp_path):
    there = bucket.fill(source, "model")
    checkpoint(tmp_path / "other", seed=1)

    def replace(name):
        bucket.fill(tmp_path / "other", "model")

    for out in (tmp_path / "out", f"{bucket.url}/out"):
        bucket.fill(source, "model")
        with pytest.raises(ChangedError, match="not the file that was planned for"):
            porter.convert(there, out, to="litgpt", watch=Watch(moving=replace))
    assert not (tmp_path / "out").exists()
    assert bucket.names("out/") == [] and bucket.uploads() == []


def test_one_file_of_a_folder(bucket, source, tmp_path):
    bucket.fill(source, "model")
    other = checkpoint(tmp_path / "other", seed=3)
    porter.convert(other, f"{bucket.url}/model-b", to="hf")
    with pytest.raises(PorterError, match="there is nothing"):
        porter.inspect(f"{bucket.url}/model/none.safetensors/more")
    found = porter.inspect(f"{bucket.url}/model-b/model.safetensors")
    assert found.label == "model-b"


REGION = "<Region>eu-central-1</Region>"


@pytest.mark.parametrize(
    ("status", "code", "more", "kind", "exit_code", "words"),
    [
        (403, "AccessDenied", "", AccessError, 4, "no permission"),
        (401, "Unauthorized", "", AccessError, 4, "does not know who asks"),
        (403, "InvalidAccessKeyId", "", AccessError, 4, "does not know who asks"),
        (301, "PermanentRedirect", REGION, PorterError, 1, "another region"),
        (400, "AuthorizationHeaderMalformed", REGION, PorterError, 1, "another region"),
    ],
)
def test_refusals_have_each_their_own_error(bucket, source, status, code, more, kind, exit_code, words):
    there = bucket.fill(source, "model")
    answer = sys.modules["s3_server"].Answer(status, code, more)
    bucket.server.fault = lambda request: answer
    for run in (
        lambda: porter.inspect(there),
        lambda: porter.convert(source, f"{bucket.url}/out", to="litgpt"),
    ):
        with pytest.raises(kind, match=words) as caught:
            run()
        assert caught.value.exit_code == exit_code
        assert "secret" not in str(caught.value)
        if more and "redirect" not in str(caught.value):
            assert "AWS_REGION=eu-central-1" in str(caught.value)


def test_no_bucket_no_folder_and_no_client(bucket, source, monkeypatch):
    for address in ("s3://nobody-has-this/model", f"{bucket.url}/nothing"):
        with pytest.raises(PorterError, match="there is no") as caught:
            porter.inspect(address)
        assert caught.value.exit_code == 1
    with pytest.raises(PorterError, match="there is no bucket 'nobody-has-this'"):
        porter.convert(source, "s3://nobody-has-this/out", to="litgpt")
    for address in ("gs://bucket/out", "az://account/container/out", "https://host/out"):
        with pytest.raises(UnsupportedError, match="does not write to"):
            porter.convert(source, address, to="litgpt")
    for address in ("s3://", "s3://b/../x", "az://account", "https://user:pass@host/x", "https://h/x?key=1"):
        with pytest.raises(UsageError) as refused:
            porter.inspect(address)
        assert "pass@" not in str(refused.value)
    with pytest.raises(UsageError, match="whole bucket"):
        porter.convert(source, bucket.url, to="litgpt")
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(UnsupportedError, match=r"the extra cloud"):
        porter.inspect(f"{bucket.url}/model")
    monkeypatch.setitem(sys.modules, "boto3", None)
    from porter.execution.sinks import multipart

    monkeypatch.setattr(multipart, "_client", multipart._client.__wrapped__)
    with pytest.raises(UnsupportedError, match=r"the extra cloud"):
        porter.convert(source, f"{bucket.url}/out", to="litgpt")


def test_the_order_of_a_commit(bucket, source):
    porter.convert(source, f"{bucket.url}/out", to="hf", max_shard_size="200KB")
    done = [request.key.removeprefix("out/") for request in bucket.server.of("complete")]
    kinds = [
        "weights"
        if name.endswith(".safetensors")
        else "receipt"
        if name == "porter-receipt.json"
        else "config"
        if name in ("config.json", "model.safetensors.index.json")
        else "side"
        for name in done
    ]
    assert kinds == sorted(kinds, key=["weights", "side", "config", "receipt"].index)
    assert set(kinds) == {"weights", "side", "config", "receipt"}
    first = bucket.server.log.index(bucket.server.of("complete")[0])
    last = max(i for i, request in enumerate(bucket.server.log) if request.verb == "part")
    assert last < first, "nothing can be read before everything has come"


def test_what_is_there_is_refused_and_replaced_only_by_force(bucket, source, tmp_path):
    out = f"{bucket.url}/out"
    bucket.client.put_object(Bucket=bucket.name, Key="out/mine.txt", Body=b"x")
    with pytest.raises(UsageError, match="not empty"):
        porter.convert(source, out, to="litgpt")
    with pytest.raises(UsageError, match="not written by porter"):
        porter.convert(source, out, to="litgpt", force=True)
    assert bucket.names() == ["out/mine.txt"]
    bucket.client.delete_object(Bucket=bucket.name, Key="out/mine.txt")
    porter.convert(source, out, to="hf", max_shard_size="100KB")
    with pytest.raises(UsageError, match="not empty"):
        porter.convert(source, out, to="litgpt")
    bucket.server.forget()
    porter.convert(source, out, to="litgpt", force=True)
    removed = [r.key for r in bucket.server.of("delete", "out/") if "claim" not in r.key]
    assert removed[0] == "out/porter-receipt.json", "what makes the old one readable goes first"
    porter.convert(source, tmp_path / "near", to="litgpt")
    assert bucket_digests(bucket, "out") == digests(tmp_path / "near"), "no shard of the old one is left"


@pytest.mark.parametrize("force", [False, True])
def test_of_two_at_once_one_is_refused(bucket, source, tmp_path, force):
    out, begun, go, ended = f"{bucket.url}/out", threading.Event(), threading.Event(), []
    if force:
        porter.convert(source, out, to="litgpt")

    def wait(name):
        begun.set()
        assert go.wait(60)

    def first():
        ended.append(porter.convert(source, out, to="litgpt", force=force, watch=Watch(moving=wait)))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(60)
    with pytest.raises(UsageError, match="another porter is writing"):
        porter.convert(source, out, to="hf", force=force)
    go.set()
    thread.join(60)
    porter.convert(source, tmp_path / "near", to="litgpt")
    assert ended and bucket_digests(bucket, "out") == digests(tmp_path / "near")


def test_an_object_that_comes_between_is_never_overwritten(bucket, source):
    """The last look has found nothing; the write itself is conditional."""

    def intrude(request):
        if request.verb == "complete" and request.key.endswith("lit_model.safetensors"):
            bucket.server.fault = None
            bucket.client.put_object(Bucket=bucket.name, Key=request.key, Body=b"theirs")

    bucket.server.fault = intrude
    with pytest.raises(PorterError):
        porter.convert(source, f"{bucket.url}/out", to="litgpt")
    assert bucket.read("out/lit_model.safetensors") == b"theirs"
    assert bucket.names() == ["out/lit_model.safetensors"] and bucket.uploads() == []


def test_a_commit_that_fails_is_taken_back(bucket, source, monkeypatch):
    monkeypatch.setattr(bucket_errors, "PAUSE_SECONDS", 0.001)
    answer = sys.modules["s3_server"].Answer(403, "AccessDenied")
    bucket.server.fault = lambda r: answer if r.verb == "complete" and "config" in r.key else None
    with pytest.raises(AccessError):
        porter.convert(source, f"{bucket.url}/out", to="litgpt")
    assert len(bucket.server.of("complete", "lit_model")) == 1, "it had been made readable"
    assert bucket.names() == [] and bucket.uploads() == []


def test_an_answer_that_is_lost_is_no_failure(bucket, source, tmp_path):
    """The store has done what was asked, and says 500: the next try is refused, and is ours all the same."""
    lost = set()

    def lose(request):
        kind = request.verb, request.key
        if request.verb in ("complete", "put", "abort") and kind not in lost:
            lost.add(kind)
            return sys.modules["s3_server"].Answer(500, performed=True)
        return None

    bucket.server.fault = lose
    porter.convert(source, f"{bucket.url}/out", to="litgpt")
    bucket.server.fault = None
    porter.convert(source, tmp_path / "near", to="litgpt")
    assert {kind for kind, _ in lost} >= {"complete", "put"}
    assert bucket_digests(bucket, "out") == digests(tmp_path / "near")
    assert bucket.uploads() == [] and all("claim" not in key for key in bucket.names())


# Stops a run in the middle of its parts, in a process of its own.
PROGRAM = """
import os, signal, sys
from porter.execution.sinks import bucket_writer, bucket
bucket_writer.PART = bucket.PART = bucket.BucketSink.unit_bytes = 5 << 20
bucket._PATIENCE = 1.0
from porter.execution.sinks.claim import Claim
plain, word = Claim.note, sys.argv.pop()
def note(self, upload, part=None):
    plain(self, upload, part)
    if part is not None and part.number == 3:
        self.save()
        os.kill(os.getpid(), getattr(signal, word))
Claim.note = note
from porter.cli import main
main()
"""


def stopped(bucket, word, *arguments):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments), word],
        env=dict(bucket.env),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_interrupted_it_says_how_to_go_on_and_goes_on(bucket, large, tmp_path, small_parts, monkeypatch):
    from porter.execution.sinks.bucket import BucketSink

    monkeypatch.setattr(BucketSink, "unit_bytes", 5 << 20)
    out = f"{bucket.url}/out"
    ran = stopped(bucket, "SIGINT", "convert", large, "--to", "litgpt", "-o", out)
    assert ran.returncode == 130, ran.stderr
    assert "The same command goes on" in ran.stderr
    assert all("claim" in key for key in bucket.names()), "nothing can be read"
    bucket.server.forget()
    said = []
    porter.convert(large, out, to="litgpt", watch=Watch(notice=said.append))
    porter.convert(large, tmp_path / "near", to="litgpt")
    assert bucket_digests(bucket, "out") == digests(tmp_path / "near")
    assert any("going on" in text for text in said)
    numbers = {r.query["partNumber"][0] for r in bucket.server.of("part", "lit_model")}
    parts = -(-(tmp_path / "near" / "lit_model.safetensors").stat().st_size // (5 << 20))
    assert 0 < len(numbers) <= parts - 3, "what was sent is not sent again"
    assert bucket.uploads() == [] and all("claim" not in key for key in bucket.names())


def test_what_an_interrupted_run_keeps_can_be_dropped_by_what_it_says(bucket, large):
    ran = stopped(bucket, "SIGINT", "convert", large, "--to", "litgpt", "-o", f"{bucket.url}/deep/out")
    assert ran.returncode == 130
    assert f"`porter doctor --clean {bucket.url}/deep` drops them" in ran.stderr
    assert bucket.uploads() == ["deep/out/lit_model.safetensors"]
    cleaned = bucket.porter("doctor", "--clean", f"{bucket.url}/deep")
    assert cleaned.returncode == 0 and "is removed: 1 uploads" in cleaned.stderr
    assert bucket.names() == [] and bucket.uploads() == []


def test_interrupted_it_does_not_wait_for_a_store_that_hangs(bucket, large):
    go = threading.Event()
    bucket.server.fault = lambda r: (
        r.verb == "part" and int(r.query["partNumber"][0]) > 3 and go.wait(40) and None
    )
    began = time.monotonic()
    ran = stopped(bucket, "SIGINT", "convert", large, "--to", "litgpt", "-o", f"{bucket.url}/out")
    took = time.monotonic() - began
    go.set()
    assert (
        ran.returncode == 130 and "The same command goes on" in ran.stderr and "Traceback" not in ran.stderr
    )
    assert took < 25, "and not 40 s"
    assert bucket.names("out/") == [] and bucket.names() == [".out.porter-claim.json"]


def test_interrupted_with_no_resume_it_keeps_nothing(bucket, large):
    ran = stopped(
        bucket, "SIGINT", "convert", large, "--to", "litgpt", "-o", f"{bucket.url}/out", "--no-resume"
    )
    assert ran.returncode == 130 and "goes on" not in ran.stderr
    assert bucket.names() == [] and bucket.uploads() == []


def test_what_was_kept_of_another_version_of_the_source_is_not_gone_on_with(
    bucket, large, tmp_path, small_parts, monkeypatch
):
    from porter.execution.sinks.bucket import BucketSink

    monkeypatch.setattr(BucketSink, "unit_bytes", 5 << 20)
    there, out = bucket.fill(large, "model"), f"{bucket.url}/out"
    assert stopped(bucket, "SIGKILL", "convert", there, "--to", "litgpt", "-o", out).returncode < 0
    other = checkpoint(tmp_path / "other", vocab=90_000, seed=7)
    bucket.fill(other, "model")
    said = []
    porter.convert(there, out, to="litgpt", watch=Watch(notice=said.append))
    assert any("started anew: another plan" in text for text in said)
    porter.convert(other, tmp_path / "near", to="litgpt")
    assert bucket_digests(bucket, "out") == digests(tmp_path / "near")
    assert bucket.uploads() == []


def test_killed_it_leaves_nothing_readable_and_the_doctor_ends_it(bucket, large):
    out = f"{bucket.url}/deep/out"
    ran = stopped(bucket, "SIGKILL", "convert", large, "--to", "litgpt", "-o", out)
    assert ran.returncode == -signal.SIGKILL
    assert bucket.names() == ["deep/.out.porter-claim.json"]
    assert bucket.uploads() == ["deep/out/lit_model.safetensors"]
    theirs = bucket.client.create_multipart_upload(Bucket=bucket.name, Key="deep/theirs.bin")
    for place in (bucket.url, f"{bucket.url}/deep"):
        seen = bucket.porter("doctor", place)
        assert "1 unfinished uploads" in seen.stdout and "another program's" in seen.stdout, seen.stdout
    cleaned = bucket.porter("doctor", "--clean", bucket.url)
    assert cleaned.returncode == 0 and "is removed: 1 uploads" in cleaned.stderr
    assert "left alone" in cleaned.stderr
    assert bucket.names() == [] and bucket.uploads() == ["deep/theirs.bin"]
    bucket.client.abort_multipart_upload(
        Bucket=bucket.name, Key="deep/theirs.bin", UploadId=theirs["UploadId"]
    )
    assert "nothing is left behind" in bucket.porter("doctor", bucket.url).stdout


def test_the_doctor_leaves_a_run_alone_that_is_at_work(bucket, source, monkeypatch):
    out, said = f"{bucket.url}/out", []

    def look(name):
        if not said:
            said.append(bucket.porter("doctor", "--clean", bucket.url).stderr)

    porter.convert(source, out, to="litgpt", watch=Watch(moving=look))
    assert "another porter is writing" in said[0]
    assert "out/porter-receipt.json" in bucket.names()
    # Negative control: one on another machine that has not been heard of for long is over.
    left = claim.Claimed({"state": "writing", "host": "elsewhere", "pid": 1}, "x", claim.STALE + 1)
    assert not left.in_use
    assert claim.Claimed({"state": "writing", "host": "elsewhere", "pid": 1}, "x", 1.0).in_use


def test_a_run_whose_claim_was_taken_publishes_nothing(bucket, source):
    out = f"{bucket.url}/out"

    def rob(name):
        bucket.client.put_object(Bucket=bucket.name, Key=".out.porter-claim.json", Body=b"{}")

    with pytest.raises(PorterError, match="another porter has taken over"):
        porter.convert(source, out, to="litgpt", watch=Watch(moving=rob))
    assert bucket.names("out/") == []


def test_the_command(bucket, source):
    there = bucket.fill(source, "model")
    shown = bucket.porter("inspect", there)
    assert shown.returncode == 0 and "model · gemma (hf) · 2 files" in shown.stdout
    ran = bucket.porter("convert", there, "--to", "litgpt", "-o", f"{bucket.url}/out", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["out"] == f"{bucket.url}/out"
    assert "lit_model.safetensors" in json.loads(ran.stdout)["files"]
    again = bucket.porter("inspect", f"{bucket.url}/out")
    assert "gemma (litgpt)" in again.stdout
    refused = bucket.porter("inspect", there, "--offline")
    assert refused.returncode == 2 and "offline" in refused.stderr


def test_from_the_hub_into_a_bucket(bucket, hub, source, tmp_path):
    """Nothing is stored here on the way, and the Hub is asked for megabytes too."""
    hub.server.add("org/gemma", {path.name: path.read_bytes() for path in sorted(source.iterdir())})
    ran = bucket.porter(
        "convert", "org/gemma", "--to", "keras", "-o", f"{bucket.url}/out", **{**hub.env, **settings(bucket)}
    )
    assert ran.returncode == 0, ran.stderr
    porter.convert(source, tmp_path / "near", to="keras")
    assert bucket_digests(bucket, "out") == digests(tmp_path / "near")
    cached = [path for path in hub.home.rglob("*") if path.is_file() and path.stat().st_size > 50_000]
    assert cached == []
    asked = [request for request in hub.server.log if "safetensors" in request.path]
    assert len(asked) < 250, "29 tensors, and their headers"


def settings(bucket):
    return {name: value for name, value in bucket.env.items() if name.startswith("AWS_")}
