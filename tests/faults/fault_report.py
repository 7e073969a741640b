"""The table of faults in docs/reliability.md; the rest of the page is left as it is."""

from __future__ import annotations

import platform
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fault_bench import Tally

START, END = "<!-- made by `make faults` -->", "<!-- end of what `make faults` made -->"


def told(row: Tally) -> dict[str, Any]:
    """What is kept of a row, or of a part of it, for JSON."""
    return {
        "title": row.title,
        "part": row.part,
        "found": dict(row.found),
        "lost": row.lost,
        "flaws": row.flaws,
        "seconds": row.seconds,
        "megabytes": row.megabytes,
    }


def merged(results: Iterable[dict[str, Any]]) -> list[Tally]:
    """The rows that parts make together; of a part that was run twice the last counts."""
    parts = {(one["title"], *one["part"]): one for one in results}
    rows: dict[str, Tally] = {}
    for (title, *_), one in parts.items():
        row = rows.setdefault(title, Tally(title))
        row.found += Counter(one["found"])
        row.lost += one["lost"]
        row.flaws += one["flaws"]
        row.seconds = max(row.seconds, one["seconds"])
        row.megabytes = max(row.megabytes, one["megabytes"])
    return list(rows.values())


def write(page: Path, rows: Sequence[Tally]) -> None:
    text = page.read_text()
    assert START in text and END in text, f"{page} has no place for the table"
    made = "\n".join([START, "", *_table(rows), "", *_below(rows), "", END])
    page.write_text(re.sub(re.escape(START) + ".*?" + re.escape(END), lambda _: made, text, flags=re.DOTALL))


def _table(rows: Sequence[Tally]) -> list[str]:
    lines = [
        "| fault | faults | what was there then | lost | worst time | memory |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        found = ", ".join(f"{state} {count:,}" for state, count in row.found.most_common())
        time = f"{row.seconds:.1f} s" if row.seconds else "—"
        memory = f"{row.megabytes:.0f} MB" if row.megabytes else "—"
        lines.append(f"| {row.title} | {row.faults:,} | {found} | {len(row.lost)} | {time} | {memory} |")
    faults, lost = sum(row.faults for row in rows), sum(len(row.lost) for row in rows)
    lines.append(f"| **all** | **{faults:,}** | | **{lost}** | | |")
    return lines


def _below(rows: Sequence[Tally]) -> list[str]:
    from porter import __version__

    flaws = sum(len(row.flaws) for row in rows)
    text = (
        f"porter {__version__}, Python {platform.python_version()}, Linux, on a busy machine of two cores, "
        "so that times, which are of a run under ptrace, say little. Other flaws (a traceback, a wrong word, "
        "something left behind that `porter doctor` does not know, a command that could not be run again): "
        f"{flaws}."
    )
    return textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False)
