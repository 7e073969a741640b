"""A fingerprint's weights as lines: in a pipe a digest and what it is of, on a terminal a table that fits."""

from __future__ import annotations

from porter.reporting.fitting import Heading, fit, headed
from porter.reporting.text import printable
from porter.verification.fingerprints import Fingerprint

# Digits of a digest that tell two weights apart, where there is no room for all.
_DIGITS = 16

# What goes where even so there is no room.
_DROP = (2, 1)


def render(found: Fingerprint, *, width: int | None = None, heading: Heading = str) -> list[str]:
    """The lines: digest, name, dtype, axes. Where some are wider than `width`, digests are cut."""
    lines, rows = [], [["Weight", "Dtype", "Axes", "Digest"]]
    for tensor in found.tensors:
        axes = " ".join(f"{axis}={size}" for axis, size in tensor.axes.items())
        lines.append(printable(f"{tensor.digest}  {tensor.name}  {tensor.dtype}  {axes}"))
        rows.append([tensor.name, tensor.dtype, axes, f"{tensor.digest[:_DIGITS]}…"])
    if width is None or max(map(len, lines), default=0) <= width:
        return lines
    return headed(fit(rows, width, drop=_DROP), heading)
