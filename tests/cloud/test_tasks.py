"""Tasks of a cluster without one: each is pickled, run alone, in another order, and comes back a record."""

import hashlib
import importlib.util
import itertools
import pickle
import random
from pathlib import Path

import pytest

import porter
from porter.api.convert import predict, prepare, receipt
from porter.errors import ChangedError, PorterError, UsageError
from porter.execution.cluster.cluster_driver import ClusterDriver
from porter.execution.cluster.divide import Division, bytes_read, divide
from porter.execution.cluster.predict import Assumed, assumed_spoken
from porter.execution.publish import publish_plan
from porter.execution.run_options import RunOptions
from porter.sources.buckets.bucket_address import parse_address

spec = importlib.util.spec_from_file_location("task_models", Path(__file__).parent / "models.py")
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)

SMALL = Division(part=60_000, unit=20_000, transposed=40_000)
# The least that S3 takes.
LEAST = Division(part=5 << 20, unit=5 << 20, transposed=8 << 20)


class Shuffled:
    """In the place of a cluster: whatever a task is given or gives has been pickled."""

    def __init__(self, seed=0, twice=False):
        self.random, self.twice, self.count = random.Random(seed), twice, 0

    def map(self, function, shared, items, watch):
        items = list(items)
        self.random.shuffle(items)
        for item in items:
            self.count += 1
            sent = pickle.dumps((shared, item))
            for _ in range(1 + self.twice):
                again, own = pickle.loads(sent)
                found = pickle.dumps(function(again, *own))
            assert len(found) < 2000, "records are small"
            yield pickle.loads(found)


@pytest.fixture
def source(tmp_path):
    return models.checkpoint(tmp_path / "model")


def digests(folder):
    files = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".pth", ".h5")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(there, out, pool, division=SMALL, digest="auto", **options):
    prepared = prepare(there, **options)
    return publish_plan(
        prepared.plan,
        prepared.opened.checkpoint.source,
        parse_address(str(out)) or out,
        options=RunOptions(digest=digest),
        receipt=lambda made: receipt(prepared, made),
        driver=ClusterDriver(pool, division),
    )


OPTIONS = [
    {"to": "litgpt"},
    {"to": "litgpt", "container": "pth"},
    {"to": "keras"},
    {"to": "hf", "max_shard_size": "100KB"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options.values()))
def test_in_any_order_and_done_twice_they_make_the_bytes_of_a_local_run(source, tmp_path, options):
    porter.convert(source, tmp_path / "near", **options)
    pool = Shuffled(len(options), twice=True)
    result = run(source, tmp_path / "out", pool, digest="always", **options)
    expected = digests(tmp_path / "near")
    assert digests(tmp_path / "out") == expected
    assert {name: result.digests[name] for name in expected} == {
        n: f"sha256:{d}" for n, d in expected.items()
    }
    assert pool.count > len(expected)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_into_a_bucket(bucket, tmp_path):
    large = models.checkpoint(tmp_path / "large", vocab=50_000)
    run(bucket.fill(large, "model"), f"{bucket.url}/out", Shuffled(), LEAST, to="litgpt")
    porter.convert(large, tmp_path / "near", to="litgpt")
    made = hashlib.sha256(bucket.read("out/lit_model.safetensors")).hexdigest()
    assert made == digests(tmp_path / "near")["lit_model.safetensors"]
    assert len(bucket.server.of("part", "lit_model")) == 5
    assert bucket.uploads() == []


class Breaking(Shuffled):
    """Ends in the middle."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def map(self, function, shared, items, watch):
        yield from itertools.islice(super().map(function, shared, items, watch), 4)
        raise self.error


@pytest.mark.parametrize("kind", ["bucket", "shared"])
def test_what_was_done_is_not_done_again(bucket, tmp_path, kind, monkeypatch):
    large = models.checkpoint(tmp_path / "large", vocab=60_000)
    out = tmp_path / "out" if kind == "shared" else f"{bucket.url}/out"
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(large, out, Breaking(KeyboardInterrupt()), LEAST, to="litgpt")
    assert stopped.value.kept >= 4 * (5 << 20) - (4 << 20)
    bucket.server.forget()
    pool = Shuffled()
    run(large, out, pool, LEAST, to="litgpt")
    porter.convert(large, tmp_path / "near", to="litgpt")
    expected = digests(tmp_path / "near")
    if kind == "shared":
        assert digests(out) == expected
    else:
        assert hashlib.sha256(bucket.read("out/lit_model.safetensors")).hexdigest() == expected.popitem()[1]
        assert pool.count == len(divide(prepare(large, to="litgpt").plan, LEAST)) - 4
    assert bucket.uploads() == []


def test_a_failure_leaves_nothing(bucket, source, tmp_path):
    for out in (tmp_path / "out", f"{bucket.url}/out"):
        with pytest.raises(PorterError, match="broken"):
            run(source, out, Breaking(PorterError("broken")), to="litgpt")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert bucket.names() == [] and bucket.uploads() == []


def test_a_source_that_is_replaced_is_noticed_by_the_workers(source, tmp_path):
    class Replacing(Shuffled):
        def map(self, function, shared, items, watch):
            for path in source.glob("*.safetensors"):
                content = path.read_bytes()
                path.unlink()
                path.write_bytes(content)
            yield from super().map(function, shared, items, watch)

    with pytest.raises(ChangedError):
        run(source, tmp_path / "out", Replacing(), to="litgpt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("division", [SMALL, Division(1000, 300, 7000), Division()])
def test_tasks_tile_every_file(source, division):
    plan = prepare(source, to="hf", max_shard_size="100KB").plan
    tasks = divide(plan, division)
    assert tasks == divide(plan, division)
    for file in plan.files:
        own = [task for task in tasks if task.file == file.name]
        assert [task.number for task in own] == list(range(1, len(own) + 1))
        assert own[0].start == 0 and own[-1].end == file.size
        assert all(one.end == two.start for one, two in itertools.pairwise(own))
        assert all(task.nbytes >= division.part for task in own[:-1])
    copied = sum(tensor.nbytes for tensor in plan.sources)
    assert sum(map(bytes_read, tasks)) == copied, "extents are read once"


def test_a_prediction_is_the_stated_model(source):
    """By hand: tasks one after the other on one worker, and no worker does less than nothing."""
    prepared = prepare(source, to="litgpt")
    found = predict(prepared, "workers=1,read=1MB,write=2MB,task=3")
    tasks = divide(prepared.plan)
    by_hand = sum(3 + bytes_read(task) / 1e6 + task.nbytes / 2e6 for task in tasks)
    assert found.loads[0].seconds == pytest.approx(by_hand)
    assert found.loads[0].busy == pytest.approx(1.0)
    assert found.written == sum(file.size for file in prepared.plan.files)
    many = predict(prepared)
    assert [load.workers for load in many.loads] == [1, 8, 64]
    assert all(one.seconds >= two.seconds for one, two in itertools.pairwise(many.loads))
    assert assumed_spoken("read=1GB/s, task=2") == Assumed(None, 10**9, 100_000_000, 2.0)
    for wrong in ("cores=3", "workers=0", "workers=many", "read=fast", "write=0"):
        with pytest.raises(UsageError):
            assumed_spoken(wrong)


def test_the_prediction_is_shown(bucket, source):
    shown = bucket.porter("convert", source, "--to", "litgpt", "--dry-run", "--on", "ray", "--explain")
    assert shown.returncode == 0, shown.stderr
    assert "on paper" in shown.stdout and "Workers" in shown.stdout
    assert "lit_model.safetensors" in shown.stdout
    refused = bucket.porter("convert", source, "--to", "litgpt", "--assume", "workers=3")
    assert refused.returncode == 2


@pytest.mark.parametrize("dtype", ["keep", "bfloat16"])
def test_what_is_transposed_is_read_once_whether_it_is_cast_or_not(source, dtype):
    plan = prepare(source, to="keras", dtype=dtype).plan
    stored = sum(tensor.nbytes for tensor in plan.sources)

    def read(division):
        return sum(bytes_read(task) for task in divide(plan, division))

    assert read(Division(part=1, unit=2000, transposed=1 << 20)) < 1.05 * stored
    # The control: cut as what keeps its order is cut.
    assert read(Division(part=1, unit=2000, transposed=2000)) > 2 * stored
