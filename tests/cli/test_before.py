"""What needs no byte of the source to fail, fails before the first line of progress, and says what to do."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from porter.errors import refused as in_words
from porter.execution import preflight
from porter.execution.cluster import ray_pool
from tests.cli.test_refusals import quantised_gemma


@pytest.fixture
def before(refused):
    """Runs a conversion that must be refused before its plan is announced; stderr."""

    def run(code, arguments, *words):
        said = refused(code, arguments, *words)
        assert "plan     " not in said and "convert  " not in said
        assert ".porter-" not in said, "a hidden path is not the message"
        return said

    return run


def test_an_output_in_the_way(before, gemma, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    before(2, ["convert", gemma, "--to", "hf", "-o", tmp_path / "out"], "is not empty", "--force")
    before(2, ["convert", gemma, "--to", "hf", "-o", tmp_path / "out" / "mine"], "is no directory")
    before(2, ["convert", gemma, "--to", "hf", "-o", tmp_path / "out" / "mine" / "x"], "is no directory")
    before(2, ["convert", gemma, "--to", "hf", "-o", gemma], "lie in one another")


def test_a_name_that_is_too_long(before, gemma, tmp_path):
    before(2, ["convert", gemma, "--to", "hf", "-o", tmp_path / ("x" * 240)], "too long", "shorter")


def test_a_place_that_may_not_be_written(before, gemma, tmp_path, monkeypatch):
    # Root may write everywhere.
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: Path(path) != tmp_path / "closed")
    (tmp_path / "closed").mkdir()
    for out in ("out", "more/out"):
        said = before(2, ["convert", gemma, "--to", "hf", "-o", tmp_path / "closed" / out], "permission")
        assert str(tmp_path / "closed") in said


def test_a_disk_without_room_says_how_much_is_missing_and_where(before, gemma, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=30_000, total=10**9, used=0)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage)
    arguments = ["convert", gemma, "--to", "hf", "--reflink", "never", "-o", tmp_path / "new" / "out"]
    said = before(1, arguments, "0.03 MB are free", "0.02 MB are missing", f"on the disk of {tmp_path}")
    assert "doctor --clean" in said
    usage.free = 60_000
    with pytest.raises(AssertionError):
        before(1, arguments)


def test_shared_blocks_need_no_room(call, gemma, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=30_000, total=1))
    monkeypatch.setattr(preflight, "shares_blocks", lambda folder: True)
    monkeypatch.setattr(preflight, "shareable_bytes", lambda plan: 40_000)
    assert call("convert", gemma, "--to", "hf", "-o", tmp_path / "out").returncode == 0


@pytest.mark.parametrize(
    ("number", "words", "hint"),
    [
        (errno.ENOSPC, "the disk is full", "out="),
        (errno.EACCES, "no permission", "owner"),
        (errno.EROFS, "can only be read", "out="),
        (errno.EMFILE, "too many files", "ulimit"),
        (errno.EIO, "failed to read or write", "look after the disk"),
    ],
)
def test_errnos_are_explained(number, words, hint):
    error = in_words("it failed", OSError(number, os.strerror(number), "/some/path"))
    assert words in error.cause and error.cause.endswith(": /some/path")
    assert hint in error.hint
    assert "Errno" not in str(error)
    assert str(in_words("it failed", OSError(errno.ECHILD, "No child")).cause) == "No child"


def test_blocks_that_have_to_be_shared_and_cannot(before, call, gemma, tmp_path, monkeypatch):
    words = ["convert", gemma, "--to", "hf", "-o", tmp_path / "out", "--reflink"]
    monkeypatch.setattr(preflight, "shares_blocks", lambda folder: False)
    before(5, [*words, "always"], "cannot share blocks", "shares no blocks", "leave out --reflink always")
    monkeypatch.setattr(preflight, "shares_blocks", lambda folder: True)
    # The tiny model has no whole block.
    before(5, [*words, "always"], "cannot share blocks", "no whole block of model", "--reflink always")
    assert not (tmp_path / "out").exists()
    assert call(*words, "auto").returncode == 0


def test_a_cluster_without_ray(before, gemma, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(ray_pool, "find_spec", lambda name: None)
    before(5, ["convert", gemma, "--to", "hf", "-o", tmp_path / "out", "--on", "ray"], "ray", "pip install")


def test_quantised_weights_without_the_package_that_reads_them(before, tmp_path, monkeypatch):
    source = quantised_gemma(tmp_path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    words = ["convert", source, "--to", "hf", "--dtype", "float32", "-o", tmp_path / "out"]
    before(5, words, "Q8_0 needs the gguf package", "pip install", "the extra gguf")


def test_a_place_where_no_directory_can_be_made(before, gemma):
    # Not even root may, and what may be written is no answer to that.
    before(2, ["convert", gemma, "--to", "hf", "-o", "/proc/out"], "no directory can be made in /proc", "-o")
