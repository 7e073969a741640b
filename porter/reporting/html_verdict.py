"""The report of `porter verify`: the verdict, what differs layer by layer, and what the two compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from porter.reporting import html_config, logits_table
from porter.reporting.html_heat import SHADES, Heat, by_tens, heat_map, short
from porter.reporting.html_page import items, page, paragraph, table, text
from porter.reporting.text import plural
from porter.verification.verdict import DifferingTensor, Verdict

if TYPE_CHECKING:
    from porter.verification.logits import LogitsComparison


# What the cells of the map say.
_CORNER = "largest |Δ| over the largest value"


def verdict_report(verdict: Verdict, receipt: Mapping[str, Any] | None = None) -> str:
    """`receipt` is that of the port, where porter made it."""
    weights = verdict.weights
    lead = [
        paragraph(verdict.says, f"verdict {'good' if verdict.right else 'bad'}"),
        paragraph(f"{verdict.out} ({verdict.out_dialect})"),
        paragraph(f"as a port of {verdict.source} ({verdict.family}, {verdict.source_dialect})", "dim"),
    ]
    facts = [
        ["Part", "", "What was compared"],
        ["weights", weights.outcome, plural(weights.tensors, "tensor") + (", sampled" * verdict.quick)],
        ["config", verdict.config.outcome, plural(verdict.config.compared, "hyperparameter")],
        ["tokenizer", verdict.tokenizer.outcome, verdict.tokenizer.says],
    ]
    sections = [("parts", "Compared", table(facts))]
    if verdict.mistakes:
        sections.append(("mistakes", "What was done wrong", items(each.says for each in verdict.mistakes)))
    if weights.differing:
        sections.append(
            ("heat", "How far values are apart", heat_map(map(_heat, weights.differing), _CORNER))
        )
        sections.append(("differing", "Tensors that differ", _differing(weights.differing)))
    others = [[t.name, "missing", str(list(t.shape)), ""] for t in weights.missing]
    others += [[name, "not expected", "", ""] for name in weights.extra]
    others += [[t.name, "shape", str(list(t.expected)), str(list(t.found))] for t in weights.misshapen]
    if others:
        rows = [["Tensor", "", "Expected", "Found"], *others]
        sections.append(("other", "Tensors that are missing, extra or misshapen", table(rows, name="others")))
    if verdict.config.differences:
        rows = [["Hyperparameter", "Expected", "Found", ""]]
        rows += [
            [each.name, html_config.shown(each.expected), html_config.shown(each.found), each.says]
            for each in verdict.config.differences
        ]
        sections.append(("config", "Configs, where they differ", table(rows)))
    if verdict.config.compared_values:
        names = [each.name for each in verdict.config.differences]
        told = html_config.compared(verdict.config.compared_values, ("The original", "The port"), names)
        sections.append(("configs", "Configs side by side", told))
    if verdict.logits is not None:
        sections.append(("logits", "What the two compute", logits(verdict.logits)))
    if verdict.notes:
        sections.append(("notes", "Notes", items(verdict.notes)))
    if receipt:
        sections.append(("receipt", "Receipt", html_config.receipt(receipt)))
    return page(f"porter verify: {verdict.outcome}", lead, sections)


def _heat(tensor: DifferingTensor) -> Heat:
    """By the largest difference; by the share of samples that differ where these are all that there is."""
    if tensor.relative is None and tensor.largest:
        return Heat(tensor.name, SHADES, f"{short(tensor.largest)} for 0")
    if tensor.relative is None:
        share = tensor.elements / tensor.of if tensor.of else 1.0
        return Heat(tensor.name, math.ceil(SHADES * share), f"{share:.0%}")
    return Heat(tensor.name, by_tens(tensor.relative), short(tensor.relative))


def _differing(tensors: Sequence[DifferingTensor]) -> str:
    rows = [["Tensor", "Shape", "Differing", "Max |Δ|", "First at", "What differs"]]
    for t in tensors:
        differing, largest = f"{t.elements:,} of {t.of:,}", f"{t.largest:.3g}" if t.largest else ""
        rows.append(
            [t.name, str(list(t.shape)), differing, largest, str(list(t.first)), t.says or "explained"]
        )
    return table(rows, right=(2, 3), name="tensors")


def logits(found: LogitsComparison) -> str:
    """The verdict on what the two compute, its measures, and the states one after the other."""
    lines = [logits_table.ids(found), *(f"{name}: {code}" for name, code in logits_table.sides(found))]
    lines += logits_table.measures(found)
    rows = logits_table.cells(found)
    marked = [at for at, state in enumerate(found.states) if state.place == found.first_parted]
    return (
        paragraph(logits_table.verdict(found), "good" if found.agree else "bad")
        + items(lines)
        + _chart(found)
        + table(rows, right=logits_table.RIGHT, marked=marked)
    )


def _chart(found: LogitsComparison) -> str:
    """The relative difference of each state, on a logarithmic scale from 1e-8 to 1, and its bound."""
    width, height, left = 1000, 220, 46
    step = (width - left) / max(1, len(found.states))

    def y(value: float) -> float:
        share = 1.0 if math.isnan(value) else (math.log10(min(1.0, max(1e-8, value))) + 8) / 8
        return round(10 + (height - 40) * (1 - share), 1)

    parts = [f'<text x="0" y="{y(10.0**power) + 4}">1e{power}</text>' for power in (0, -2, -4, -6, -8)]
    for number, state in enumerate(found.states):
        x = round(left + step * number, 1)
        kind = "over" if state.parted else "mark"
        top, bound = y(state.relative), y(state.bound)
        high = round(y(1e-8) - top + 1, 1)
        parts.append(
            f'<rect class="{kind}" x="{x}" y="{top}" width="{step * 0.7:.1f}" height="{high}">'
            f"<title>{text(state.place)}: {state.relative:.1e}</title></rect>"
            f'<line class="bound" x1="{x}" x2="{x + step * 0.7:.1f}" y1="{bound}" y2="{bound}"/>'
        )
    parts.append(f'<text x="{left}" y="{height - 6}">{text(found.states[0].place)}</text>')
    parts.append(f'<text x="{width - 60}" y="{height - 6}">{text(found.states[-1].place)}</text>')
    title = "relative difference of each state; the lines are its bounds"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
