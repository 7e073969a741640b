"""`make faults`: every kind of fault in its full number, and the table of docs/reliability.md.

    python tests/faults/faults.py [ROW ...] [--part K/N] [--results FILE]
    python tests/faults/faults.py --write FILE

Without rows all are run and the page is written. With rows named, by some of their words, they are run alone:
of each the K-th of N parts, from 0, and what came of it is added to FILE. `--write` makes the page of such a
file and runs nothing. Needs Linux on x86-64, and root for disks of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import fault_kinds as kinds  # noqa: E402
import fault_network as network  # noqa: E402
import fault_report as report  # noqa: E402
from fault_bench import Bench, Tally, quicken  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"

Kind = Callable[[Tally], None]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", help="words of rows of the table")
    parser.add_argument("--part", default="0/1", help="K/N: the K-th of N parts of each row, from 0")
    parser.add_argument("--results", type=Path, help="a file to add what came of it to")
    parser.add_argument("--write", type=Path, help="write the page from such a file, and run nothing")
    asked = parser.parse_args()
    if asked.write:
        rows = report.merged(json.loads(line) for line in asked.write.read_text().splitlines())
        report.write(PAGE, rows)
        return _told(rows)
    at, parts = map(int, asked.part.split("/"))
    rows = _run(asked.rows, (at, parts), asked.results)
    if not asked.rows and parts == 1:
        report.write(PAGE, rows)
    return _told(rows)


def _run(chosen: list[str], part: tuple[int, int], results: Path | None) -> list[Tally]:
    base = Path(tempfile.mkdtemp(prefix="porter-faults-"))
    rows = []
    try:
        server = network.reach(base / "home")
        quicken()
        near = Bench(base)
        # It asks for connections, whose threads no run from the disk should have.
        for title, work in _near(near):
            if not chosen or any(words in title for words in chosen):
                rows.append(_row(title, work, part, results))
        far_rows = [title for title in _FAR if not chosen or any(words in title for words in chosen)]
        if far_rows:
            far = network.FarBench(near, server, base / "home")
            rows += [_row(title, lambda t, k=_FAR[title]: k(far, t), part, results) for title in far_rows]
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return rows


def _told(rows: list[Tally]) -> int:
    wrong = [line for row in rows for line in (*row.lost, *row.flaws)]
    print(*wrong, sep="\n")
    print(f"{sum(row.faults for row in rows)} faults, {sum(len(row.lost) for row in rows)} lost")
    return 1 if wrong else 0


_FAR: dict[str, Callable[[network.FarBench, Tally], None]] = {
    "the network: each bad answer, once, twice and lasting": network.answers,
    "a kill while bytes come from the Hub": lambda far, t: network.cut_short(far, t, most=40),
}


def _near(bench: Bench) -> list[tuple[str, Kind]]:
    found: list[tuple[str, Kind]] = [
        ("a kill before each system call, over an output", lambda t: kinds.kills(bench, t, force=True)),
        ("a kill where nothing was", lambda t: kinds.kills(bench, t, force=False, most=200)),
        ("a kill where names cannot be exchanged", lambda t: kinds.kills_without_exchange(bench, t, most=40)),
        ("Ctrl-C", lambda t: kinds.interrupts(bench, t, most=60)),
        ("a system call that fails, with each error", lambda t: kinds.errors(bench, t)),
        ("a read or write that does half of its work", lambda t: kinds.shorts(bench, t)),
    ]
    if os.geteuid() == 0:
        found += [
            ("a full disk (tmpfs), 20 sizes", lambda t: kinds.full_disks(bench, t, kind="tmpfs", sizes=20)),
            ("a full disk (ext4), 20 sizes", lambda t: kinds.full_disks(bench, t, kind="ext4", sizes=20)),
        ]
    found += [
        ("8 runs at once to one output, 25 times", lambda t: kinds.crowds(bench, t, rounds=25)),
        ("a source file that changes meanwhile", lambda t: kinds.changes(bench, t, moments=20)),
        ("damage to what a killed run has left", lambda t: kinds.journals(bench, t, damages=120)),
    ]
    return found


def _row(title: str, work: Kind, part: tuple[int, int], results: Path | None) -> Tally:
    tally, started = Tally(title, part=part), time.monotonic()
    try:
        work(tally)
    finally:
        # What came of a row that was stopped, or that broke, is kept too.
        print(
            f"{title}: {tally.faults}, {len(tally.lost)} lost, {len(tally.flaws)} flaws, "
            f"{dict(tally.found)}, worst {tally.seconds:.2f} s, {tally.megabytes:.0f} MB; "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
        for line in (*tally.lost[:5], *tally.flaws[:5]):
            print("   ", line, flush=True)
    if results is not None:
        with results.open("a") as stream:
            stream.write(json.dumps(report.told(tally)) + "\n")
    return tally


if __name__ == "__main__":
    assert platform.system() == "Linux" and platform.machine() == "x86_64", "Linux on x86-64 alone"
    raise SystemExit(main())
