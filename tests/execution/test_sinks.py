"""What every sink promises, by the same tests over each of them."""

import hashlib
import json
from dataclasses import replace

import pytest

from porter.containers.checkpoint import open_checkpoint
from porter.errors import PorterError
from porter.execution.executor import RECEIPT, execute
from porter.execution.open_files import OpenFiles
from porter.execution.publish import publish_plan
from porter.execution.sinks.bucket import BucketSink
from porter.execution.sinks.compare import CompareSink, Differing
from porter.execution.sinks.digest import DigestSink
from porter.execution.sinks.directory import DirectorySink
from porter.execution.sinks.memory import MemorySink
from porter.execution.watch import Watch
from porter.layout.copies import Loop
from porter.planning.plan import EXTENT, TILE, Copy, SideFile
from porter.sources.buckets.bucket_address import parse_address
from porter.sources.in_memory import MemorySource
from porter.sources.local import Location
from porter.sources.local_files import LocalSource

A, B = bytes(range(240)), bytes(reversed(range(240)))
TURNED = bytes(A[row * 12 + column] for column in range(12) for row in range(20))


@pytest.fixture
def ready(bench):
    bench.source("a", "U8", (20, 12), A)
    bench.source("b", "U8", (240,), B)
    bench.target("turned", "U8", (12, 20))
    bench.copies.append(Copy("x", "a", "turned", 0, 0, (Loop(12, 1, 20), Loop(20, 12, 1)), TILE))
    bench.target("both", "U8", (480,))
    bench.copies.append(Copy("x", "a", "both", 0, 0, (Loop(240, 1, 1),), EXTENT))
    bench.copies.append(Copy("x", "b", "both", 0, 240, (Loop(240, 1, 1),), EXTENT))
    bench.side_files.append(SideFile("config.json", b"{}"))
    return bench, bench.plan()


class Directory:
    def __init__(self, bench, plan):
        self.out = bench.root / "sink"
        self.sink = DirectorySink(self.out, plan.hash)

    def result(self, plan):
        assert (self.out / "config.json").read_bytes() == b"{}"
        checkpoint = open_checkpoint(Location(self.out, None, "out"))
        raw = (self.out / "model.safetensors").read_bytes()
        return {t.name: raw[t.offset : t.offset + t.nbytes] for t in checkpoint.tensors.values()}

    def nothing(self):
        return not self.out.exists()


class Memory:
    def __init__(self, bench, plan):
        self.sink = MemorySink()

    def result(self, plan):
        assert self.sink.files["config.json"] == b"{}"
        return {name: bytes(content) for name, content in self.sink.tensors.items()}

    def nothing(self):
        return self.sink.tensors == {} and self.sink.files == {}


class Digests:
    def __init__(self, bench, plan):
        self.sink = DigestSink()

    def result(self, plan):
        return self.sink.digests

    def nothing(self):
        return self.sink.digests == {}


class Compare:
    """Against an output in which one byte of `both` is another."""

    def __init__(self, bench, plan):
        out = publish_plan(plan, LocalSource(bench.source_root), bench.root / "there").out
        there = open_checkpoint(Location(out, None, "there"))
        stored = there.tensors["both"]
        with (out / stored.file).open("r+b") as stream:
            stream.seek(stored.offset + 250)
            stream.write(bytes([B[10] ^ 1]))
        self.sink = CompareSink(there.tensors, OpenFiles(LocalSource(out), there.sizes))

    def result(self, plan):
        return self.sink.differing

    def nothing(self):
        return self.sink.differing == {}


class InABucket:
    def __init__(self, bench, plan, bucket):
        self.bucket = bucket
        self.sink = BucketSink(parse_address(f"{bucket.url}/sink"))

    def result(self, plan):
        assert self.bucket.read("sink/config.json") == b"{}"
        assert self.bucket.uploads() == []
        raw = self.bucket.read("sink/model.safetensors")
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        start = 8 + int.from_bytes(raw[:8], "little")
        places = {name: found["data_offsets"] for name, found in header.items() if name != "__metadata__"}
        return {name: raw[start + low : start + high] for name, (low, high) in places.items()}

    def nothing(self):
        return self.bucket.names() == [] and self.bucket.uploads() == []


def held_by(kind, bench, plan, request):
    return kind(bench, plan, *([request.getfixturevalue("bucket")] if kind is InABucket else []))


RIGHT = {"turned": TURNED, "both": A + B}
EXPECTED = {
    Directory: RIGHT,
    InABucket: RIGHT,
    Memory: RIGHT,
    # Each is shorter than one piece.
    Digests: {
        name: hashlib.sha256(hashlib.sha256(content).digest()).hexdigest() for name, content in RIGHT.items()
    },
    Compare: {"both": Differing(1, 250, largest=1.0, scale=239.0)},
}


@pytest.mark.parametrize("near", [True, False], ids=["near", "far"])
@pytest.mark.parametrize("kind", EXPECTED)
def test_a_run_ends_in_what_the_sink_is_for(ready, kind, near, request):
    bench, plan = ready
    held = held_by(kind, bench, plan, request)
    source = MemorySource({"source.bin": bytes(bench.content)})
    source.near = near
    counts = []
    result = execute(
        plan,
        source,
        held.sink,
        watch=Watch(progress=lambda name, count: counts.append(count)),
        receipt=lambda made: repr(sorted(made.sizes)).encode(),
    )
    assert held.result(plan) == EXPECTED[kind]
    assert sum(counts) == plan.files[0].size, "progress adds up, whatever is written"
    assert set(result.sizes) == {"model.safetensors", "config.json", RECEIPT}
    assert result.digests["config.json"] == "sha256:" + hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize("fault", ["in a tensor", "in a side file", "at the receipt"])
@pytest.mark.parametrize("kind", EXPECTED)
def test_a_failure_leaves_nothing_that_could_be_taken_for_a_result(ready, kind, fault, request):
    bench, plan = ready
    held = held_by(kind, bench, plan, request)
    source = MemorySource({"source.bin": bytes(bench.content)})

    def fail(*given):
        raise PorterError("injected")

    watch, receipt = Watch(), None
    if fault == "in a tensor":
        watch = Watch(moving=fail)
    elif fault == "in a side file":
        plan = replace(plan, side_files=(*plan.side_files, SideFile("more", copied_from="absent")))
    else:
        receipt = fail
    with pytest.raises(PorterError):
        execute(plan, source, held.sink, watch=watch, receipt=receipt)
    assert held.nothing()


@pytest.mark.parametrize("kind", EXPECTED)
def test_writers_refuse_what_is_outside_their_file(ready, kind, request):
    bench, plan = ready
    sink = held_by(kind, bench, plan, request).sink
    with sink:
        sink.begin({"plan": plan.hash})
        writer = sink.create(plan.files[0])
        with pytest.raises(PorterError, match="outside"):
            writer.write(plan.files[0].size - 1, b"two")
        assert sink.create(plan.files[0]) is writer
        sink.close(writer)


def test_a_comparison_wants_the_same_names_dtypes_and_shapes(ready):
    bench, plan = ready
    held = Compare(bench, plan)
    tensors = plan.files[0].tensors
    file = replace(plan.files[0], tensors=(tensors[0]._replace(shape=(480, 1)), *tensors[1:]))
    with pytest.raises(PorterError, match="no counterpart"):
        execute(replace(plan, files=(file,)), LocalSource(bench.source_root), held.sink)
