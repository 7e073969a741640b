"""The table of faults in docs/reliability.md; the rest of the page is left as it is."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fault_bench import Tally

START, END = "<!-- made by `make faults` -->", "<!-- end of what `make faults` made -->"


class Spent(NamedTuple):
    seconds: float
    processor: float


def write(page: Path, rows: Sequence[Tally], spent: Spent) -> None:
    text = page.read_text()
    assert START in text and END in text, f"{page} has no place for the table"
    made = "\n".join([START, "", *_table(rows), "", *_below(rows, spent), END])
    page.write_text(re.sub(re.escape(START) + ".*?" + re.escape(END), lambda _: made, text, flags=re.DOTALL))


def _table(rows: Sequence[Tally]) -> list[str]:
    lines = [
        "| fault | faults | what was there then | lost | worst time | memory |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        found = ", ".join(f"{state} {count}" for state, count in row.found.most_common())
        time = f"{row.seconds:.1f} s" if row.seconds else ""
        lines.append(
            f"| {row.title} | {row.faults} | {found} | {len(row.lost)} | {time} | {row.megabytes:.0f} MB |"
        )
    faults, lost = sum(row.faults for row in rows), sum(len(row.lost) for row in rows)
    lines.append(f"| **all** | **{faults:,}** | | **{lost}** | | |")
    return lines


def _below(rows: Sequence[Tally], spent: Spent) -> list[str]:
    from porter import __version__

    flaws = sum(len(row.flaws) for row in rows)
    told = [
        f"porter {__version__}, Python {platform.python_version()}, Linux {platform.release()}:",
        f"{spent.processor / 60:.0f} minutes of processor time. Other flaws (a traceback, a wrong word,",
        "something left behind that `porter doctor` does not know, a command that could not be run again):",
        f"{flaws}.",
    ]
    return [" ".join(told)]
