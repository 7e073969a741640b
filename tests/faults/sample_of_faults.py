"""A sample of `make faults`: every kind of fault a few times. The whole makes docs/reliability.md's table."""

import errno
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fault_kinds as kinds
import fault_oracle as oracle
import traced
from fault_bench import Bench, Command, Tally

pytestmark = pytest.mark.skipif(not traced.AVAILABLE, reason="system calls are met on Linux on x86-64 alone")

SAMPLES = {
    "kills over an output": lambda bench, tally: kinds.kills(bench, tally, force=True, most=10),
    "kills where nothing was": lambda bench, tally: kinds.kills(bench, tally, force=False, most=5),
    "kills without exchange": lambda bench, tally: kinds.kills_without_exchange(bench, tally, most=8),
    "Ctrl-C": lambda bench, tally: kinds.interrupts(bench, tally, most=6),
    "errors": lambda bench, tally: kinds.errors(bench, tally, most=14),
    "half of the work": lambda bench, tally: kinds.shorts(bench, tally, most=6),
    "8 at once": lambda bench, tally: kinds.crowds(bench, tally, rounds=1),
    "changes": lambda bench, tally: kinds.changes(bench, tally, moments=3),
    "damage": lambda bench, tally: kinds.journals(bench, tally, damages=8),
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    from porter.execution import journal, streaming, units

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "RANGE", 1 << 15)
        patch.setattr(journal, "INTERVAL", 0.002)
        patch.setattr(streaming, "CHUNK", 1 << 15)
        yield Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("kind", SAMPLES)
def test_nothing_is_lost(bench, kind):
    tally = Tally(kind)
    SAMPLES[kind](bench, tally)
    assert tally.faults > 0
    assert tally.lost == [] and tally.flaws == []


def test_nothing_is_lost_on_a_full_disk(bench):
    if os.geteuid() != 0:
        pytest.skip("mounting a disk needs root")
    tally = Tally("full disks")
    kinds.full_disks(bench, tally, kind="tmpfs", sizes=5)
    assert tally.found["the old output"] and tally.found["the new output"]
    assert tally.lost == [] and tally.flaws == []


def test_a_thread_that_cannot_begin_ends_the_run(bench):
    """CPython leaves whoever starts it waiting for ever."""
    tally, said = Tally("no memory"), set()
    for number, name in enumerate(kinds.calls_of(bench, force=True)):
        if name == "mmap":
            bench.set_up(force=True)
            ended = traced.run(bench.convert(force=True), kinds.at(number, errno.ENOMEM, name))
            said.add(bench.said.read_text().partition("error: ")[2].partition("\n")[0])
            bench.judge(tally, ended, f"no memory at call {number}", force=True)
    assert "memory ran out as a thread was to begin" in said
    assert tally.lost == [] and tally.flaws == []


class Careless:
    """The negative control: it writes in place, and says that all is well."""

    def __init__(self, out, data):
        self.out, self.data = out, data

    def ready(self):
        pass

    def __call__(self):
        self.out.mkdir(exist_ok=True)
        for name, content in self.data.items():
            (self.out / name).write_bytes(content)
        return 0


def test_a_converter_that_writes_in_place_is_found_out(bench):
    work = Careless(bench.out, {path.name: path.read_bytes() for path in bench.reference.iterdir()})
    tally = Tally("careless")
    bench.set_up(force=True)
    calls = traced.run(work, lambda call: None).calls
    for number in range(len(calls)):
        bench.set_up(force=True)
        ended = traced.run(work, kinds.at(number, traced.KILL))
        bench.judge(tally, ended, f"killed at call {number}", force=True, rerun=False)
    assert len(tally.lost) >= 4 and tally.found["the old output"] and tally.found["the new output"]


def test_what_is_asked_for_befalls_the_child(tmp_path):
    """The tracer itself: a call fails, does half of its work, or is the last."""
    place = tmp_path / "file"

    class Writes:
        def ready(self):
            pass

        def __call__(self):
            try:
                fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                return os.write(fd, b"twelve bytes")
            except OSError as error:
                return 100 + error.errno

    def at_write(action):
        return traced.run(Writes(), lambda call: action if call.name == "write" else None).code

    assert at_write(None) == 12 and place.read_bytes() == b"twelve bytes"
    assert at_write(traced.HALF) == 6 and place.read_bytes() == b"twelve"
    assert at_write(28) == 128 and place.read_bytes() == b""
    assert at_write(traced.KILL) == 137 and place.read_bytes() == b""


def test_the_oracle_tells_one_byte(bench, tmp_path):
    place = oracle.write_checkpoint(tmp_path / "model", 3) / "model-00001-of-00002.safetensors"
    before, raw = oracle.tree(tmp_path), place.read_bytes()
    arrays = oracle.read_safetensors(place)
    place.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert oracle.tree(tmp_path) != before
    assert not oracle.same(oracle.read_safetensors(place), arrays)


FAR = ("org/other", "gemma-2b", "s3://bucket/model", "gs://bucket/model", "https://127.0.0.1:1/model")


def test_offline_makes_no_socket(bench, tmp_path, monkeypatch):
    """By the system calls, for not all that could ask the network is written in Python."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    near = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:1"}

    def sockets(*words):
        ended = traced.run(Command(words, bench.said, near), lambda call: None)
        said = bench.said.read_text()
        assert "Traceback" not in said, said
        return ended.code, sum(name in ("socket", "connect") for name in ended.calls), said

    source = str(bench.source)
    for words, code in (
        (("inspect", source), 0),
        (("convert", source, "--to", "litgpt", "-o", str(tmp_path / "out")), 0),
        (("verify", source, str(tmp_path / "out")), 0),
        (("check", str(tmp_path / "out")), 0),
        (("fingerprint", source), 0),
        (("diff", source, str(tmp_path / "out")), 0),
        (("download", "gemma-2b"), 2),
        *((("inspect", name), 2) for name in FAR),
        *((("convert", name, "--to", "litgpt", "-o", str(tmp_path / "none")), 2) for name in FAR),
    ):
        ended, made, said = sockets(*words, "--offline")
        assert (ended, made) == (code, 0), (words, said)
    # The negative control.
    assert sockets("inspect", "org/other")[1] > 0
