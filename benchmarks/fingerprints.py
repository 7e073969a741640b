"""`python -m benchmarks.fingerprints DIR…`: fingerprints against plain BLAKE3 of the same weight files.

In one process and in turn, so that all meet the same machine and a warm cache. Speeds are of the weight
files' bytes; the ratio is the median over rounds of porter's speed to the peer's in the same round. BLAKE3
hashes mapped files, in one thread (what the package does unasked) and in as many as there are processors.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

import porter
from porter.containers.checkpoint import open_checkpoint
from porter.sources.local import locate


def plain(folder: Path, threads: int) -> None:
    checkpoint = open_checkpoint(locate(folder))
    for header in checkpoint.headers:
        blake3(max_threads=threads).update_mmap(checkpoint.root / header.file).digest()


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measured(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by what was done; the first round warms the cache and does not count."""
    subjects: dict[str, Callable[[], object]] = {
        "porter": lambda: porter.fingerprint(folder),
        "one thread": lambda: plain(folder, 1),
        "all threads": lambda: plain(folder, blake3.AUTO),
    }
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, work in subjects.items():
            taken = seconds(work)
            if number:
                found[name].append(taken)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        found = measured(folder, arguments.rounds)
        size = sum(header.size for header in open_checkpoint(locate(folder)).headers)
        own = found["porter"]
        print(f"{folder}: {size / 1e9:.2f} GB, {size / statistics.median(own) / 1e9:.2f} GB/s")
        for name in ("one thread", "all threads"):
            ratios = [other / mine for mine, other in zip(own, found[name], strict=True)]
            print(
                f"  {statistics.median(ratios):.2f} of plain BLAKE3 in {name} "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
