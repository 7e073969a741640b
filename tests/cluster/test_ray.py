"""`--on ray` over two nodes: the bytes of a local run, whatever is killed, interrupted or lost on the way."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest

import porter
from porter.api.convert import prepare, receipt
from porter.errors import DifferenceError, PorterError, UsageError
from porter.execution.cluster.cluster_driver import ClusterDriver
from porter.execution.cluster.divide import MEMORY, Division, divide
from porter.execution.cluster.ray_pool import RayPool
from porter.execution.publish import publish_plan
from porter.execution.run_options import RunOptions
from porter.execution.watch import Watch
from porter.sources.buckets.bucket_address import parse_address

pytestmark = pytest.mark.cluster

SMALL = Division(part=5 << 20, unit=5 << 20, transposed=8 << 20)


@pytest.fixture
def source(tmp_path, checkpoint):
    """Some 24 MB, of which LitGPT's head doubles the most: about ten parts of the least size."""
    return checkpoint(tmp_path / "model", vocab=90_000)


def digests(folder):
    files = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".pth", ".h5")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def on_ray(there, out, *, watch=None, force=False, digest="auto", **options):
    """As `porter convert --on ray`, in parts of the least size."""
    prepared = prepare(there, **options)
    with RayPool() as pool:
        result = publish_plan(
            prepared.plan,
            prepared.opened.checkpoint.source,
            parse_address(str(out)) or out,
            force=force,
            options=RunOptions(on="ray", digest=digest),
            watch=watch,
            receipt=lambda made: receipt(prepared, made),
            driver=ClusterDriver(pool, SMALL),
        )
    return result, pool


def whole(bucket, folder):
    return {
        key.rpartition("/")[2]: hashlib.sha256(bucket.read(key)).hexdigest()
        for key in bucket.names(f"{folder}/")
        if key.endswith((".safetensors", ".pth", ".h5"))
    }


@pytest.mark.parametrize(
    "options",
    [
        {"to": "litgpt"},
        {"to": "litgpt", "container": "pth"},
        {"to": "keras"},
        {"to": "hf", "max_shard_size": "9MB"},
    ],
    ids=lambda options: " ".join(options.values()),
)
def test_the_bytes_of_a_local_run(nodes, bucket, source, tmp_path, options):
    there = bucket.fill(source, "model")
    porter.convert(source, tmp_path / "near", **options)
    expected = digests(tmp_path / "near")
    counted = []
    result, _ = on_ray(
        there, f"{bucket.url}/out", watch=Watch(lambda name, count: counted.append(count)), **options
    )
    assert whole(bucket, "out") == expected
    assert sum(counted) == sum(result.sizes[name] for name in expected)
    on_ray(source, tmp_path / "shared", **options)
    assert digests(tmp_path / "shared") == expected
    assert bucket.uploads() == []
    entries = json.loads(bucket.read("out/porter-receipt.json"))["files"]
    for name in expected:
        raw = bucket.read(f"out/{name}")
        assert entries[name]["crc32"] == f"{zlib.crc32(raw):08x}"
        parts = entries[name]["parts"]
        assert [part["start"] for part in parts] == [0, *(part["end"] for part in parts[:-1])]
        for part in parts:
            own = raw[part["start"] : part["end"]]
            assert part["crc32"] == f"{zlib.crc32(own):08x}"
            assert part["sha256"] == "sha256:" + hashlib.sha256(own).hexdigest()
        wanted = f"sha256:{expected[name]}" if len(parts) == 1 else None
        assert entries[name]["sha256"] == wanted
    assert max(len(entries[name]["parts"]) for name in expected) > 1


def test_both_nodes_work(nodes, bucket, source):
    at_once, most, lock = set(), [0], threading.Lock()

    def watch(request):
        if request.verb == "part":
            number = request.query["partNumber"][0]
            with lock:
                at_once.add(number)
                most[0] = max(most[0], len(at_once))
            time.sleep(0.5)
            with lock:
                at_once.discard(number)

    bucket.server.fault = watch
    on_ray(source, f"{bucket.url}/out", to="litgpt")
    assert most[0] == 2, "each has one processor, and never more than that is under way"


def test_a_node_that_is_killed_in_mid_part(nodes, bucket, source, tmp_path):
    """Two parts are held at the store, one from each node, while the node that is no head dies."""
    there = bucket.fill(source, "model")
    held, lock, dead = [], threading.Lock(), threading.Event()
    victim = next(node for node in nodes.worker_nodes)

    def kill(request):
        if request.verb != "part" or dead.is_set():
            return
        with lock:
            held.append(request.query["partNumber"][0])
            both = len(held) == 2
        if both:
            nodes.remove_node(victim, allow_graceful=False)
            dead.set()
        assert dead.wait(60)

    bucket.server.fault, said = kill, []
    _, pool = on_ray(there, f"{bucket.url}/out", to="litgpt", watch=Watch(notice=said.append))
    bucket.server.fault = None
    nodes.add_node(num_cpus=1, memory=1 << 30, object_store_memory=80 << 20, node_ip_address="127.0.0.2")
    nodes.wait_for_nodes()
    assert len(held) == 2 and pool.lost >= 1, "a part was under way on the node that died"
    assert any("made again" in text for text in said)
    numbers = [r.query["partNumber"][0] for r in bucket.server.of("part", "lit_model")]
    assert any(numbers.count(number) > 1 for number in held), "and was sent once more"
    porter.convert(source, tmp_path / "near", to="litgpt")
    assert whole(bucket, "out") == digests(tmp_path / "near")
    assert bucket.uploads() == []


def test_a_task_that_is_lost_again_and_again_ends_the_run(nodes):
    with RayPool() as pool, pytest.raises(PorterError, match="lost"):
        list(pool.map(_die, None, [(1,)], Watch()))
    assert pool.lost == 4


def _die(shared, item):
    os._exit(1)


def test_a_check_that_fails_publishes_nothing(nodes, bucket, source, tmp_path):
    """A head that is no copy of the embedding, where the config says that it is one."""
    from safetensors.numpy import load_file, save_file

    shard = source / "model-00001-of-00002.safetensors"
    weights = load_file(shard)
    head = weights["model.embed_tokens.weight"].copy()
    head[-1, -1] += 1
    save_file({**weights, "lm_head.weight": head}, shard, metadata={"format": "pt"})
    index = source / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    told["weight_map"]["lm_head.weight"] = shard.name
    index.write_text(json.dumps(told))
    there = bucket.fill(source, "model")
    with pytest.raises(DifferenceError, match="have to be equal"):
        on_ray(there, f"{bucket.url}/out", to="litgpt", tied="omit")
    assert bucket.names("out/") == [] and bucket.uploads() == []
    assert bucket.server.of("part") == [], "checks come before any part"


def test_what_a_task_raises_is_raised(nodes, bucket, source, s3_server):
    there = bucket.fill(source, "model")
    refused = s3_server.Answer(403, "AccessDenied")
    bucket.server.fault = lambda request: refused if request.verb == "part" else None
    with pytest.raises(PorterError, match="no permission") as caught:
        on_ray(there, f"{bucket.url}/out", to="litgpt")
    assert caught.value.exit_code == 4
    assert bucket.names("out/") == [] and bucket.uploads() == []


PROGRAM = """
import os, signal, sys
from porter.execution.cluster import divide, cluster_driver
from porter.execution.sinks.claim import Claim
from porter.execution.sinks.directory import DirectorySink
small = divide.Division(5 << 20, 5 << 20, 8 << 20)
cluster_driver.ClusterDriver.__dataclass_fields__["division"].default_factory = lambda: small
plain_init = cluster_driver.ClusterDriver.__init__
cluster_driver.ClusterDriver.__init__ = lambda self, pool: plain_init(self, pool, small)
word = sys.argv.pop()
count = []
def stop(self):
    count.append(1)
    if len(count) == 3:
        self.save() if isinstance(self, Claim) else self.flush()
        os.kill(os.getpid(), getattr(signal, word))
plain_note, plain_add = Claim.note, DirectorySink.add
def note(self, upload, part=None):
    plain_note(self, upload, part)
    if part is not None:
        stop(self)
def add(self, file, record):
    plain_add(self, file, record)
    stop(self)
Claim.note, DirectorySink.add = note, add
from porter.cli import main
main()
"""


@pytest.mark.parametrize("kind", ["bucket", "shared"])
@pytest.mark.parametrize("word", ["SIGINT", "SIGKILL"])
def test_stopped_it_goes_on_by_the_same_command(nodes, bucket, source, tmp_path, word, kind, ray_environment):
    there = bucket.fill(source, "model")
    out = f"{bucket.url}/out" if kind == "bucket" else tmp_path / "shared"
    command = ["convert", there, "--to", "litgpt", "-o", out, "--on", f"ray={nodes.address}"]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, command), word],
        env={**bucket.env, "RAY_TMPDIR": ray_environment["RAY_TMPDIR"]},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == (130 if word == "SIGINT" else -signal.SIGKILL), ran.stderr
    if word == "SIGINT":
        assert "The same command goes on" in ran.stderr
    assert bucket.names("out/") == [] and not (tmp_path / "shared").exists(), "nothing can be read"
    bucket.server.forget()
    said = []
    on_ray(there, out, to="litgpt", watch=Watch(notice=said.append))
    assert any("going on" in text for text in said), said
    porter.convert(source, tmp_path / "near", to="litgpt")
    expected = digests(tmp_path / "near")
    if kind == "bucket":
        assert whole(bucket, "out") == expected
        parts = len(divide(prepare(source, to="litgpt").plan, SMALL))
        sent = {r.query["partNumber"][0] for r in bucket.server.of("part", "lit_model")}
        assert 0 < len(sent) <= parts - 2
    else:
        assert digests(tmp_path / "shared") == expected
    assert bucket.uploads() == [] and all("claim" not in key for key in bucket.names())


def test_the_command(nodes, bucket, source, tmp_path, ray_environment):
    there = bucket.fill(source, "model")
    env = {"RAY_TMPDIR": ray_environment["RAY_TMPDIR"]}
    ran = bucket.porter(
        "convert", there, "--to", "litgpt", "-o", f"{bucket.url}/out", "--on", f"ray={nodes.address}", **env
    )
    assert ran.returncode == 0, ran.stderr
    porter.convert(source, tmp_path / "near", to="litgpt")
    assert whole(bucket, "out") == digests(tmp_path / "near")
    none = bucket.porter("convert", there, "--to", "hf", "-o", f"{bucket.url}/x", "--on", "kubernetes", **env)
    assert none.returncode == 2 and "--on must be ray" in none.stderr


def test_nothing_waits_for_memory_that_no_node_has(nodes):
    with pytest.raises(UsageError, match="no node of the cluster has the memory"), RayPool(memory=1 << 40):
        pass
    assert MEMORY < 1 << 30


def test_tensors_stay_out_of_what_is_sent(source):
    prepared = prepare(source, to="litgpt")
    tasks = divide(prepared.plan, SMALL)
    stored = sum(path.stat().st_size for path in source.iterdir())
    assert len(tasks) > 8
    assert len(pickle.dumps(tasks)) < stored / 500
    assert len(pickle.dumps(prepared.opened.checkpoint.source)) < 5000


def test_the_example(nodes, bucket, source, tmp_path, ray_environment):
    """`examples/ray_s3/run.sh`, as its page says, by a `porter` on the path."""
    there = bucket.fill(source, "gemma")
    example = Path(__file__).parents[2] / "examples" / "ray_s3"
    assert "sh run.sh" in (example / "README.md").read_text()
    command = tmp_path / "bin" / "porter"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m porter "$@"\n')
    command.chmod(0o755)
    ran = subprocess.run(
        ["sh", "run.sh"],
        cwd=example,
        env={
            **bucket.env,
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "RAY_TMPDIR": ray_environment["RAY_TMPDIR"],
            "SOURCE": there,
            "TARGET": f"{bucket.url}/out/litgpt",
            "RAY": nodes.address,
        },
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr
    for words in ("gemma (hf)", "on paper", "wrote", "gemma (litgpt)", "nothing is left behind"):
        assert words in ran.stdout, (words, ran.stdout)
    porter.convert(source, tmp_path / "near", to="litgpt")
    assert whole(bucket, "out/litgpt") == digests(tmp_path / "near")
    policy = json.loads((example / "policy.json").read_text())
    assert {verb for part in policy["Statement"] for verb in part["Action"]} == {
        f"s3:{verb}"
        for verb in (
            *("GetObject", "ListBucket", "PutObject", "DeleteObject", "AbortMultipartUpload"),
            *("ListBucketMultipartUploads", "ListMultipartUploadParts"),
        )
    }
