"""How faithful a plan is, with the cause: what is moved as it is, what is widened, rounded or computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from porter.dtypes import Dtype, casts_exactly, dtype_word
from porter.planning.coverage import count
from porter.planning.plan import COMPUTE, Plan, ZeroCheck, groups_of
from porter.values.operations import Operation

Grade = Literal["exact", "exact when checked", "lossy"]
Kind = Literal["moved", "widened", "dequantised", "rounded"]


@dataclass(frozen=True)
class ValueChange:
    """Target tensors whose values come about in the same way: operations first, in float32, then the cast."""

    kind: Kind
    dtype: str
    operations: tuple[Operation, ...]
    tensors: tuple[str, ...]

    @property
    def words(self) -> str:
        """`w - 1, in float32`, and what the result is rounded to."""
        rounded = "" if self.dtype in ("float32", "float64") else f", and rounded to {self.dtype}"
        return f"{formula(self.operations)}, in float32{rounded}"


def formula(operations: Sequence[Operation]) -> str:
    """Operations on a weight as a person writes them: `w - 1`, `(w + 1) · 2`."""
    words = "w"
    for operation in operations:
        words = operation.words(words)
    return words


def value_changes(plan: Plan) -> list[ValueChange]:
    """What happens to the values, by kind, in the order in which it first appears."""
    found: dict[tuple[Kind, str, tuple[Operation, ...]], dict[str, None]] = {}
    # Tensors of a group have one dtype on either side.
    for group in groups_of(plan.copies):
        target = plan.target_by_name[group.targets[0]].dtype
        for part in group.parts:
            source = plan.source_by_name[part.sources[0]].dtype
            kind = "moved" if part.copy_class != COMPUTE else _kind(source, target)
            key = (kind, dtype_word(target), part.operations)
            found.setdefault(key, {}).update(dict.fromkeys(group.targets))
    return [ValueChange(*key, tuple(names)) for key, names in found.items()]


@dataclass(frozen=True)
class Fidelity:
    """How faithful a plan is: the grade, the end of the plan's line, and a sentence with the causes.

    `lossy` is where any value may be rounded.
    """

    grade: Grade
    short: str
    sentence: str


def fidelity(plan: Plan) -> Fidelity:
    """All of it from one walk over the plan's copies."""
    changes = value_changes(plan)
    grade: Grade = "exact when checked" if plan.checks else "exact"
    if any(change.kind == "rounded" or change.operations for change in changes):
        grade = "lossy"
    return Fidelity(grade, _short_words(changes), _sentence(plan, changes))


def _short_words(changes: Sequence[ValueChange]) -> str:
    """`every value moved as it is`, or what is done to how many tensors."""
    if all(change.kind == "moved" and not change.operations for change in changes):
        return "every value moved as it is"
    parts = []
    for change in changes:
        if change.kind == "moved" and not change.operations:
            continue
        number = len(change.tensors)
        if change.operations:
            parts.append(f"{number} computed ({formula(change.operations)})")
        else:
            parts.append(f"{number} {change.kind} to {change.dtype}")
    return ", ".join(parts)


def _sentence(plan: Plan, changes: Sequence[ValueChange]) -> str:
    """What a person has to know about the values: what is exact, what is not, and why."""
    computed = [change for change in changes if change.operations]
    rounded = [change for change in changes if change.kind == "rounded"]
    exact = [c for c in changes if c.kind in ("widened", "dequantised") and not c.operations]
    checked = _checked(plan)
    causes = [f"{_named(c)}: {c.words}" for c in computed]
    if rounded:
        whole = {name for change in rounded for name in change.tensors}
        causes.insert(0, f"{count(len(whole), 'tensor')} rounded to {rounded[0].dtype}")
        return f"lossy: {'; '.join(causes)}{checked}"
    if computed:
        return f"exact but for what is computed: {'; '.join(causes)}{checked}"
    how = [
        f"{count(len(c.tensors), 'tensor')} are {c.kind} to {c.dtype}, which holds every value" for c in exact
    ]
    how = how or ["every value is moved as it is"]
    return f"{'exact when checked' if plan.checks else 'exact'}: {'; '.join(how)}{checked}"


def _kind(source: Dtype, target: Dtype) -> Kind:
    if source.quantised:
        return "dequantised" if casts_exactly(source, target) else "rounded"
    if source == target:
        return "moved"
    return "widened" if casts_exactly(source, target) else "rounded"


def _named(change: ValueChange) -> str:
    first, number = change.tensors[0], len(change.tensors)
    return first if number == 1 else f"{number} tensors such as {first}"


def _checked(plan: Plan) -> str:
    if not plan.checks:
        return ""
    zeros = sum(isinstance(check, ZeroCheck) for check in plan.checks)
    ties = len(plan.checks) - zeros
    what = [f"{count(ties, 'tie')} must be equal"] if ties else []
    what += [f"{count(zeros, 'padding')} must be zeros"] if zeros else []
    return f"; before anything is published, {' and '.join(what)}"
