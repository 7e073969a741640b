"""A plan as text: the one-line summary, and the lines of `convert --dry-run`."""

from __future__ import annotations

from porter.planning.plan import COPY_CLASSES, Plan, ZeroCheck, groups_of
from porter.planning.summary import grade
from porter.reporting.collapse import collapse, collapsed_name
from porter.reporting.collapse import full as every
from porter.reporting.text import plural, printable, size, table


def summary(plan: Plan) -> str:
    """`164 → 129 tensors · 110 renamed · 18 fused · 1 tie written · 0 dropped · 0 unmapped · all extents`."""
    counts = plan.summary
    parts = [f"{counts.source_tensors} → {counts.target_tensors} tensors"]
    for number, word in (
        (counts.renamed, "renamed"),
        (counts.fused, "fused"),
        (counts.split, "split"),
    ):
        if number:
            parts.append(f"{number} {word}")
    if counts.ties_written:
        parts.append(f"{plural(counts.ties_written, 'tie')} written")
    if counts.ties_dropped:
        parts.append(f"{plural(counts.ties_dropped, 'tie')} dropped")
    parts += [f"{counts.dropped} dropped", f"{counts.unmapped} unmapped", classes(plan)]
    return " · ".join(parts)


def classes(plan: Plan) -> str:
    """`all extents`, or how many copies of each class."""
    found = {name: number for name, number in plan.classes.items() if number}
    if len(found) == 1:
        name = next(iter(found))
        return {"extent": "all extents", "runs": "all runs", "tile": "all tiles", "compute": "all computed"}[
            name
        ]
    words = dict(zip(COPY_CLASSES, ("extent", "run copy", "tile", "computed"), strict=True))
    return ", ".join(
        f"{number} computed" if name == "compute" else plural(number, words[name])
        for name, number in found.items()
    )


RIGHT = (3,)


def cells(plan: Plan, *, full: bool = False) -> list[list[str]]:
    """The target's tensors, each with the source tensors it is made of, layout and rule; header first."""
    sources = sources_by_target(plan)
    lines = [["Target", "Shape", "Dtype", "×", "From", "Layout", "Rule"]]
    for row in every(plan.targets()) if full else collapse(plan.targets()):
        first = row.tensors[0]
        made_of = zip(*(sources[tensor.name] for tensor in row.tensors), strict=False)
        lines.append(
            [
                printable(row.name),
                str(list(first.shape)),
                first.dtype.name,
                str(len(row.tensors)),
                " + ".join(printable(collapsed_name(names)) for names in made_of),
                plan.layouts.get(first.name, ""),
                plan.rules.get(first.name, ""),
            ]
        )
    return lines


def sources_by_target(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The source tensors that each target tensor is made of, in the order of their places in it."""
    sources: dict[str, tuple[str, ...]] = {tensor.name: () for tensor in plan.targets()}
    for group in groups_of(plan.copies):
        columns = [part.sources for part in group.parts]
        for target, names in zip(group.targets, zip(*columns, strict=True), strict=True):
            made_of = (*sources.get(target, ()), *names)
            sources[target] = made_of if len(made_of) == 1 else tuple(dict.fromkeys(made_of))
    return sources


def render(plan: Plan) -> list[str]:
    """The lines of `convert --dry-run`."""
    lines = [
        f"plan     {plan.family}: {plan.source_dialect} → {plan.target_dialect} · {grade(plan)}",
        f"         {summary(plan)}",
        f"         {plan.hash}",
        "",
    ]
    lines += table(cells(plan), right=RIGHT)
    lines.append("")
    for check in plan.checks:
        if isinstance(check, ZeroCheck):
            lines.append(f"check    {check.what} of {check.tensor} are zeros")
        else:
            lines.append(f"check    {check.dropped} equals {check.kept} ({check.reason})")
    files = [["File", "Size", ""]]
    files += [[file.name, size(file.size), plural(len(file.tensors), "tensor")] for file in plan.files]
    for side in plan.side_files:
        files.append(
            [
                side.name,
                size(len(side.content)) if side.content is not None else "",
                "written" if side.content is not None else f"copied from {side.copied_from}",
            ]
        )
    lines += table(files, right=(1,))
    return lines
