"""An inspection as text: a title line, the shape table, totals."""

from __future__ import annotations

from porter.api.inspect import Inspection
from porter.reporting.collapse import collapse
from porter.reporting.collapse import full as every
from porter.reporting.text import plural, printable, quantity, size, table


def render(found: Inspection, *, full: bool = False) -> list[str]:
    """The lines of `porter inspect`."""
    rows = every(found.stored) if full else collapse(found.stored)
    total = found.parameters or 1
    cells = [["Tensor", "Shape", "Dtype", "×", "Params", "%"]]
    for row in rows:
        first = row.tensors[0]
        cells.append(
            [
                printable(row.name),
                str(list(first.shape)),
                first.dtype.name,
                str(len(row.tensors)),
                quantity(row.parameters, 1),
                f"{100 * row.parameters / total:.1f}",
            ]
        )
    lines = [title(found), *table(cells, right=(3, 4, 5))]
    for name, other in found.ties.items():
        stored = any(tensor.name == name for tensor in found.stored)
        lines.append(f"{name}  tied to {other}" + (" (stored twice)" if stored else ""))
    if len(found.dtypes) > 1:
        lines.append("")
        shares = [["Dtype", "Tensors", "Params", "Size"]]
        shares += [
            [share.dtype, str(share.tensors), quantity(share.parameters, 1), size(share.nbytes)]
            for share in found.dtypes
        ]
        lines += table(shares, right=(1, 2, 3))
    return lines


def title(found: Inspection) -> str:
    """`google/gemma-2b · gemma (hf) · 2 files · 164 tensors · 2.506 B parameters · BF16 · 5.01 GB`."""
    what = f"{found.family} ({found.dialect})" if found.family else f"unknown family ({found.container})"
    return " · ".join(
        [
            printable(found.label),
            what,
            plural(len(found.files), "file"),
            plural(len(found.tensors), "tensor"),
            f"{quantity(found.parameters)} parameters",
            ", ".join(share.dtype for share in found.dtypes) or "no tensors",
            size(found.nbytes),
        ]
    )
