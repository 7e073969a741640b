"""A heat map of a model: layers by tensors, each cell darker where two sides differ more."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from porter.reporting.html_page import text

_LAYER = re.compile(r"(?<![^./_])[0-9]+(?![^./])")

# Layers beside each other, which a printed page has room for.
_BESIDE = 13

# Shades that the page's style sheet has, the darkest last.
SHADES = 5


class Heat(NamedTuple):
    """How much the tensor `name` differs: a shade from 1 to SHADES, and what its cell says."""

    name: str
    shade: int
    says: str


def by_tens(relative: float) -> int:
    """The shade of a relative difference: one for each power of ten, the darkest from a tenth on."""
    if not math.isfinite(relative):
        return SHADES
    return SHADES + 1 + math.floor(math.log10(relative)) if relative > 0 else 1


def short(number: float) -> str:
    """A number in a cell: 1.4, 2.3e-3."""
    return f"{number:.1e}".replace("e+00", "").replace("e-0", "e-").replace("e+0", "e+")


def heat_map(tensors: Iterable[Heat], corner: str) -> str:
    """`corner` says what the cells are. Where there are many layers, some stand below the others."""
    cells: dict[tuple[str, str], Heat] = {}
    for tensor in tensors:
        found = _LAYER.search(tensor.name)
        cells[found[0] if found else "", _LAYER.sub("*", tensor.name, count=1)] = tensor
    layers = sorted({layer for layer, _ in cells}, key=lambda layer: int(layer or -1))
    names = list(dict.fromkeys(name for _, name in cells))
    blocks = max(1, math.ceil(len(layers) / _BESIDE))
    size = math.ceil(len(layers) / blocks)
    parts = [layers[at : at + size] for at in range(0, len(layers), size)]
    return "".join(_block(cells, part, names, corner) for part in parts)


def _block(
    cells: Mapping[tuple[str, str], Heat], layers: Sequence[str], names: Sequence[str], corner: str
) -> str:
    head = "".join(f'<th scope="col">{text(layer or "no layer")}</th>' for layer in layers)
    body = []
    for name in names:
        if not any((layer, name) in cells for layer in layers):
            continue
        row = "".join(_cell(cells.get((layer, name))) for layer in layers)
        body.append(f'<tr><th scope="row"><code>{text(name)}</code></th>{row}</tr>')
    return (
        f'<div class="wide"><table class="heat"><thead><tr><th scope="col">{text(corner)}</th>'
        f"{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(heat: Heat | None) -> str:
    if heat is None:
        return "<td></td>"
    return f'<td class="h{min(SHADES, max(1, heat.shade))}">{text(heat.says)}</td>'
