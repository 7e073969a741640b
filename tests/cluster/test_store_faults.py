"""Sixty faults of a store: the digests are right, or the error is clear, and no upload is left behind."""

import hashlib
import random

import pytest

import porter
from porter.api.leftovers import clean_bucket
from porter.errors import PorterError
from porter.execution.sinks import bucket_writer, multipart
from porter.execution.sinks.bucket import BucketSink
from porter.sources.buckets import bucket_errors
from porter.sources.buckets.bucket_address import parse_address

pytestmark = pytest.mark.cluster

VERBS = ("get", "head", "begin", "part", "complete", "put", "delete", "uploads")
# What passes, and how often it comes; 1000 is for ever.
STATUSES = [
    (500, "InternalError"),
    (503, "SlowDown"),
    (429, "TooManyRequests"),
    (502, ""),
    (408, "RequestTimeout"),
]


def schedule(seed, server):
    """A fault and what it strikes: the request of a kind that is struck first, and how many after it."""
    chance = random.Random(seed)
    status, code = STATUSES[seed % len(STATUSES)]
    kinds = ["status", "status", "lost", "cut", "slow", "gone", "for ever"]
    kind = kinds[seed % len(kinds)]
    verb = {"cut": "get", "slow": "get", "gone": "part"}.get(kind) or chance.choice(VERBS)
    first = chance.randint(1, {"part": 5, "get": 8, "begin": 3, "complete": 3}.get(verb, 1))
    often = {"status": chance.randint(1, 2), "lost": 1, "cut": chance.randint(1, 3), "slow": 2}.get(
        kind, 1000
    )
    count = [0]

    def fault(request):
        if request.verb != verb:
            return None
        count[0] += 1
        if not first <= count[0] < first + often:
            return None
        if kind == "cut":
            return server.Cut(chance.choice([0.0, 0.3, 0.99]))
        if kind == "slow":
            return server.Slow(0.02)
        if kind == "gone":
            return server.Answer(404, "NoSuchUpload")
        return server.Answer(status, code, performed=kind == "lost")

    return kind, verb, fault, count, first


@pytest.fixture
def impatient(monkeypatch):
    """As many tries as ever, with shorter pauses between them."""
    monkeypatch.setattr(bucket_errors, "PAUSE_SECONDS", 0.002)
    monkeypatch.setattr(multipart, "_CLIENT_ATTEMPTS", 1)
    monkeypatch.setattr("porter.sources.buckets.bucket_store._RETRIES", 0)
    monkeypatch.setattr(bucket_writer, "PART", 5 << 20)
    monkeypatch.setattr(BucketSink, "unit_bytes", 5 << 20)
    multipart._client.cache_clear()
    yield
    multipart._client.cache_clear()


@pytest.fixture(scope="module")
def model(tmp_path_factory, checkpoint):
    root = tmp_path_factory.mktemp("faults")
    source = checkpoint(root / "model", vocab=45_000)
    porter.convert(source, root / "near", to="litgpt")
    return source, hashlib.sha256((root / "near" / "lit_model.safetensors").read_bytes()).hexdigest()


STRUCK = set()


@pytest.mark.parametrize("seed", range(60))
def test_a_fault(bucket, model, impatient, s3_server, seed):
    source, expected = model
    there, out = bucket.fill(source, "model"), f"{bucket.url}/out"
    kind, verb, bucket.server.fault, count, first = schedule(seed, s3_server)
    error = None
    try:
        porter.convert(there, out, to="litgpt")
    except PorterError as caught:
        error = caught
    struck = count[0] >= first
    bucket.server.fault = None
    STRUCK.add((kind, verb, struck, error is None))
    names = bucket.names("out/")
    if error is None:
        assert hashlib.sha256(bucket.read("out/lit_model.safetensors")).hexdigest() == expected
        assert "out/porter-receipt.json" in names
    else:
        assert struck and str(error) and error.exit_code in (1, 2, 4, 6), (kind, verb)
        assert kind in ("gone", "for ever") or verb in ("delete", "uploads"), (kind, verb, str(error))
        # What could not be ended while the store was away is noted in the claim.
        clean_bucket(parse_address(bucket.url))
        left = bucket.names("out/")
        assert left == [] or "out/porter-receipt.json" in left, (kind, verb, left)
    assert bucket.uploads() == [], (kind, verb)
    assert all("claim" not in name for name in bucket.names()) or error is None


def test_they_did_strike():
    struck = [entry for entry in STRUCK if entry[2]]
    assert {kind for kind, *_ in struck} == {"status", "lost", "cut", "slow", "gone", "for ever"}
    assert {verb for _, verb, *_ in struck} >= {"get", "begin", "part", "complete", "put"}
    assert any(not well for *_, well in struck) and any(well for *_, well in struck)
