"""How a plan would be run, as text and as JSON: the executor of each class of copy, its share, and why."""

from __future__ import annotations

from typing import Any

from porter.execution.classes import explain
from porter.planning.plan import Plan
from porter.planning.sharing import shareable_bytes
from porter.reporting.fitting import stack, wrapped
from porter.reporting.text import size


def explanation(plan: Plan, width: int | None = None) -> list[str]:
    """The lines of `convert --dry-run --explain`; none is wider than `width`, the terminal's."""
    cells = [["Executor", "Copies", "Size", "Why"]]
    for choice in explain(plan):
        cells.append([choice.executor, str(choice.copies), size(choice.nbytes), choice.why])
    lines = stack(cells, width, right=(1, 2), under=(3,))
    total = sum(file.size for file in plan.files)
    shared = f"sharable {size(shareable_bytes(plan))} of {size(total)}, on a file system that shares blocks"
    return [*lines, *wrapped(shared, width, 9)]


def explanation_to_json(plan: Plan) -> dict[str, Any]:
    """The same as plain JSON values; sizes in bytes."""
    return {
        "choices": [vars(choice) for choice in explain(plan)],
        "sharable": shareable_bytes(plan),
    }
