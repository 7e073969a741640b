"""Tensors in a report: the shape table, and the flow from source tensors through rules to target tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from porter.containers.base import StoredTensor
from porter.planning.plan import Plan, groups_of
from porter.reporting.collapse import Row, collapse, collapsed_name
from porter.reporting.html_page import details, search, table, text
from porter.reporting.plans import Origins
from porter.reporting.text import plural, quantity, size


def shapes(tensors: Iterable[StoredTensor], name: str) -> str:
    """The shape table, layers folded into a row that opens, with a search field."""
    rows = collapse(tensors)
    total = sum(row.parameters for row in rows) or 1
    return search(name) + f'<div id="{name}">' + "".join(_shape(row, total) for row in rows) + "</div>"


def _shape(row: Row, total: int) -> str:
    first = row.tensors[0]
    summary = _columns(
        row.name,
        f"{list(first.shape)} {first.dtype.name}",
        f"{quantity(row.parameters, 1)} parameters, {100 * row.parameters / total:.1f} %",
    )
    rows = [["Tensor", "Shape", "Dtype", "Size", "File"]]
    rows += [[t.name, str(list(t.shape)), t.dtype.name, size(t.nbytes), t.file] for t in row.tensors]
    return details(summary, table(rows, right=(3,)))


def flow(plan: Plan, name: str) -> str:
    """A row for each rule and shape: from where, how, to what. It opens layer by layer."""
    origins = Origins(plan)
    kinds = _kinds(plan)
    made = []
    for row in collapse(plan.targets()):
        first = row.tensors[0]
        made_of = [collapsed_name(names) for names in origins.columns([t.name for t in row.tensors])]
        what = ", ".join(dict.fromkeys(kinds[first.name])) or "zeros"
        rule = " ".join(part for part in (plan.layouts.get(first.name, ""), f"({what})") if part)
        rows = [["From", "Shape", "Target", "Shape", "Dtype", "Moved as", "Rule"]]
        for tensor in row.tensors:
            stored = [plan.source_by_name[source] for source in origins.of(tensor.name)]
            rows.append(
                [
                    " + ".join(s.name for s in stored),
                    " + ".join(str(list(s.shape)) for s in stored),
                    tensor.name,
                    str(list(tensor.shape)),
                    tensor.dtype.name,
                    ", ".join(dict.fromkeys(kinds[tensor.name])) or "zeros",
                    plan.rules.get(tensor.name, ""),
                ]
            )
        target = f"{row.name} {list(first.shape)}" + (f" × {len(row.tensors)}" if row.tensors[1:] else "")
        summary = _columns(" + ".join(made_of) or "nothing", f"→ {rule} →", target)
        made.append(details(summary, table(rows)))
    return search(name) + f'<div id="{name}">{"".join(made)}</div>'


def files(plan: Plan) -> str:
    rows = [["File", "Size", ""]]
    rows += [[file.name, size(file.size), plural(len(file.tensors), "tensor")] for file in plan.files]
    for side in plan.side_files:
        made = f"copied from {side.copied_from}" if side.content is None else "written"
        rows.append([side.name, size(len(side.content)) if side.content is not None else "", made])
    return table(rows, right=(1,))


def _columns(*parts: str) -> str:
    return '<span class="flow">' + "".join(f"<span>{text(part)}</span>" for part in parts) + "</span>"


def _kinds(plan: Plan) -> Mapping[str, list[str]]:
    """How each target's bytes are moved, and what is done to its values."""
    found: dict[str, list[str]] = {tensor.name: [] for tensor in plan.targets()}
    for group in groups_of(plan.copies):
        for part in group.parts:
            done = [f"{operation.kind} {operation.value:g}" for operation in part.operations]
            for target in group.targets:
                found[target] += [part.copy_class, *done]
    return found
