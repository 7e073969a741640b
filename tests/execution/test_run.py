"""A run publishes everything or nothing, replaces only what porter wrote, and leaves sources alone."""

import hashlib
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from porter import system
from porter.errors import DifferenceError, MalformedError, PorterError, UnsupportedError, UsageError
from porter.execution import classes, writers
from porter.execution.publish import publish_plan
from porter.execution.run_options import RunOptions
from porter.execution.sinks import directory
from porter.execution.staging import RECEIPT
from porter.layout.copies import Loop
from porter.planning.plan import EXTENT, RUNS, TILE, Copy, EqualCheck, SideFile
from porter.sources.local_files import LocalSource

CONTENT = bytes(range(240))


@pytest.fixture
def ready(bench):
    """A bench with one copy of each kind that needs no values, side files, and a source beside them."""
    bench.source("a", "F32", (6, 10), CONTENT)
    for name, kind, loops in [
        ("whole", EXTENT, (Loop(60, 1, 1),)),
        ("halves", RUNS, (Loop(2, 5, 30), Loop(6, 10, 5), Loop(5, 1, 1))),
        ("turned", TILE, (Loop(10, 1, 6), Loop(6, 10, 1))),
    ]:
        bench.target(name, "F32", (60,))
        bench.copies.append(Copy("a", "a", name, 0, 0, loops, kind))
    bench.source_root.mkdir()
    (bench.source_root / "tokenizer.model").write_bytes(b"\x0apieces")
    bench.side_files += [
        SideFile("model_config.yaml", b"name: x\n"),
        SideFile("tokenizer.model", copied_from="tokenizer.model"),
        SideFile("extra/notes.txt", b"n"),
    ]
    return bench


def listing(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b"/"
        for path in sorted(directory.rglob("*"))
    }


def receipt(result) -> bytes:
    return repr(sorted(result.digests)).encode()


def test_everything_is_there_and_loads(ready):
    result, _ = ready.run(receipt=receipt)
    names = {"model.safetensors", "model_config.yaml", "tokenizer.model", "extra/notes.txt", RECEIPT}
    assert set(listing(result.out)) == names | {"extra"}
    assert set(result.digests) == set(result.sizes) == names
    assert all(result.sizes[name] == (result.out / name).stat().st_size for name in names)
    assert (result.out / RECEIPT).read_bytes() == repr(sorted(names - {RECEIPT})).encode()
    whole = torch.frombuffer(bytearray(CONTENT), dtype=torch.float32).view(6, 10)
    found = load_file(result.out / "model.safetensors")
    expected = {
        "whole": whole.reshape(-1),
        "halves": torch.cat([whole[:, :5].reshape(-1), whole[:, 5:].reshape(-1)]),
        "turned": whole.T.reshape(-1),
    }
    assert {name: tensor.view(torch.int32).tolist() for name, tensor in found.items()} == {
        name: tensor.contiguous().view(torch.int32).tolist() for name, tensor in expected.items()
    }


def test_digests_are_those_of_the_files(ready):
    result, _ = ready.run()
    for name, digest in result.digests.items():
        assert digest == "sha256:" + hashlib.sha256((result.out / name).read_bytes()).hexdigest()


def test_two_runs_give_the_same_bytes(ready):
    first, _ = ready.run("one", receipt=receipt)
    second, _ = ready.run("two", receipt=receipt)
    assert listing(first.out) == listing(second.out)


def test_sources_are_not_changed(ready):
    ready.plan()
    before = listing(ready.source_root)
    ready.run()
    assert listing(ready.source_root) == before


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(ready, mask):
    old = os.umask(mask)
    try:
        result, _ = ready.run(receipt=receipt)
    finally:
        os.umask(old)
    for path in (result.out, *result.out.rglob("*")):
        allowed = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == allowed & ~mask, path


def test_progress_adds_up_to_the_weight_file(ready, monkeypatch):
    monkeypatch.setattr(writers, "PROGRESS_STEP", 50)
    calls = []
    result, _ = ready.run(progress=lambda name, count: calls.append((name, count)))
    assert {name for name, _ in calls} == {"model.safetensors"}
    assert sum(count for _, count in calls) == result.sizes["model.safetensors"]
    assert len(calls) > 3


# --- all or nothing --------------------------------------------------------------------------------

FAULTS = {
    "in the middle of the weights": (directory.FileWriter, "finish"),
    "in the second copy": (classes, "move_runs"),
    "at a side file": (directory.DirectorySink, "put"),
    "when publishing": (directory, "publish"),
    "when syncing": (system, "sync_directory"),
}


@pytest.mark.parametrize("error", [RuntimeError, OSError])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_leaves_nothing_behind(ready, monkeypatch, fault, error):
    def fail(*args, **options):
        raise error("injected")

    monkeypatch.setattr(*FAULTS[fault], fail)
    with pytest.raises(PorterError if error is OSError else error, match="injected"):
        ready.run(receipt=receipt)
    assert [path.name for path in ready.root.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("error", "words"),
    [(RuntimeError("can't start new thread"), "no more threads"), (MemoryError(), "no more memory")],
)
def test_what_the_system_does_not_give_is_said(ready, monkeypatch, error, words):
    def refuse(thread):
        raise error

    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(PorterError) as raised:
        ready.run()
    assert raised.value.exit_code == 1 and words in str(raised.value)
    assert [path.name for path in ready.root.iterdir()] == ["source"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_under_force_keeps_the_old_output(ready, monkeypatch, fault):
    result, _ = ready.run(receipt=receipt)
    before = listing(result.out)

    def fail(*args, **options):
        raise RuntimeError("injected")

    monkeypatch.setattr(*FAULTS[fault], fail)
    ready.side_files.append(SideFile("new", b""))
    with pytest.raises(RuntimeError, match="injected"):
        ready.run(receipt=receipt, force=True)
    assert listing(result.out) == before
    assert sorted(path.name for path in ready.root.iterdir()) == ["out", "source"]


def test_nothing_stands_under_the_final_name_before_the_end(ready, monkeypatch):
    seen = []
    finish = directory.FileWriter.finish
    out = ready.root / "out"
    monkeypatch.setattr(
        directory.FileWriter, "finish", lambda self: (seen.append(out.exists()), finish(self))
    )
    ready.run()
    assert seen == [False]
    assert out.exists()


def test_a_failing_receipt_publishes_nothing(ready):
    def fail(digests):
        raise ValueError("no receipt")

    with pytest.raises(ValueError, match="no receipt"):
        ready.run(receipt=fail)
    assert not (ready.root / "out").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_an_interrupted_run_leaves_nothing_if_it_may_not_be_resumed(ready, monkeypatch, fault):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(*FAULTS[fault], interrupt)
    with pytest.raises(KeyboardInterrupt):
        ready.run(receipt=receipt, options=RunOptions(resume=False))
    assert [path.name for path in ready.root.iterdir()] == ["source"]


# --- what may be replaced --------------------------------------------------------------------------


def test_an_empty_directory_is_replaced_and_parents_are_made(ready):
    (ready.root / "out").mkdir()
    ready.run()
    ready.run("new/deeper/out")


def test_a_directory_with_files_needs_force(ready):
    ready.run(receipt=receipt)
    with pytest.raises(UsageError, match="not empty"):
        ready.run(receipt=receipt)


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "moved aside"])
def test_force_replaces_what_porter_wrote(ready, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(system, "exchange", lambda one, other: False)
    ready.run(receipt=receipt)
    (ready.root / "out" / "left over").write_text("")
    ready.side_files.append(SideFile("new", b"1"))
    result, _ = ready.run(receipt=receipt, force=True)
    names = set(listing(result.out))
    assert "new" in names
    assert "left over" not in names
    assert sorted(path.name for path in ready.root.iterdir()) == ["out", "source"]


def test_moving_aside_is_undone_when_the_second_rename_fails(ready, monkeypatch):
    result, _ = ready.run(receipt=receipt)
    before = listing(result.out)
    monkeypatch.setattr(system, "exchange", lambda one, other: False)
    rename = Path.rename

    def fail(self, target):
        if list(self.glob("new")):
            raise OSError("injected")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    ready.side_files.append(SideFile("new", b"1"))
    with pytest.raises(PorterError, match="injected"):
        ready.run(receipt=receipt, force=True)
    assert listing(result.out) == before
    assert sorted(path.name for path in ready.root.iterdir()) == ["out", "source"]


def test_force_does_not_replace_what_porter_did_not_write(ready):
    out = ready.root / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not written by porter"):
        ready.run(force=True)
    (out / RECEIPT).symlink_to("thesis.tex")
    with pytest.raises(UsageError, match="not written by porter"):
        ready.run(force=True)
    assert (out / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_replaced(ready, force):
    (ready.root / "out").write_text("kept")
    with pytest.raises(UsageError, match="no directory"):
        ready.run(force=force)
    assert (ready.root / "out").read_text() == "kept"


@pytest.mark.parametrize("where", ["source", "source/out", ".", "link", "link/out", "source/../source/x"])
def test_output_and_source_stay_apart(ready, where):
    plan = ready.plan()
    (ready.source_root / RECEIPT).write_text("")
    (ready.root / RECEIPT).write_text("")
    (ready.root / "link").symlink_to("source")
    before = listing(ready.root)
    with pytest.raises(UsageError, match="lie in one another"):
        publish_plan(plan, LocalSource(ready.source_root), ready.root / where, force=True)
    assert listing(ready.root) == before


# --- sources and checks ----------------------------------------------------------------------------


def test_a_source_of_another_size_is_malformed(ready):
    plan = ready.plan()
    with (ready.source_root / "source.bin").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(MalformedError, match=r"not the file that was planned for\n.*245 bytes, found 246"):
        publish_plan(plan, LocalSource(ready.source_root), ready.root / "out")


def test_a_missing_source_is_malformed(ready):
    plan = ready.plan()
    (ready.source_root / "source.bin").unlink()
    with pytest.raises(MalformedError, match="missing"):
        publish_plan(plan, LocalSource(ready.source_root), ready.root / "out")


def test_links_out_of_the_source_are_not_followed(ready):
    plan = ready.plan()
    (ready.root / "secret").write_text("s")
    (ready.source_root / "tokenizer.model").unlink()
    (ready.source_root / "tokenizer.model").symlink_to(ready.root / "secret")
    with pytest.raises(MalformedError, match="leads out"):
        publish_plan(plan, LocalSource(ready.source_root), ready.root / "out")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_output_names_stay_inside(ready, name):
    ready.side_files.append(SideFile(name, b""))
    with pytest.raises(PorterError, match="unsafe"):
        ready.run()


def test_names_given_twice_are_refused(ready):
    ready.side_files.append(SideFile("model.safetensors", b""))
    with pytest.raises(PorterError, match="twice"):
        ready.run()


def test_other_containers_are_unsupported(ready):
    plan = ready.plan()
    plan = replace(plan, files=(replace(plan.files[0], container="tape"),))
    with pytest.raises(UnsupportedError, match="tape"):
        publish_plan(plan, LocalSource(ready.source_root), ready.root / "out")


def test_checks_run_before_anything_is_staged(ready, monkeypatch):
    ready.source("other", "F32", (6, 10), bytes(240))
    ready.checks.append(EqualCheck("a", "other", "tied", loops=(Loop(60, 1, 1),)))
    monkeypatch.setattr(directory, "staging", lambda *given: pytest.fail("staged"))
    with pytest.raises(DifferenceError):
        ready.run()


# --- what is imported ------------------------------------------------------------------------------

PROGRAM = """
import pickle, sys
from pathlib import Path
from porter.execution.publish import publish_plan
from porter.sources.local_files import LocalSource
plan = pickle.loads(Path(sys.argv[1], "plan").read_bytes())
source = LocalSource(Path(sys.argv[1], "source"))
publish_plan(plan, source, Path(sys.argv[1], "out"), receipt=lambda result: b"{}")
print(sorted({"torch", "numpy", "gguf"} & set(sys.modules)))
"""


@pytest.mark.parametrize(("kinds", "imported"), [((EXTENT, RUNS), "[]"), ((TILE,), "['numpy']")])
def test_bytes_are_moved_without_torch(ready, kinds, imported):
    import pickle

    ready.copies = [copy for copy in ready.copies if copy.copy_class in kinds]
    ready.targets = [spec for spec in ready.targets if spec[0] in {copy.target for copy in ready.copies}]
    (ready.root / "plan").write_bytes(pickle.dumps(ready.plan()))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ready.root)], capture_output=True, text=True, check=True
    )
    assert imported in done.stdout
    assert done.stderr == ""
