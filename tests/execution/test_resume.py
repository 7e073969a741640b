"""A run that was stopped goes on, and what it publishes is what an undisturbed run would have published."""

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from porter.errors import PorterError, UsageError
from porter.execution import digests, file_run, journal, units, writers
from porter.execution.leftovers import stage_name
from porter.execution.publish import publish_plan
from porter.execution.run_options import RunOptions
from porter.execution.sinks.directory import Interrupted
from porter.execution.watch import Watch
from porter.layout.copies import Loop
from porter.planning.plan import COMPUTE, EXTENT, RUNS, TILE, Copy
from porter.sources.local_files import LocalSource

ROWS, COLUMNS = 120, 350


@pytest.fixture
def ready(bench):
    """A bench with several tensors of every class but the quantised."""
    noise = random.Random(5)
    for number in range(4):
        bench.source(f"s{number}", "BF16", (ROWS, COLUMNS), noise.randbytes(2 * ROWS * COLUMNS))
        half = COLUMNS // 2
        for kind, dtype, loops in [
            (EXTENT, "BF16", (Loop(ROWS * COLUMNS, 1, 1),)),
            (RUNS, "BF16", (Loop(2, half, ROWS * half), Loop(ROWS, COLUMNS, half), Loop(half, 1, 1))),
            (TILE, "BF16", (Loop(COLUMNS, 1, ROWS), Loop(ROWS, COLUMNS, 1))),
            (COMPUTE, "F32", (Loop(ROWS * COLUMNS, 1, 1),)),
        ]:
            bench.target(f"{kind}{number}", dtype, (ROWS * COLUMNS,))
            bench.copies.append(Copy("c", f"s{number}", f"{kind}{number}", 0, 0, loops, kind))
    return bench


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Ranges so small that every tensor has several."""
    monkeypatch.setattr(units, "RANGE", 1 << 15)


@pytest.fixture
def expected(ready):
    ready.run("undisturbed")
    return (ready.root / "undisturbed" / "model.safetensors").read_bytes()


class After:
    """Interrupts a run when so many ranges were written."""

    def __init__(self, monkeypatch, count):
        self.left = count
        finish = writers.RangeWriter.finish
        note = journal.Journal.note

        def counted(into):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return finish(into)

        monkeypatch.setattr(writers.RangeWriter, "finish", counted)
        self.noted = []
        monkeypatch.setattr(journal.Journal, "note", lambda *given: (self.noted.append(given), note(*given)))


def stopped(ready, monkeypatch, count=9):
    """The staging directory of a run that was interrupted after `count` ranges."""
    with monkeypatch.context() as patch:
        After(patch, count)
        with pytest.raises(Interrupted) as caught:
            ready.run()
    assert caught.value.kept > 0
    (stage,) = ready.root.glob(".out.porter-*")
    assert not (ready.root / "out").exists()
    return stage


def resumed(ready, monkeypatch, expected, **options):
    """How many ranges a second run had to write, and what it said."""
    said = []
    with monkeypatch.context() as patch:
        counter = After(patch, 10_000)
        result, _ = ready.run(notice=said.append, **options)
    assert (result.out / "model.safetensors").read_bytes() == expected
    assert sorted(path.name for path in result.out.iterdir()) == ["model.safetensors"]
    assert not list(ready.root.glob(".out.porter-*"))
    return 10_000 - counter.left, said


@pytest.mark.parametrize("count", [1, 5, 14])
def test_only_what_is_missing_is_moved(ready, monkeypatch, expected, count):
    whole, _ = resumed(ready, monkeypatch, expected)
    shutil.rmtree(ready.root / "out")
    stopped(ready, monkeypatch, count)
    moved, said = resumed(ready, monkeypatch, expected)
    assert moved <= whole - count + 1
    assert any("going on" in text for text in said)


def test_progress_counts_what_was_there(ready, monkeypatch, expected):
    stopped(ready, monkeypatch)
    counts = []
    ready.run(progress=lambda name, count: counts.append(count))
    assert sum(counts) == len(expected)


@pytest.mark.parametrize("digest", ["auto", "always", "never"])
def test_digests_of_resumed_files_are_those_of_the_files(ready, monkeypatch, expected, digest):
    import hashlib

    stopped(ready, monkeypatch)
    result, _ = ready.run(options=RunOptions(digest=digest))
    right = "sha256:" + hashlib.sha256(expected).hexdigest()
    assert result.digests["model.safetensors"] == (None if digest == "never" else right)


def test_ranges_that_changed_since_are_moved_again(ready, monkeypatch, expected):
    stage = stopped(ready, monkeypatch)
    noted = journal._lines((stage / journal.NAME).read_bytes())
    line = [line for line in noted if "start" in line][-1]
    with (stage / "model.safetensors").open("r+b") as stream:
        stream.seek(line["end"] - 1)
        (last,) = stream.read(1)
        stream.seek(line["end"] - 1)
        stream.write(bytes([last ^ 1]))
    _, said = resumed(ready, monkeypatch, expected)
    assert any("1 ranges do not hold" in text for text in said)


def test_a_range_that_changed_would_be_published_if_it_were_not_read_again(ready, monkeypatch, expected):
    """A negative control of the test above."""
    stage = stopped(ready, monkeypatch)
    line = [line for line in journal._lines((stage / journal.NAME).read_bytes()) if "start" in line][-1]
    with (stage / "model.safetensors").open("r+b") as stream:
        stream.seek(line["end"] - 1)
        (last,) = stream.read(1)
        stream.seek(line["end"] - 1)
        stream.write(bytes([last ^ 1]))
    noted = {
        (entry["start"], entry["end"]): entry["crc32"]
        for entry in journal._lines((stage / journal.NAME).read_bytes())
        if "start" in entry
    }
    monkeypatch.setattr(file_run, "range_crc", lambda file, *range_: noted[range_])
    result, _ = ready.run()
    assert (result.out / "model.safetensors").read_bytes() != expected


@pytest.mark.parametrize("damage", ["cut", "flip", "garbage", "empty", "gone"])
def test_a_damaged_journal_costs_time_only(ready, monkeypatch, expected, damage):
    stage = stopped(ready, monkeypatch)
    path = stage / journal.NAME
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[-7:]
    elif damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "garbage":
        content += os.urandom(50)
    elif damage == "empty":
        content.clear()
    path.write_bytes(content)
    if damage == "gone":
        path.unlink()
    resumed(ready, monkeypatch, expected)


@pytest.mark.parametrize("size", [0, 7, 10**6])
def test_a_weight_file_of_another_size_is_not_taken_over(ready, monkeypatch, expected, size):
    stage = stopped(ready, monkeypatch)
    os.truncate(stage / "model.safetensors", size)
    resumed(ready, monkeypatch, expected)


def test_a_changed_source_starts_anew_and_says_so(ready, monkeypatch):
    stopped(ready, monkeypatch)
    ready.content[-1] ^= 1
    said = []
    result, _ = ready.run(notice=said.append)
    ready.run("other")
    assert any("a source file has changed" in text for text in said)
    assert (result.out / "model.safetensors").read_bytes() == (
        ready.root / "other" / "model.safetensors"
    ).read_bytes()


def test_a_changed_plan_starts_anew_and_says_so(ready, monkeypatch):
    stopped(ready, monkeypatch)
    ready.target("more", "BF16", (1,))
    ready.copies.append(Copy("c", "s0", "more", 0, 0, (), EXTENT))
    said = []
    ready.run(notice=said.append)
    assert any("by another plan is removed" in text for text in said)
    assert sorted(path.name for path in ready.root.iterdir()) == ["out", "source"]


def test_no_resume_starts_anew_and_keeps_no_journal(ready, monkeypatch, expected):
    stage = stopped(ready, monkeypatch)
    _, said = resumed(ready, monkeypatch, expected, options=RunOptions(resume=False))
    assert any("as asked for" in text for text in said)
    assert not stage.exists()


def test_two_runs_at_once_are_refused(ready, monkeypatch):
    refusals = []
    plan = ready.plan()
    # Tensors are begun by several threads.
    once = threading.Lock()

    def second(name):
        with once:
            if not refusals:
                with pytest.raises(UsageError, match="another porter is writing") as caught:
                    publish_plan(plan, LocalSource(ready.source_root), ready.root / "out")
                refusals.append(caught)

    publish_plan(plan, LocalSource(ready.source_root), ready.root / "out", watch=Watch(moving=second))
    assert len(refusals) == 1


def test_an_error_that_can_be_resumed_keeps_what_was_done(ready, monkeypatch, expected):
    def moving(name):
        if name == "tile2":
            raise PorterError("the network broke")

    source = LocalSource(ready.source_root)
    source.near = False
    with pytest.raises(PorterError, match="network broke"):
        publish_plan(ready.plan(), source, ready.root / "out", watch=Watch(moving=moving))
    assert list(ready.root.glob(".out.porter-*"))
    resumed(ready, monkeypatch, expected)


def test_bytes_are_durable_before_they_are_noted(ready, monkeypatch):
    events = []
    sync, append = journal.sync_data, journal.Journal._append
    monkeypatch.setattr(journal, "sync_data", lambda fd: (events.append("sync"), sync(fd)))
    monkeypatch.setattr(
        journal.Journal,
        "_append",
        lambda self, lines: (events.extend(["note"] * bool(lines)), append(self, lines)),
    )
    ready.run()
    assert events[0] == "note"  # the key
    assert "note" in events[1:]
    assert all(events[place - 1] == "sync" for place, what in enumerate(events) if place and what == "note")


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_a_hash_that_lags_is_given_up_or_waited_for(ready, monkeypatch, mode):
    monkeypatch.setattr(digests, "LAG", 1)
    monkeypatch.setattr(digests, "BUFFER", 1 << 10)
    result, _ = ready.run(options=RunOptions(digest=mode))
    assert (result.digests["model.safetensors"] is None) == (mode == "auto")


# --- killed ----------------------------------------------------------------------------------------

PROGRAM = """
import pickle, sys, time
from pathlib import Path
from porter.execution import journal, units
from porter.execution.publish import publish_plan
from porter.execution.watch import Watch
from porter.sources.local_files import LocalSource
journal.INTERVAL = 0.01
units.RANGE = 1 << 15
root = Path(sys.argv[1])
def moving(name):
    print(name, flush=True)
    time.sleep(0.01)
plan = pickle.loads((root / "plan").read_bytes())
publish_plan(plan, LocalSource(root / "source"), root / "out", watch=Watch(moving=moving))
"""


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_it_goes_on_until_it_is_done(ready, expected, seed):
    chance = random.Random(seed)
    (ready.root / "plan").write_bytes(pickle.dumps(ready.plan()))
    out = ready.root / "out"
    for attempt in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(ready.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        # Later attempts live longer, so that the last of them ends.
        for _ in range(chance.randint(1, 4) + 2 * attempt):
            if not process.stdout.readline():
                break
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert out.exists() or list(ready.root.glob(".out.porter-*"))
        if out.exists():
            break
    assert attempt > 0
    assert (out / "model.safetensors").read_bytes() == expected
    assert [path.name for path in out.iterdir()] == ["model.safetensors"]


def test_an_old_staging_directory_without_a_journal_is_used_afresh(ready, expected):
    plan = ready.plan()
    stage = stage_name(ready.root / "out", plan.hash)
    (stage / "sub").mkdir(parents=True)
    (stage / "sub" / "left").write_text("over")
    result, _ = ready.run()
    assert [path.name for path in result.out.iterdir()] == ["model.safetensors"]
