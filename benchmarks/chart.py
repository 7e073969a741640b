"""A small bar chart as SVG: seconds by subject. No library, no script, legible on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_ROW, _LABEL, _WIDTH = 26, 210, 640


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """The chart of rows (label, value, text beside the bar); the first row is drawn in the strong colour."""
    most = max(value for _, value, _ in rows)
    room = _WIDTH - _LABEL - 130
    height = 40 + _ROW * len(rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="{escape(title)}">',
        f'<text x="0" y="18" font-weight="600" fill="#777">{escape(title)}</text>',
    ]
    for number, (label, value, text) in enumerate(rows):
        y = 34 + number * _ROW
        width = max(2.0, room * value / most)
        color = "#2f7d6b" if label.startswith("porter") else "#9aa5a8"
        lines += [
            f'<text x="{_LABEL - 8}" y="{y + 14}" text-anchor="end" fill="#777">{escape(label)}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_ROW - 8}" rx="2" fill="{color}"/>',
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 14}" fill="#777">{escape(text)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
