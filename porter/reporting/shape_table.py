"""An inspection as text: a title line, the shape table, totals."""

from __future__ import annotations

from porter.recognition.inspection import Inspection, Memory
from porter.reporting.collapse import collapse
from porter.reporting.collapse import full as every
from porter.reporting.fitting import Heading, fit, folded, headed, wrapped
from porter.reporting.text import plural, printable, quantity, size

RIGHT = (3, 4, 5)
# What goes first where there is no room: the share, how many, the dtype.
DROP = (5, 3, 2)


def cells(found: Inspection, *, full: bool = False, exact: bool = False) -> list[list[str]]:
    """The shape table, header first."""
    rows = every(found.stored) if full else collapse(found.stored)
    total = found.parameters or 1
    lines = [["Tensor", "Shape", "Dtype", "×", "Params", "%"]]
    for row in rows:
        first = row.tensors[0]
        lines.append(
            [
                row.name if exact else printable(row.name),
                str(list(first.shape)),
                first.dtype.name,
                str(len(row.tensors)),
                str(row.parameters) if exact else quantity(row.parameters, 1),
                f"{100 * row.parameters / total:.1f}",
            ]
        )
    return lines


def render(
    found: Inspection, *, full: bool = False, width: int | None = None, heading: Heading = str
) -> list[str]:
    """The lines of `porter inspect`; none is wider than `width`, the terminal's."""
    lines = [
        *folded(title_parts(found), width),
        *headed(fit(cells(found, full=full), width, right=RIGHT, drop=DROP), heading),
    ]
    for name, other in found.ties.items():
        stored = any(tensor.name == name for tensor in found.stored)
        lines += wrapped(f"{name}  tied to {other}" + (" (stored twice)" if stored else ""), width)
    if len(found.dtypes) > 1:
        shares = [["Dtype", "Tensors", "Params", "Size"]]
        shares += [
            [share.dtype, str(share.tensors), quantity(share.parameters, 1), size(share.nbytes)]
            for share in found.dtypes
        ]
        lines += ["", *headed(fit(shares, width, right=(1, 2, 3)), heading)]
    # It is the whole model's, of which a filter shows a part.
    if found.memory is not None and len(found.tensors) == found.stored_tensors:
        lines += ["", *_memory(found.memory, width)]
    return lines


def _memory(memory: Memory, width: int | None) -> list[str]:
    weights = [f"{name} {size(nbytes)}" for name, nbytes in memory.weights.items()]
    cache = [f"KV cache  {size(memory.kv_cache)} per 1,000 tokens (bfloat16)"]
    if memory.window is not None:
        cache.append(f"of which {size(memory.sliding)} stop growing at {memory.window:,} tokens")
    return [
        *folded([f"weights   {weights[0]}", *weights[1:]], width, indent=10),
        *folded(cache, width, joint=", ", indent=10),
    ]


def title_parts(found: Inspection) -> list[str]:
    """`google/gemma-2b · gemma (hf) · 2 files · 164 tensors · 2.506 B parameters · BF16 · 5.01 GB`."""
    what = f"{found.family} ({found.dialect})" if found.family else f"unknown family ({found.container})"
    return [
        printable(found.label),
        what,
        plural(len(found.files), "file"),
        plural(found.stored_tensors, "tensor")
        if len(found.tensors) == found.stored_tensors
        else f"{len(found.tensors):,} of {plural(found.stored_tensors, 'tensor')}",
        f"{quantity(found.parameters)} parameters",
        ", ".join(share.dtype for share in found.dtypes) or "no tensors",
        size(found.nbytes),
    ]
