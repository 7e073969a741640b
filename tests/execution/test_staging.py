"""What becomes of an output when others act on the same names, or a run is killed while it publishes."""

import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from porter import system
from porter.containers.base import OutputFile
from porter.errors import PorterError, UsageError
from porter.execution import staging as module
from porter.execution.journal import NAME as JOURNAL
from porter.execution.leftovers import RECEIPT, find_leftovers, fresh_name, stage_name
from porter.execution.ownership import is_ours
from porter.execution.receipts import seal
from porter.execution.sinks.directory import DirectorySink, Interrupted
from porter.execution.staging import check_output, publish, staging
from porter.execution.watch import Watch

HASH = "sha256:" + "0123456789ab" * 4
OTHER = "sha256:" + "ba9876543210" * 4


@pytest.fixture(params=[True, False], ids=["exchanged", "moved aside"])
def way(request, monkeypatch):
    """Both ways of replacing an output: where names can be exchanged, and where they cannot."""
    if not request.param:
        monkeypatch.setattr(system, "exchange", lambda one, other: False)
    return request.param


def output(path, word, receipt=True):
    path.mkdir()
    (path / "weights").write_text(word)
    if receipt:
        (path / RECEIPT).write_text("{}")


def run(out, word, plan=HASH, force=True, before=lambda: None, notice=lambda text: None, files=None):
    with staging(out, plan, notice, force=force) as stage:
        stage.clear()
        (stage.path / "weights").write_text(word)
        (stage.path / RECEIPT).write_text("{}")
        before()
        publish(stage, out, force=force, files=files)


def names(root):
    return sorted(path.name for path in root.iterdir())


# --- two at once -----------------------------------------------------------------------------------


def test_a_second_run_is_refused_while_the_first_removes_what_it_replaced(tmp_path, monkeypatch, way):
    out = tmp_path / "out"
    output(out, "old")
    removing, go_on = threading.Event(), threading.Event()
    rmtree = shutil.rmtree

    def slowly(path, *given, **options):
        removing.set()
        assert go_on.wait(10)
        rmtree(path, *given, **options)

    monkeypatch.setattr(shutil, "rmtree", slowly)
    first = threading.Thread(target=run, args=(out, "first"))
    first.start()
    assert removing.wait(10)
    try:
        for plan in (HASH, OTHER):
            with pytest.raises(UsageError, match="another porter is writing"):
                run(out, "second", plan)
    finally:
        go_on.set()
        first.join()
    assert (out / "weights").read_text() == "first"
    run(out, "second")
    assert (out / "weights").read_text() == "second"
    assert names(tmp_path) == ["out"]


PROGRAM = """
import sys
from pathlib import Path
from porter.errors import UsageError
from porter.execution.staging import RECEIPT, publish, staging
out, done = Path(sys.argv[1]), 0
for number in range(40):
    try:
        with staging(out, "sha256:" + sys.argv[2] * 12, lambda text: None, force=True) as stage:
            stage.clear()
            (stage.path / "weights").write_text(sys.argv[2])
            (stage.path / RECEIPT).write_text("{}")
            publish(stage, out, force=True, files=["weights", RECEIPT])
        done += 1
    except UsageError as error:
        assert "another porter" in error.message, error
print(done)
"""


def test_many_at_once_end_well_or_are_refused(tmp_path):
    """None of them meets a name that has gone, and the output is whole at any moment after the first."""
    out = tmp_path / "out"
    run(out, "0")
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(out), digit],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for digit in "0123"
    ]
    seen = 0
    while any(process.poll() is None for process in running):
        assert (out / "weights").read_text() in set("0123")
        seen += 1
    ended = [process.communicate() for process in running]
    assert [errors for _, errors in ended] == [""] * 4
    assert sum(int(printed) for printed, _ in ended) >= 4 and seen > 4
    assert names(tmp_path) == ["out"]


def test_a_lock_that_was_left_is_taken(tmp_path):
    (tmp_path / ".out.porter-lock").write_text("")
    run(tmp_path / "out", "new")
    assert names(tmp_path) == ["out"]


# --- what may be replaced is looked at in the moment ------------------------------------------------


@pytest.mark.parametrize("meanwhile", ["receipt removed", "made anew", "made", "a file"])
def test_what_became_the_users_meanwhile_stays(tmp_path, way, meanwhile):
    out = tmp_path / "out"
    if meanwhile != "made":
        output(out, "old")

    def user():
        if meanwhile == "receipt removed":
            (out / RECEIPT).unlink()
            return
        if out.exists():
            shutil.rmtree(out)
        if meanwhile == "a file":
            out.write_text("thesis")
        else:
            output(out, "thesis", receipt=False)

    with pytest.raises(UsageError, match=r"not written by porter|has come to be"):
        run(out, "new", before=user)
    left = out if meanwhile == "a file" else out / "weights"
    assert left.read_text() == ("old" if meanwhile == "receipt removed" else "thesis")
    assert names(tmp_path) == ["out"]


def sealed(out):
    """An output with a receipt that says what porter wrote into it."""
    output(out, "old")
    (out / RECEIPT).write_bytes(seal({"plan": "sha256:" + 64 * "a", "files": {"weights": {"size": 3}}}))


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("name", ["trained.pth", "checkpoints/step-1"])
def test_what_the_user_put_into_an_output_is_not_lost_with_it(tmp_path, way, when, name):
    out = tmp_path / "out"
    sealed(out)

    def put():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("a week's work")

    if when == "before":
        put()
        with pytest.raises(UsageError, match="would lose it") as caught:
            check_output(out, None, [], force=True)
    else:
        with pytest.raises(UsageError, match="would lose it") as caught:
            run(out, "new", before=put)
    assert name in caught.value.cause
    assert (out / "weights").read_text() == "old" and (out / name).read_text() == "a week's work"
    assert names(tmp_path) == ["out"]


def test_what_porter_put_into_it_later_is_replaced(tmp_path, way):
    out = tmp_path / "out"
    sealed(out)
    (out / "model.sig").write_text("{}")
    check_output(out, None, [], force=True)
    run(out, "new")
    assert (out / "weights").read_text() == "new" and names(out) == [RECEIPT, "weights"]


def test_without_force_nothing_that_came_meanwhile_is_replaced(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="has come to be"):
        run(out, "new", force=False, before=lambda: output(out, "other"))
    assert (out / "weights").read_text() == "other"
    assert names(tmp_path) == ["out"]


def test_what_cannot_be_changed_back_is_never_removed(tmp_path, monkeypatch):
    out = tmp_path / "out"
    output(out, "old")
    calls = []

    def once(one, other):
        calls.append(one)
        if len(calls) > 1:
            raise OSError(5, "injected")
        one.rename(tmp_path / "between")
        other.rename(one)
        (tmp_path / "between").rename(other)
        return True

    monkeypatch.setattr(system, "exchange", once)
    with pytest.raises(PorterError, match="was not written by porter") as caught:
        run(out, "new", before=(out / RECEIPT).unlink)
    (left,) = tmp_path.glob(".out.porter-new-*")
    assert str(left) in caught.value.message and (left / "weights").read_text() == "old"
    said = []
    monkeypatch.undo()
    run(out, "newer", notice=said.append)
    assert (left / "weights").read_text() == "old"
    assert any(str(left) in text and "left to you" in text for text in said)


# --- what goes out ---------------------------------------------------------------------------------


def test_what_is_not_in_the_plan_does_not_go_out(tmp_path):
    out, said = tmp_path / "out", []

    def plant():
        stage = stage_name(out, HASH)
        (stage / "planted.py").write_text("import os")
        (stage / ".hidden").write_text("")
        (stage / "folder").mkdir()
        (stage / "folder" / "deep").write_text("")
        (stage / "link").symlink_to("/etc/passwd")
        os.mkfifo(stage / "pipe")

    run(out, "new", before=plant, notice=said.append, files=["weights", RECEIPT])
    assert names(out) == [RECEIPT, "weights"]
    assert [text.split()[0] for text in sorted(said)] == [".hidden", "folder", "link", "pipe", "planted.py"]


def test_folders_of_planned_files_stay(tmp_path):
    out = tmp_path / "out"

    def more():
        stage = stage_name(out, HASH)
        (stage / "a" / "b").mkdir(parents=True)
        (stage / "a" / "b" / "c").write_text("c")
        (stage / "a" / "b" / "d").write_text("d")

    run(out, "new", before=more, files=["weights", RECEIPT, "a/b/c"])
    assert [str(path.relative_to(out)) for path in sorted(out.rglob("*"))] == [
        "a", "a/b", "a/b/c", RECEIPT, "weights",
    ]  # fmt: skip


@pytest.mark.parametrize("instead", ["link", "hard link", "nothing", "folder"])
def test_another_thing_in_the_place_of_a_planned_file_stops_it(tmp_path, instead):
    out = tmp_path / "out"
    (tmp_path / "secret").write_text("secret")

    def plant():
        weights = stage_name(out, HASH) / "weights"
        weights.unlink()
        if instead == "link":
            weights.symlink_to(tmp_path / "secret")
        elif instead == "hard link":
            weights.hardlink_to(tmp_path / "secret")
        elif instead == "folder":
            weights.mkdir()

    with pytest.raises(PorterError, match="weights"):
        run(out, "new", before=plant, files=["weights", RECEIPT])
    assert names(tmp_path) == ["secret"]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0])
def test_modes_are_those_of_the_run_that_publishes(tmp_path, mask):
    out, seen = tmp_path / "out", []
    old = os.umask(0o027)
    try:
        with staging(out, HASH, lambda text: None) as stage:
            seen.append(stat.S_IMODE(stage.path.stat().st_mode))
            (stage.path / "weights").write_text("old")
            stage.keep = True
        os.umask(mask)
        with staging(out, HASH, lambda text: None) as stage:
            publish(stage, out, force=False, files=["weights"])
    finally:
        os.umask(old)
    assert seen == [0o700]
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE((out / "weights").stat().st_mode) == 0o666 & ~mask


# --- whose it is -----------------------------------------------------------------------------------


def spoil(stage, how):
    file = stage / "weights"
    if how == "directory of another":
        os.chown(stage, 12345, -1)
    elif how == "directory writable":
        stage.chmod(0o777)
    elif how == "journal of another":
        os.chown(stage / JOURNAL, 12345, -1)
    elif how == "file writable":
        stage.chmod(0o755)
        file.chmod(0o666)
    elif how == "file with another name":
        (stage.parent / "hard").hardlink_to(file)
    elif how == "link":
        file.unlink()
        file.symlink_to("/etc/passwd")
    elif how == "directory is a link":
        stage.rename(stage.parent / "elsewhere")
        stage.symlink_to("elsewhere")
    elif how == "directory is a file":
        shutil.rmtree(stage)
        stage.write_text("")


@pytest.mark.parametrize(
    "how",
    [
        "directory of another",
        "directory writable",
        "journal of another",
        "file writable",
        "file with another name",
        "link",
        "directory is a link",
        "directory is a file",
    ],
)
def test_what_another_could_have_made_is_not_adopted(tmp_path, how):
    if "another" in how and "name" not in how and os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    out = tmp_path / "out"
    with staging(out, HASH, lambda text: None) as stage:
        stage.journal.write_text("noted")
        (stage.path / "weights").write_text("theirs")
        stage.keep = True
    spoil(stage.path, how)
    with pytest.raises(UsageError, match="is not taken for the work of an earlier run"):
        run(out, "new")
    assert not out.exists()


def test_what_is_ones_own_is_adopted(tmp_path):
    """The negative control of the test above."""
    out = tmp_path / "out"
    with staging(out, HASH, lambda text: None) as stage:
        (stage.path / "weights").write_text("mine")
        (stage.path / "weights").chmod(0o666)
        stage.keep = True
    with staging(out, HASH, lambda text: None) as stage:
        assert (stage.path / "weights").read_text() == "mine"


def test_what_another_user_has_put_beside_is_not_put_back(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    theirs = tmp_path / ".out.porter-old-0123456789ab"
    output(theirs, "theirs")
    os.chown(theirs, 12345, -1)
    run(tmp_path / "out", "new")
    assert (tmp_path / "out" / "weights").read_text() == "new"
    assert (theirs / "weights").read_text() == "theirs"


# --- killed ----------------------------------------------------------------------------------------


def killed_at(aside, step, out):
    """Runs in a process of its own that ends, without any cleaning up, at its `step`-th call on names."""
    program = f"""
import os, shutil, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from porter import system
from porter.execution import staging as module
left = {step}
def counted(call):
    def made(*given, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return call(*given, **options)
    return made
if {aside!r}:
    system.exchange = lambda one, other: False
for name in ("rename", "unlink", "rmdir", "open", "mkdir", "chmod"):
    setattr(os, name, counted(getattr(os, name)))
system.exchange = counted(system.exchange)
out = Path({str(out)!r})
with module.staging(out, {OTHER!r}, lambda text: None, force=True) as stage:
    stage.clear()
    (stage.path / "weights").write_text("new")
    (stage.path / module.RECEIPT).write_text("{{}}")
    module.publish(stage, out, force=True, files=["weights", module.RECEIPT])
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.mark.parametrize("aside", [False, True], ids=["exchanged", "moved aside"])
def test_killed_at_any_call_one_of_both_outputs_is_there_and_the_rest_is_cleaned(tmp_path, aside):
    for step in range(60):
        root = tmp_path / str(step)
        root.mkdir()
        out = root / "out"
        output(out, "old")
        done = killed_at(aside, step, out)
        assert done.returncode in (0, 9), done.stderr
        if out.exists():
            whole = out
        else:
            assert aside, "an exchange leaves no moment without an output"
            (whole,) = root.glob(".out.porter-old-*")
        assert (whole / "weights").read_text() in ("old", "new") and (whole / RECEIPT).exists()
        said = []
        with staging(out, HASH, said.append, force=True):
            assert (out / "weights").read_text() in ("old", "new")
        assert names(root) == ["out"], (step, said)
        if done.returncode == 0:
            break
    assert step > 10 and done.returncode == 0


def test_a_run_without_force_says_that_an_output_was_put_back(tmp_path):
    out, said = tmp_path / "out", []
    output(tmp_path / ".out.porter-old-0123456789ab", "old")
    with pytest.raises(UsageError, match="not empty"):
        run(out, "new", force=False, notice=said.append)
    assert (out / "weights").read_text() == "old"
    assert "is put back" in said[0]


def test_what_cannot_be_removed_is_named_and_removed_later(tmp_path, monkeypatch, way):
    out, said = tmp_path / "out", []
    output(out, "old")

    def fail(path, *given, **options):
        raise OSError(5, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", fail)
        run(out, "new", notice=said.append)
    (left,) = find_leftovers(tmp_path)
    assert str(left.path) in said[0] and "doctor(clean=True)" in said[0] and "injected" in said[0]
    assert left.kind == "gone" and left.nbytes > 0
    run(out, "newer", notice=said.append)
    assert "had been replaced is removed" in said[1]
    assert names(tmp_path) == ["out"]


def test_names_that_cannot_be_made_durable_are_said(tmp_path, monkeypatch, way):
    out = tmp_path / "out"
    output(out, "old")
    sync = system.sync_directory

    def fail(path):
        if path == tmp_path:
            raise OSError(5, "injected")
        sync(path)

    monkeypatch.setattr(system, "sync_directory", fail)
    with pytest.raises(PorterError, match="holds the new output, but may not outlive") as caught:
        run(out, "new")
    assert (out / "weights").read_text() == "new"
    (old,) = [left.path for left in find_leftovers(tmp_path)]
    assert (old / "weights").read_text() == "old"
    assert str(old) in caught.value.cause and caught.value.exit_code == 1


def test_directories_are_durable_before_they_are_published(tmp_path, monkeypatch):
    out, seen = tmp_path / "out", []
    sync = system.sync_directory
    monkeypatch.setattr(
        system, "sync_directory", lambda path: (seen.append((path, out.exists())), sync(path))
    )
    with staging(out, HASH, lambda text: None) as stage:
        (stage.path / "a").mkdir()
        (stage.path / "a" / "b").write_text("")
        module.publish(stage, out, force=False, files=["a/b"])
    assert seen == [(stage.path / "a", False), (stage.path, False), (tmp_path, True)]


# --- arrays that a library has written out ----------------------------------------------------------


def test_arrays_of_a_killed_run_are_removed_and_those_of_a_running_one_are_not(tmp_path):
    out = tmp_path / "out"
    left, used = (tmp_path / f".out.porter-arrays-{digit * 12}" for digit in "01")
    for folder in (left, used):
        folder.mkdir()
        (folder / "0").write_text("numbers")
    held = os.open(used, os.O_RDONLY)
    assert system.try_lock(held)
    assert [found.words for found in find_leftovers(tmp_path)] == ["arrays that were to be read"] * 2
    said = []
    run(out, "new", notice=said.append)
    assert names(tmp_path) == [used.name, "out"]
    assert said == [f"arrays that were to be read for {out} are removed"]
    os.close(held)
    run(out, "newer")
    assert names(tmp_path) == ["out"]


def test_a_probe_for_owners_bears_a_name_that_is_found(tmp_path, monkeypatch):
    """A run that is killed between making it and removing it leaves it behind."""
    seen = []
    monkeypatch.setattr(Path, "rmdir", lambda path: seen.append(path))
    probe = fresh_name(tmp_path / "out", "gone")
    theirs = os.stat_result((0o40700, 0, 0, 1, 12345, 0, 0, 0, 0, 0))
    assert not is_ours(theirs, probe)
    assert [found.path for found in find_leftovers(tmp_path)] == seen == [probe]


def test_an_interrupt_after_the_publication_does_not_promise_to_go_on(tmp_path, monkeypatch):
    out, said = tmp_path / "out", []
    sink = DirectorySink(out, HASH, watch=Watch(notice=said.append))

    def late(*given, **options):
        publish(*given, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr("porter.execution.sinks.directory.publish", late)
    with pytest.raises(KeyboardInterrupt) as raised, sink:
        sink.begin({})
        writer = sink.create(OutputFile("weights", "", 8, ()))
        writer.write(0, b"newbytes")
        sink.note(writer, 0, 8, 1)
        sink.close(writer)
        sink.commit()
    assert not isinstance(raised.value, Interrupted) and said == [f"{out} is complete"]
    assert (out / "weights").read_bytes() == b"newbytes" and names(tmp_path) == ["out"]
