"""What lines that have changed places are called: heads, rows of each head, a rotation, or one by one."""

from __future__ import annotations

import numpy as np

from porter.verification.moved_lines import Lines, Moved
from porter.verification.weight_places import Place

# What a step of an axis is called, where it is not a row or a column.
WORDS = {
    "vocab": "vocabulary row",
    "n_kv_head": "kv head",
    "q_per_kv": "query head",
    "kv_heads": "kv head",
    "per_kv": "query head",
    "n_head": "head",
    "n_expert": "expert",
}

# Axes within a head.
_WITHIN = ("head_dim", "dim", "rope_half", "rope_freq")


def in_words(place: Place, word: str, moved: Moved) -> str:
    """`vocabulary rows have changed places: rotated by -1`. `word` is what one line is called."""
    sizes = [place.sizes[axis] for axis in moved.axes]
    names = [place.axes[axis] for axis in moved.axes]
    beside = moved.beside.elements
    more = f"; {beside:,} values differ besides" if beside else ""
    for at in range(1, len(sizes)):
        inner = int(np.prod(sizes[at:]))
        blocks = moved.holds.reshape(-1, inner)
        steps = np.arange(inner)
        if (blocks == blocks[:, :1] + steps).all() and not (blocks[:, 0] % inner).any():
            what = WORDS.get(names[at - 1], "block of rows" if names[at - 1] not in _WITHIN else "half")
            return f"{_listed(what, blocks[:, 0] // inner)}{more}"
        own = blocks - np.arange(len(blocks))[:, None] * inner
        if names[at] in _WITHIN and names[at - 1] not in _WITHIN and (own == own[0]).all():
            return f"{_listed('row', own[0], ' of each head')}{more}"
    return f"{_listed(word, moved.holds)}{more}"


def _listed(what: str, holds: Lines, of: str = "") -> str:
    size = len(holds)
    at = np.flatnonzero(holds != np.arange(size))
    shifts = np.unique((holds - np.arange(size)) % size)
    if len(shifts) == 1:
        shift = int(shifts[0])
        said = f"rotated by {shift if shift <= size // 2 else shift - size}"
    else:
        shown = [f"{number} holds {holds[number]}" for number in at[:3].tolist()]
        said = f"{what} {', '.join(shown)}" + (f" and {len(at) - 3:,} more" if len(at) > 3 else "")
    return f"{what}s{of} have changed places: {said}"
