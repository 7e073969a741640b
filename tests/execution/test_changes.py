"""A source that changes between its plan, its reads and the publication: nothing is published."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from porter.errors import ChangedError
from porter.execution.executor import execute, touched
from porter.execution.publish import publish_plan
from porter.execution.sinks.memory import MemorySink
from porter.execution.watch import Watch
from porter.layout.copies import Loop
from porter.planning.plan import EXTENT, Copy, SideFile
from porter.sources.local_files import LocalSource
from tests.tiny_llama import CONFIG, SHAPES

CONTENT = bytes(range(256)) * 40
WEIGHTS, SIDE = "source.bin", "tokenizer.model"


@pytest.fixture
def ready(bench):
    bench.source("a", "U8", (len(CONTENT),), CONTENT)
    for name in ("one", "two"):
        bench.target(name, "U8", (len(CONTENT),))
        bench.copies.append(Copy("x", "a", name, 0, 0, (Loop(len(CONTENT), 1, 1),), EXTENT))
    bench.side_files.append(SideFile(SIDE, copied_from=SIDE))
    bench.plan()
    (bench.source_root / SIDE).write_bytes(b"side file")
    return bench


def overwritten(path):
    with path.open("r+b") as stream:
        stream.seek(7)
        stream.write(b"\xff")


def replaced_by_one_of_the_same_size(path):
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)


def truncated_and_rewritten(path):
    content = path.read_bytes()
    path.write_bytes(content[::-1])


def cut_short(path):
    os.truncate(path, path.stat().st_size - 1)


def longer(path):
    with path.open("ab") as stream:
        stream.write(b"\0")


def removed(path):
    path.unlink()


def a_link_to_another(path):
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    path.unlink()
    path.symlink_to(other.name)


def overwritten_with_its_times_kept(path):
    """The time of change cannot be set back."""
    found = path.stat()
    overwritten(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


CHANGES = (
    overwritten,
    replaced_by_one_of_the_same_size,
    truncated_and_rewritten,
    cut_short,
    longer,
    removed,
    a_link_to_another,
    overwritten_with_its_times_kept,
)


def at_moment(moment, ready, source, change, monkeypatch):
    """A watch under which the change comes at that moment; before the run it comes at once."""
    done = []

    def once(*told):
        if not done:
            done.append(True)
            change()

    if moment == "after the plan":
        once()
    elif moment == "at the first tensor":
        return Watch(moving=once)
    elif moment == "between two tensors":
        seen = []

        def second(name):
            seen.append(name)
            if len(seen) == 2:
                once()

        return Watch(moving=second)
    else:
        from porter.execution.sinks import directory

        put = directory.DirectorySink.put

        def after(self, name, pieces):
            found = put(self, name, pieces)
            once()
            return found

        monkeypatch.setattr(directory.DirectorySink, "put", after)
    return Watch()


MOMENTS = ("after the plan", "at the first tensor", "between two tensors", "before the publication")


@pytest.mark.parametrize("file", [WEIGHTS, SIDE])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_published(ready, monkeypatch, change, moment, file):
    source, path = LocalSource(ready.source_root), ready.source_root / file
    # Beyond the tick of the clock that times files.
    time.sleep(0.02)
    watch = at_moment(moment, ready, source, lambda: change(path), monkeypatch)
    with pytest.raises(Exception) as caught:
        publish_plan(ready.plan_as_it_was, source, ready.root / "out", watch=watch)
    assert getattr(caught.value, "exit_code", None) == 6, caught.value
    assert file in str(caught.value)
    assert not (ready.root / "out").exists()
    assert [path.name for path in ready.root.iterdir() if path.name.startswith(".out")] == []


@pytest.fixture(autouse=True)
def plan_as_it_was(ready):
    ready.plan_as_it_was = ready.plan()


def test_without_a_change_it_is_published(ready):
    """The negative control; a look at the files is no change."""
    source = LocalSource(ready.source_root)
    (ready.source_root / WEIGHTS).read_bytes()
    publish_plan(ready.plan_as_it_was, source, ready.root / "out")
    assert (ready.root / "out" / SIDE).read_bytes() == b"side file"


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("array:hdf5:model.weights.h5//layers/x/vars/0", {WEIGHTS, SIDE, "model.weights.h5"}),
        ("array:default/layer_0/w", {WEIGHTS, SIDE, "default/layer_0/w/0.0"}),
        (WEIGHTS, {WEIGHTS, SIDE}),
    ],
)
def test_files_behind_arrays_are_looked_at_too(ready, place, wanted):
    """Arrays are written out before they are read: what they were read from may change as well."""
    (ready.source_root / "default" / "layer_0" / "w").mkdir(parents=True)
    (ready.source_root / "default" / "layer_0" / "w" / "0.0").write_bytes(b"chunk")
    plan = ready.plan_as_it_was
    sources = tuple(tensor._replace(file=place) for tensor in plan.sources)
    found = touched(replace(plan, sources=sources), LocalSource(ready.source_root))
    assert set(found) == wanted


@pytest.mark.parametrize("moment", MOMENTS[:3])
def test_other_sinks_notice_it_too(ready, monkeypatch, moment):
    source, path = LocalSource(ready.source_root), ready.source_root / WEIGHTS
    time.sleep(0.02)
    watch = at_moment(moment, ready, source, lambda: overwritten(path), monkeypatch)
    sink = MemorySink()
    with pytest.raises(ChangedError):
        execute(ready.plan_as_it_was, source, sink, watch=watch)
    assert sink.tensors == {}


def test_the_command_says_which_file_and_exits_with_6(tmp_path):
    """Through the command: an overwrite that keeps the size, after the headers were read."""
    import json

    import numpy as np
    from safetensors.numpy import save_file

    folder = tmp_path / "llama"
    folder.mkdir()
    tensors = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    program = (
        "import sys, time, porter.planning.build as build\n"
        "from porter.cli import main\n"
        "import porter.api.convert as api\n"
        "plain = api.build_plan\n"
        "def late(*given):\n"
        "    made = plain(*given)\n"
        "    time.sleep(0.02)\n"
        "    with open(sys.argv[2] + '/model.safetensors', 'r+b') as stream:\n"
        "        stream.seek(-1, 2); stream.write(b'\\x01')\n"
        "    return made\n"
        "api.build_plan = late\n"
        "main()\n"
    )
    out = tmp_path / "out"
    ran = subprocess.run(
        [sys.executable, "-c", program, "convert", str(folder), "--to", "litgpt", "-o", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 6, ran.stderr
    assert "model.safetensors is not the file that was planned for" in ran.stderr
    assert not out.exists()
