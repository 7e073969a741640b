"""A plan as text: the one-line summary, and the lines of `convert --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence

from porter.planning.fidelity import Fidelity, fidelity
from porter.planning.plan import TILE, Plan, ZeroCheck, groups_of
from porter.reporting.collapse import collapse, collapsed_name
from porter.reporting.collapse import full as every
from porter.reporting.fitting import Heading, fit, folded, headed, stack, wrapped
from porter.reporting.text import plural, printable, size


def summary(plan: Plan, found: Fidelity | None = None) -> str:
    """`164 → 129 tensors · 110 renamed · 18 fused · 1 tie written · every value moved as it is`."""
    counts = plan.summary
    parts = [f"{counts.source_tensors} → {counts.target_tensors} tensors"]
    for number, word in (
        (counts.renamed, "renamed"),
        (counts.fused, "fused"),
        (counts.split, "split"),
        (plan.classes.get(TILE, 0), "transposed"),
    ):
        if number:
            parts.append(f"{number} {word}")
    if counts.ties_written:
        parts.append(f"{plural(counts.ties_written, 'tie')} written")
    if counts.ties_dropped:
        parts.append(f"{plural(counts.ties_dropped, 'tie')} dropped")
    if counts.dropped:
        parts.append(
            f"{counts.dropped} dropped" + (f", {counts.unmapped} on request" if counts.unmapped else "")
        )
    return " · ".join([*parts, (found or fidelity(plan)).short])


RIGHT = (3,)


def cells(plan: Plan, *, full: bool = False) -> list[list[str]]:
    """The target's tensors, each with the source tensors it is made of, layout and rule; header first."""
    origins = Origins(plan)
    lines = [["Target", "Shape", "Dtype", "×", "From", "Layout", "Rule"]]
    for row in every(plan.targets()) if full else collapse(plan.targets()):
        first = row.tensors[0]
        made_of = origins.columns([tensor.name for tensor in row.tensors])
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


class Origins:
    """The source tensors that target tensors are made of, in the order of their places in them."""

    def __init__(self, plan: Plan) -> None:
        # The first source of every target, the second one, and so on.
        self._places: list[dict[str, str]] = []
        for group in groups_of(plan.copies):
            for part in group.parts:
                free = (held for held in self._places if held.keys().isdisjoint(group.targets))
                held = next(free, None)
                if held is None:
                    self._places.append(held := {})
                held.update(zip(group.targets, part.sources, strict=True))

    def of(self, target: str) -> tuple[str, ...]:
        """Those of one target tensor, each once."""
        return tuple(dict.fromkeys(held[target] for held in self._places if target in held))

    def columns(self, targets: Sequence[str]) -> list[list[str]]:
        """The first sources of all these targets, then the second ones, as far as all of them have one."""
        columns: list[list[str]] = []
        for held in self._places:
            column = [*map(held.get, targets)]
            names = [name for name in column if name is not None]
            if len(names) == len(targets) and names not in columns:
                columns.append(names)
        return columns


# Target, Shape, Dtype and × stand beside each other; where there is no room, the rest is below them.
UNDER = (4, 5, 6)


def render(
    plan: Plan,
    config: Sequence[tuple[str, str]] = (),
    *,
    width: int | None = None,
    full: bool = False,
    heading: Heading = str,
) -> list[str]:
    """The lines of `convert --dry-run`. `config` pairs both configs' fields; `width` is the terminal's."""
    found = fidelity(plan)
    first, *parts = summary(plan, found).split(" · ")
    lines = [
        f"plan     {plan.family}: {plan.source_dialect} → {plan.target_dialect}",
        *folded([f"         {first}", *parts], width, indent=9),
        f"         {plan.hash}",
        "",
    ]
    lines += headed(stack(cells(plan, full=full), width, right=RIGHT, under=UNDER), heading)
    lines.append("")
    for check in plan.checks:
        if isinstance(check, ZeroCheck):
            lines.append(f"check    {check.what} of {check.tensor} are zeros")
        else:
            lines.append(f"check    {check.dropped} equals {check.kept} ({check.reason})")
    if config:
        rows = [
            [plan.source_dialect, "", plan.target_dialect],
            *([left, "→", right] for left, right in config),
        ]
        lines += [*headed(fit(rows, width), heading), ""]
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
    lines += headed(fit(files, width, right=(1,), drop=(2,)), heading)
    return [*lines, "", *wrapped(found.sentence, width)]
