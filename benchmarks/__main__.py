"""`python -m benchmarks WORKDIR`: makes checkpoints, runs porter and its peers in turn, prints a table.

Promises times of whole processes until their bytes are on disk, medians over rounds, with the noise beside
them. Writes results.json and, with --chart, an SVG. Everything it makes in WORKDIR is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import conversions, plans, remote
from benchmarks.chart import bars
from benchmarks.make_gemma import make
from benchmarks.measure import clean

_REMOTE, _START, _XFS = "from the Hub to litgpt", "start-up", "XFS"

Results = dict[str, Any]


def measure(work: Path, rounds: int, *, peers: bool, only: str) -> Iterator[tuple[str, Results]]:
    """Each case with what was measured, as JSON values. Cases that cannot be run here say why."""
    for case in conversions.CASES:
        if only in case.name:
            yield from _tried(
                case.name, lambda case=case: conversions.measured(case, work, rounds, peers=peers)
            )
    if only in _REMOTE:
        yield from _tried(_REMOTE, lambda: remote.measured(work, rounds, peers=peers))
    if only in _START:
        yield from _tried(_START, lambda: plans.measured(work, rounds))
    if only in _XFS:
        try:
            yield from conversions.shared(work, rounds)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            yield _XFS, {"skipped": str(error)}


def _tried(name: str, work: Any) -> Iterator[tuple[str, Results]]:
    print(f"{name} …", file=sys.stderr)
    try:
        yield name, work()
    except RuntimeError as error:
        yield name, {"skipped": str(error)}


def table(name: str, found: Results) -> Iterator[str]:
    """One case as lines of text: each subject's time, and porter's in units of it."""
    if "skipped" in found:
        yield f"{name}: left out, {found['skipped']}"
        return
    yield f"{name}" + (f" (goal {found['goal']:.2f} × {found['peer']})" if "goal" in found else "")
    for subject, times in found["subjects"].items():
        spread = f"{times['median']:.2f} s ({times['min']:.2f}–{times['max']:.2f})"
        ratio = found.get("ratios", {}).get(subject)
        of = f"porter takes {ratio:.2f} of it" if ratio is not None else ""
        yield f"  {subject:<26} {spread:>24} {times['peak_rss'] / 1e6:>6.0f} MB  {of}".rstrip()
    if "new_disk" in found:
        yield f"  {found['new_disk'] / found['size']:.1%} new disk"


def draw(results: Mapping[str, Results], path: Path) -> None:
    """The chart of the conversion that every subject can do."""
    plain = conversions.CASES[1].name
    titles = {"porter": "porter, ext4", "cp": "cp, ext4", "LitGPT": "LitGPT's converter, ext4"}
    rows = [
        (title, results[case]["subjects"][subject]["median"])
        for case, subject, title in (
            (f"{_XFS}: {plain}", "porter", "porter, blocks shared (XFS)"),
            *((plain, subject, title) for subject, title in titles.items()),
        )
        if subject in results.get(case, {}).get("subjects", {})
    ]
    if rows:
        labelled = [(label, value, f"{value:.1f} s") for label, value in rows]
        path.write_text(bars("Gemma 2B, Hugging Face to LitGPT, seconds", labelled))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("work", type=Path, help="a directory to be made, on the disk to be measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true", help="leave out LitGPT and the Hub's client")
    parser.add_argument("--size", default="2b", choices=("2b", "7b", "tiny"))
    parser.add_argument("--only", default="", help="only what has this in its name: XFS, start-up, …")
    parser.add_argument("--json", type=Path, default=Path("results.json"))
    parser.add_argument("--chart", type=Path)
    arguments = parser.parse_args()
    peers = not arguments.no_peers and arguments.size == "2b"
    results: dict[str, Results] = {}
    arguments.work.mkdir()
    try:
        make(arguments.work / "hf", arguments.size)
        os.sync()
        for name, found in measure(arguments.work, arguments.rounds, peers=peers, only=arguments.only):
            results[name] = found
            print("\n".join(table(name, found)), flush=True)
    finally:
        clean(arguments.work)
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()}
    arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    if arguments.chart:
        draw(results, arguments.chart)


if __name__ == "__main__":
    main()
