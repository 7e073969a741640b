"""What `check` found, in lines: each file that is not as it was written, and the verdict."""

from __future__ import annotations

from porter.reporting.text import plural, printable, size
from porter.verification.integrity import DIFFERENT, OutputCheck

# Columns of the word that a line begins with.
_WORD = 10

# Digits of a plan's hash that a person compares.
_DIGITS = 12


def render(found: OutputCheck) -> list[str]:
    lines = []
    for file in found.files:
        if file.state in DIFFERENT or (file.state == "unverified" and not (found.quick or found.signature)):
            detail = f": {file.detail}" if file.detail else ""
            lines.append(f"{file.state:<{_WORD}} {printable(file.name + detail)}")
    if found.tensors is not None:
        lines.append(f"{'changed':<{_WORD}} {printable(found.tensors)}")
    if found.signature is not None:
        detail = f"does not hold: {found.signature_detail}" if found.signature_detail else "holds"
        lines.append(f"{'signature':<{_WORD}} {printable(detail)}")
    return [*lines, _verdict(found)]


def _verdict(found: OutputCheck) -> str:
    every = f"{plural(len(found.files), 'file')}, {size(sum(file.size or 0 for file in found.files))}"
    made = f"{found.source_dialect} → {found.target_dialect}, plan {found.plan.rpartition(':')[2][:_DIGITS]}"
    if found.signature == "verified":
        word, text = "verified", f"{every}: each as it was signed"
    elif found.verdict == "verified":
        word, text = "verified", f"{every}: each as it was written"
    elif found.signature == "differs":
        word, text = "differs", f"{every}: as the receipt says, and not what was signed"
    elif found.verdict == "differs":
        word, text = "differs", f"{sum(file.state in DIFFERENT for file in found.files)} of {every}"
    elif found.quick:
        word, text = "sizes", f"{every}: sizes and headers are right, contents were not read"
    else:
        missing = sum(file.state == "unverified" for file in found.files)
        word, text = "unverified", f"{missing} of {every}: only sizes and headers could be compared"
    return f"{word:<{_WORD}} {text} ({printable(made)})"
