"""Plain text: aligned tables, quantities, and names that cannot disturb a terminal.

Tables keep their natural width, so that piped output is never cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from porter.untrusted import escape, shortened
from porter.untrusted import printable as printable


def quantity(number: float, digits: int = 2) -> str:
    """A count in K, M, B or T: 2,506,172,416 is `2.506 B`."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.{3 if unit in 'TB' else digits}f} {unit}".replace(".000 ", " ")
    return f"{number:g}"


def size(nbytes: float) -> str:
    """Bytes in decimal units, as disks and the Hub count them: `5.01 GB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.2f} {unit}"
    return f"{nbytes:.0f} B"


def plural(number: int, noun: str) -> str:
    """`1 tensor`, `2 tensors`, `1 copy`, `2 copies`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("py") else f"{number:,} {noun}s"


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows (the first is the header) as aligned lines; `right` lists the columns set flush right.

    What is too long for a column is cut, or one name would widen all lines.
    """
    if not rows:
        return []
    rows = [[shortened(printable(cell)) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def csv_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as CSV (RFC 4180 quoting)."""
    import csv
    import io

    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([escape(cell, "csv") for cell in row] for row in rows)
    return buffer.getvalue().splitlines()


def markdown_lines(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows (the first is the header) as a Markdown table."""
    escaped = [[escape(cell, "markdown") for cell in row] for row in rows]
    rule = ["---:" if column in right else "---" for column in range(len(rows[0]))]
    return [f"| {' | '.join(row)} |" for row in [escaped[0], rule, *escaped[1:]]]
