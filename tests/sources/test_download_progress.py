"""A download on a slow link: what is shown, and what an interrupt leaves for the next run."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from porter.sources.hub.hub_ahead import Ahead, ahead_of, keep

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

# Two ranges and a part of one, so that several are under way and none is whole within seconds.
DATA = random.Random(5).randbytes(20_000_003)


@pytest.fixture
def slow(hub: Any) -> Any:
    """A Hub that sends each connection 200 kB a second."""
    hub.server.add("org/model", {"config.json": b"{}", "model.safetensors": DATA})
    hub.server.fault("model.safetensors", "slow", 99)
    return hub


class Frames:
    """What a command shows on a terminal, each frame with its time, until it has been interrupted."""

    def __init__(self, env: dict[str, str], cwd: Path, *words: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "porter", *words],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**env, "TERM": "xterm-256color", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        )
        os.close(slave)
        self.shown: list[tuple[float, str]] = []

    def until(self, wanted: str, seconds: float) -> None:
        """Reads until a frame has it."""
        deadline = time.monotonic() + seconds
        while not any(re.search(wanted, frame) for _, frame in self.shown):
            assert time.monotonic() < deadline, [frame for _, frame in self.shown][-5:]
            self.read()

    def read(self) -> bool:
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        now = time.monotonic()
        plain = _ANSI.sub("", data.decode(errors="replace"))
        self.shown += [(now, frame.rstrip()) for frame in re.split(r"[\r\n]+", plain) if frame.strip()]
        return bool(data)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        while self.read():
            pass
        os.close(self.master)
        return self.process.wait(30)


@pytest.mark.parametrize("command", ["download", "convert"])
def test_on_a_slow_link_it_moves_long_before_a_range_is_there(
    slow: Any, tmp_path: Path, command: str
) -> None:
    words = ["download", "org/model"]
    if command == "convert":
        from tests.users.test_errors_page import CONFIG, SHAPES

        add_llama(
            slow, {**CONFIG, "vocab_size": 400_000}, {**SHAPES, "model.embed_tokens.weight": (400_000, 12)}
        )
        words = ["convert", "org/llama", "--to", "litgpt", "--tied", "omit", "-o", str(tmp_path / "out")]
    frames = Frames(slow.env, tmp_path, *words)
    frames.until(rf"^{command} .*  0%", 60)
    frames.until(rf"^{command} .*  [1-9]%.* [\d.]+/[\d.]+ .B", 60)
    amount = rf"{command} .* (0\.[1-9]|[1-9][\d.]*)/[\d.]+ MB"
    first = next(float(m[1]) for _, frame in frames.shown if (m := re.match(amount, frame)))
    # Bytes as they come, and not ranges as they are finished, of which none is smaller.
    assert first < 8
    assert frames.interrupt() == 130
    bars = [frame for _, frame in frames.shown if frame.startswith(f"{command} ")]
    assert len(bars) > 3 and max(map(len, bars)) <= 80


def add_llama(hub: Any, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    import json

    import numpy as np
    from safetensors.numpy import save

    content = save({name: np.ones(shape, np.float16) for name, shape in shapes.items()})
    hub.server.add("org/llama", {"config.json": json.dumps(config).encode(), "model.safetensors": content})


def test_an_interrupt_keeps_what_has_come_of_every_range(slow: Any, tmp_path: Path) -> None:
    frames = Frames(slow.env, tmp_path, "download", "org/model")
    frames.until(r"^download .* [2-9]\.\d/20\.0 MB", 60)
    assert frames.interrupt() == 130
    came = (
        max(float(m[1]) for _, frame in frames.shown if (m := re.search(r"([\d.]+)/20\.0 MB", frame))) * 1e6
    )
    assert list(slow.cache.rglob("*.incomplete.ahead"))
    slow.server.faults.clear()
    slow.server.forget()
    again = slow.download("org/model")
    assert (Path(again["path"]) / "model.safetensors").read_bytes() == DATA
    # Of the ranges that were under way, nothing that had come is asked for again.
    assert slow.server.file_bytes <= len(DATA) - came + 100_000
    assert not [path for path in slow.cache.rglob("*") if "incomplete" in path.name]


def test_ranges_are_kept_and_taken_up(tmp_path: Path) -> None:
    data = bytes(range(100))
    partial = tmp_path / "blob.incomplete"
    partial.write_bytes(data[:10])
    fd = os.open(partial, os.O_RDWR)
    view = memoryview(data)
    # Of the first range four bytes stand already; the second has come in part.
    keep(partial, fd, 10, [(40, view[40:70]), (6, view[6:20]), (20, view[20:25]), (80, view[80:80])])
    os.close(fd)
    assert partial.read_bytes() == data[:25]
    ahead = Ahead(partial)
    assert not ahead_of(partial).exists() and ahead.nbytes == 30
    room = bytearray(50)
    assert list(ahead.fill(25, memoryview(room))) == [(25, 40), (70, 75)]
    assert room[15:45] == data[40:70] and not any(room[:15]) and not any(room[45:])
    ahead.close()
    assert list(Ahead(partial).fill(3, memoryview(bytearray(4)))) == [(3, 7)], "nothing was left"


def test_what_was_cut_off_is_not_taken_up(tmp_path: Path) -> None:
    partial = tmp_path / "blob.incomplete"
    partial.write_bytes(b"")
    fd = os.open(partial, os.O_RDWR)
    keep(partial, fd, 0, [(5, memoryview(b"five!")), (20, memoryview(b"twenty"))])
    os.close(fd)
    content = ahead_of(partial).read_bytes()
    ahead_of(partial).write_bytes(content[:-1])
    ahead = Ahead(partial)
    assert ahead.nbytes == 5 and list(ahead.fill(0, memoryview(bytearray(30)))) == [(0, 5), (10, 30)]
    ahead.close()
