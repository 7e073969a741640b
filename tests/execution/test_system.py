"""What is asked of the system works where it can, and says why where it cannot."""

import errno
import mmap
import os
import sys
import types
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porter import cli, system
from porter.execution.crc import joined
from porter.system import clone_range, durability, reserve


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_joined_crc_is_that_of_the_joined_bytes(first, second):
    assert joined(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_a_crc_joined_with_a_wrong_length_differs():
    assert joined(zlib.crc32(b"ab"), zlib.crc32(b"c"), 2) != zlib.crc32(b"abc")


def test_lengths_beyond_memory_are_joined_like_any_other():
    zeros = zlib.crc32(bytes(1 << 20))
    whole = zeros
    for _ in range(3):
        whole = joined(whole, zeros, 1 << 20)
    assert whole == zlib.crc32(bytes(4 << 20))


def test_reserved_room_has_the_size_and_reads_as_zeros(tmp_path):
    with (tmp_path / "file").open("w+b") as stream:
        reserve(stream.fileno(), 10_000)
        assert stream.read() == bytes(10_000)


def test_blocks_that_cannot_be_shared_give_a_reason(tmp_path):
    with (tmp_path / "one").open("w+b") as one, (tmp_path / "two").open("w+b") as two:
        one.write(os.urandom(8192))
        one.flush()
        # No file system shares parts of blocks.
        assert clone_range(one.fileno(), 1, two.fileno(), 0, 100)


@pytest.mark.parametrize("plain", [False, True], ids=["as here", "without preadv and pwritev"])
def test_reading_and_writing_at_an_offset(tmp_path, monkeypatch, plain):
    if plain:
        monkeypatch.delattr(os, "preadv")
        monkeypatch.delattr(os, "pwritev")
    with (tmp_path / "file").open("w+b") as stream:
        stream.write(b"0123456789")
        stream.flush()
        views = [memoryview(bytearray(size)) for size in (3, 0, 5)]
        assert system.read_into(stream.fileno(), views, 1) == 8
        assert [bytes(view) for view in views] == [b"123", b"", b"45678"]
        assert system.read_into(stream.fileno(), views, 8) == 2
        assert system.read_into(stream.fileno(), views, 10) == 0
        pieces, offset = [memoryview(b"ab"), memoryview(b"cde")], 4
        while pieces:
            count = system.write_from(stream.fileno(), pieces, offset)
            offset += count
            while pieces and count >= len(pieces[0]):
                count -= len(pieces.pop(0))
        assert os.pread(stream.fileno(), 20, 0) == b"0123abcde9"


def test_more_buffers_than_one_call_takes(tmp_path):
    with (tmp_path / "file").open("w+b") as stream:
        views = [memoryview(b"x")] * 3000
        assert 0 < system.write_from(stream.fileno(), views, 0) <= 1024
        assert 0 < system.read_into(stream.fileno(), [memoryview(bytearray(1))] * 3000, 0) <= 1024


def test_directories_are_exchanged(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    if not system.exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot")
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()
    with pytest.raises(FileNotFoundError):
        system.exchange(tmp_path / "a", tmp_path / "gone")


def test_a_disk_that_fails_is_never_passed_over(tmp_path, monkeypatch):
    def fail(fd):
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "fdatasync", fail, raising=False)
    with (tmp_path / "file").open("w+b") as stream:
        for sync in (system.sync_data, system.sync_file):
            with pytest.raises(OSError, match="injected"):
                sync(stream.fileno())
    with pytest.raises(OSError, match="injected"):
        system.sync_directory(tmp_path)


def test_macos_waits_for_the_disk_and_falls_back(tmp_path, monkeypatch):
    """F_FULLFSYNC where the system has it; fsync where the file system refuses it; other errors are told."""
    calls, answer = [], []

    def control(fd, command, *given):
        calls.append(command)
        if answer:
            raise OSError(answer[0], "injected")
        return 0

    monkeypatch.setattr(durability, "fcntl", types.SimpleNamespace(F_FULLFSYNC=51, fcntl=control))
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync"))
    system.sync_data(0)
    answer.append(errno.ENOTSUP)
    system.sync_file(0)
    answer[0] = errno.EIO
    with pytest.raises(OSError, match="injected"):
        system.sync_data(0)
    assert calls == [51, 51, "fsync", 51]


def test_memory_is_there_and_pages_are_given_back(tmp_path):
    memory = system.anonymous_memory(5 << 20)
    memory[-1] = 7
    assert len(memory) == 5 << 20 and bytes(memory[:3]) == bytes(3) and memory[-1] == 7
    with (tmp_path / "file").open("w+b") as stream:
        stream.write(bytes(3 * mmap.PAGESIZE))
        stream.flush()
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            system.forget(mapped, 10, 2 * mmap.PAGESIZE)
            system.advise(stream.fileno(), "sequential", 0, 0)
            assert mapped[0] == 0


def test_windows_is_sent_to_wsl(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 5
    assert "WSL" in capsys.readouterr().err
