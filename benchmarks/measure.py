"""Timing whole processes: wall time until the bytes are on disk, and peak resident memory."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Seconds and bytes of peak RSS of one run.
Subject = Callable[[], tuple[float, int]]


@dataclass
class Series:
    """The runs of one subject: seconds each, and the largest peak RSS in bytes (mapped pages counted)."""

    seconds: list[float] = field(default_factory=list)
    rss: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def add(self, seconds: float, rss: int) -> None:
        self.seconds.append(seconds)
        self.rss = max(self.rss, rss)

    def to_json(self) -> dict[str, object]:
        return {
            "median": self.median,
            "min": min(self.seconds),
            "max": max(self.seconds),
            "runs": self.seconds,
            "peak_rss": self.rss,
        }


def run(
    command: Sequence[str | Path], *, synced: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[float, int]:
    """Seconds and peak RSS of a process, with the fsync of every file under `synced` that it left unsynced.

    Raises RuntimeError with the end of what it printed where it fails.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{printed[-2000:]}")
    if synced is not None:
        _sync(synced)
    return time.perf_counter() - begun, usage.ru_maxrss * 1024


def clean(*paths: Path) -> None:
    """Removes what earlier runs left, and lets the disk come to rest."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    os.sync()


def interleaved(
    subjects: Mapping[str, Subject], rounds: int, before: Callable[[], None] = lambda: None
) -> dict[str, Series]:
    """Runs the subjects in turn, so that what disturbs the machine disturbs them all.

    `before` each run the same is done, so that all find the same memory and the same disk: where another's
    output is still in the cache, a run gets pages that a virtual machine has to ask its host for.
    """
    series = {name: Series() for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            before()
            series[name].add(*subject())
    return series


def ratio(series: Mapping[str, Series], one: str, other: str) -> float:
    """The median over rounds of what `one` took, in units of what `other` took in the same round."""
    pairs = zip(series[one].seconds, series[other].seconds, strict=False)
    return statistics.median(first / second for first, second in pairs)


def _sync(path: Path) -> None:
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
