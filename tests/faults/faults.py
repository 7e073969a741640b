"""`make faults`: every kind of fault in its full number, and the table of docs/reliability.md.

    python tests/faults/faults.py [ROW ...]      with rows of the table named, they are printed alone

Needs Linux on x86-64, and root for disks of their own; takes some ten minutes of processor time.
"""

from __future__ import annotations

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


def main(chosen: list[str]) -> int:
    base = Path(tempfile.mkdtemp(prefix="porter-faults-"))
    started, processor = time.monotonic(), sum(os.times()[:4])
    try:
        server = network.reach(base / "home")
        quicken()
        near = Bench(base)
        far = network.FarBench(near, server, base / "home")
        rows = [
            _row(title, work) for title, work in (*_near(near), *_far(far)) if not chosen or title in chosen
        ]
    finally:
        shutil.rmtree(base, ignore_errors=True)
    spent = report.Spent(time.monotonic() - started, sum(os.times()[:4]) - processor)
    if not chosen:
        report.write(ROOT / "docs" / "reliability.md", rows, spent)
    wrong = [line for row in rows for line in (*row.lost, *row.flaws)]
    print(*wrong, sep="\n")
    print(f"{sum(row.faults for row in rows)} faults, {sum(len(row.lost) for row in rows)} lost")
    return 1 if wrong else 0


def _far(far: network.FarBench) -> list[tuple[str, Callable[[Tally], None]]]:
    return [
        ("the network: each bad answer, once, twice and lasting", lambda t: network.answers(far, t)),
        ("a kill while bytes come from the Hub", lambda t: network.cut_short(far, t, most=40)),
    ]


def _near(bench: Bench) -> list[tuple[str, Callable[[Tally], None]]]:
    found: list[tuple[str, Callable[[Tally], None]]] = [
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


def _row(title: str, work: Callable[[Tally], None]) -> Tally:
    tally, started = Tally(title), time.monotonic()
    work(tally)
    print(
        f"{title}: {tally.faults}, {len(tally.lost)} lost, {len(tally.flaws)} flaws, "
        f"{dict(tally.found)}, worst {tally.seconds:.2f} s, {tally.megabytes:.0f} MB; "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )
    for line in (*tally.lost[:5], *tally.flaws[:5]):
        print("   ", line, flush=True)
    return tally


if __name__ == "__main__":
    assert platform.system() == "Linux" and platform.machine() == "x86_64", "Linux on x86-64 alone"
    raise SystemExit(main(sys.argv[1:]))
