"""The reports of the commands: one function each, from the value that the command has to a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porter.planning.fidelity import fidelity
from porter.planning.plan import Plan, ZeroCheck
from porter.recognition.inspection import Inspection
from porter.reporting import html_config, html_tensors
from porter.reporting.html_page import items, page, paragraph, table
from porter.reporting.plans import summary
from porter.reporting.shape_table import title_parts
from porter.reporting.text import quantity, size
from porter.tables.model import Dialect

Section = tuple[str, str, str]


def inspection_report(found: Inspection, receipt: Mapping[str, Any] | None = None) -> str:
    """`porter inspect --report`. `receipt` is that of the checkpoint, where porter made it."""
    lead = [paragraph(" · ".join(title_parts(found)), "dim")]
    if found.reason is not None:
        lead.append(paragraph(found.reason + (f"; {found.hint}" if found.hint else ""), "bad"))
    sections: list[Section] = [("tensors", "Tensors", html_tensors.shapes(found.stored, "shapes"))]
    facts = [["Dtype", "Tensors", "Parameters", "Size"]]
    facts += [
        [share.dtype, str(share.tensors), quantity(share.parameters), size(share.nbytes)]
        for share in found.dtypes
    ]
    stored = table(facts, right=(1, 2, 3))
    if found.ties:
        stored += items(f"{name} is tied to {other}" for name, other in found.ties.items())
    if found.memory is not None:
        needs = [["Weights as", "Memory"], *([k, size(v)] for k, v in found.memory.weights.items())]
        stored += table(needs, right=(1,))
        stored += paragraph(f"KV cache: {size(found.memory.kv_cache)} per 1,000 tokens in bfloat16")
    sections.append(("stored", "Stored", stored))
    if found.hyperparameters:
        sections.append(("config", "Hyperparameters", html_config.values(found.hyperparameters)))
    if found.notes:
        sections.append(("notes", "Notes", items(found.notes)))
    if receipt:
        sections.append(("receipt", "Receipt", html_config.receipt(receipt)))
    return page(found.label, lead, sections)


def plan_report(
    plan: Plan,
    label: str,
    source: tuple[Mapping[str, Any], Dialect],
    target: tuple[Mapping[str, Any], Dialect],
) -> str:
    """`porter convert --dry-run --report`: what would be moved where, by which rule.

    `source` and `target` are the configs, each with its dialect.
    """
    found = fidelity(plan)
    lead = [
        paragraph(f"{plan.family}: {plan.source_dialect} → {plan.target_dialect} · {found.grade}", "verdict"),
        paragraph(summary(plan, found), "dim"),
        paragraph(found.sentence),
    ]
    sections: list[Section] = [("flow", "From source to target", html_tensors.flow(plan, "moves"))]
    if plan.checks:
        said = [
            f"{check.what} of {check.tensor} are zeros"
            if isinstance(check, ZeroCheck)
            else f"{check.dropped} equals {check.kept} ({check.reason})"
            for check in plan.checks
        ]
        sections.append(("checks", "Checked before anything is published", items(said)))
    sections.append(("files", "Files", html_tensors.files(plan)))
    sides = [
        (f"{source[1].name}: as it stands", *source),
        (f"{target[1].name}: as it is written", *target),
    ]
    configs = html_config.side_by_side(plan.hyperparameters, sides)
    sections.append(("configs", "Configs", configs))
    if plan.notes:
        sections.append(("notes", "Notes", items(plan.notes)))
    facts = {"plan": plan.hash, "grade": found.grade, "tables": dict(plan.tables)}
    sections.append(("receipt", "What the receipt will say", html_config.values(facts, "Receipt")))
    return page(f"Plan for {label}", lead, sections)
