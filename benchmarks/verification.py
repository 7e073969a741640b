"""`python -m benchmarks.verification SRC OUT…`: what `porter verify` costs, against sha256sum of both sides.

The two take turns, so that they meet the same machine and a warm cache; times are of the processor, user and
system, since others may be at work. Prints a row of a table for each OUT: what was read in all, for each
tensor and in relation to the two sides' weight files, and the largest resident memory, mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from porter.containers.checkpoint import open_checkpoint
from porter.sources.local import locate

HEAD = "| port | verdict | read | a tensor | of both sides | time / sha256sum | memory |"


def weight_files(folder: Path) -> list[Path]:
    checkpoint = open_checkpoint(locate(folder))
    return [checkpoint.root / header.file for header in checkpoint.headers]


def run(command: list[str]) -> tuple[str, float, int]:
    """What it prints, seconds of the processor, bytes of peak RSS."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):
        raise RuntimeError(f"{command}: exit code {process.returncode}")
    return printed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def row(source: Path, out: Path, rounds: int) -> str:
    files = [*weight_files(source), *weight_files(out)]
    size = sum(file.stat().st_size for file in files)
    ratios, peak, verdict = [], 0, {}
    for number in range(rounds + 1):
        verify = [sys.executable, "-m", "porter", "verify", str(source), str(out), "--json"]
        printed, own, most = run(verify)
        _, other, _ = run(["sha256sum", *map(str, files)])
        if number:
            ratios.append(own / other)
            peak = max(peak, most)
            verdict = json.loads(printed)
    read, tensors = verdict["weights"]["bytes_read"], verdict["weights"]["tensors"]
    said = verdict["says"] if len(verdict["says"]) < 70 else verdict["says"][:66] + "…"
    return (
        f"| {out.name} | {said} | {read / 1e9:.2f} GB | {read / tensors / 1e6:.1f} MB | {read / size:.2f} | "
        f"{statistics.median(ratios):.2f} | {peak / 1e6:.0f} MB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="SRC")
    parser.add_argument("outs", type=Path, nargs="+", metavar="OUT")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(HEAD)
    print("| --- " * 2 + "| ---: " * 5 + "|")
    for out in arguments.outs:
        print(row(arguments.source, out, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
