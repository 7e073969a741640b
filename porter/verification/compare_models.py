"""Two models compared number by number: both planned to the canonical axes, or paired by their names.

Both plans are run at once, range by range, so that neither model is ever held. Nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from porter.containers.array_files import overlaid
from porter.containers.array_names import ARRAY
from porter.containers.checkpoint import Checkpoint
from porter.errors import PorterError, UnsupportedError
from porter.execution.executor import execute
from porter.execution.open_files import OpenFiles
from porter.execution.planned_values import PlannedValues
from porter.execution.run_options import NEVER, RunOptions
from porter.execution.sinks.statistics import Statistics, StatisticsSink
from porter.execution.watch import Watch
from porter.planning.as_stored import as_stored, in_one_file
from porter.planning.canonical_plan import plan_canonical
from porter.planning.plan import Plan
from porter.planning.plan_options import PlanOptions
from porter.recognition.identify import Identity
from porter.verification.model_diff import (
    By,
    DtypeDifference,
    LoneTensor,
    ShapeDifference,
    ValueDifference,
)
from porter.verification.samples import index_of

# Bytes for the buffers of each side, and of a range that is put in order at once.
MEMORY, UNIT = 24 << 20, 8 << 20


@dataclass(frozen=True)
class Side:
    """A model to be compared. `identity` is None where no table knows it; `reason` says why."""

    checkpoint: Checkpoint
    identity: Identity | None
    reason: PorterError | None = None


@dataclass(frozen=True)
class Pair:
    """Two plans whose tensors can be compared by name, in float32; `notes` say why by these names."""

    by: By
    a: Plan
    b: Plan
    notes: tuple[str, ...] = ()


def pair_models(a: Side, b: Side, options: PlanOptions) -> Pair:
    """By canonical weights where tables know both sides, else by names.

    Raises UnsupportedError, with the reason that no table fits, where the two have hardly a name in common.
    """
    reason: PorterError | None = a.reason or b.reason
    if a.identity is not None and b.identity is not None:
        try:
            wanted = replace(options, dtype="float32")
            one = plan_canonical(a.checkpoint, a.identity, wanted, untied=True)
            other = plan_canonical(b.checkpoint, b.identity, wanted, untied=True)
            twice = _read_twice(one, a.identity) & _read_twice(other, b.identity)
            return Pair("canonical axes", _without(one, twice), _without(other, twice))
        except PorterError as error:
            reason = error
    names = a.checkpoint.tensors.keys() & b.checkpoint.tensors.keys()
    fewer = min(len(a.checkpoint.tensors), len(b.checkpoint.tensors))
    if not names or 2 * len(names) < fewer:
        cause = "no table knows both" if reason is None else reason.message
        raise UnsupportedError(
            f"{a.checkpoint.label} and {b.checkpoint.label} cannot be compared",
            cause=f"they share {len(names)} names of tensors, and: {cause}"
            + (f" ({reason.cause})" if reason is not None and reason.cause else ""),
            hint=reason.hint if reason is not None else None,
        ) from reason
    note = "compared by names" + (f": {reason.message}" if reason is not None else "")
    one, other = (as_stored(side.checkpoint, as_values=True) for side in (a, b))
    return Pair("names", one, other, (note,))


def compare_values(
    pair: Pair, a: Checkpoint, b: Checkpoint, *, atol: float, rtol: float, watch: Watch
) -> tuple[ValueDifference, ...]:
    """The tensors of both sides whose values differ, the most different first."""
    counts = {name: count for name, count in common(pair) if count}
    left, right = a.source, b.source
    if left is None or right is None:
        raise UnsupportedError("only the headers of a side were opened")
    one = replace(pair.a, files=(in_one_file(t for t in pair.a.targets() if t.name in counts),))
    with ExitStack() as stack:
        left = stack.enter_context(overlaid(left, pair.a.sources))
        right = stack.enter_context(overlaid(right, pair.b.sources))
        files = stack.enter_context(OpenFiles(right, b.sizes))
        sink = StatisticsSink(PlannedValues(pair.b, files, MEMORY).read, counts, atol, rtol)
        sink.unit_bytes = UNIT
        run = RunOptions(reflink=NEVER, digest=NEVER, resume=False, max_memory=MEMORY)
        execute(replace(one, checks=()), left, sink, run, watch)
        right.check(file for file in b.sizes if not file.startswith(ARRAY))
    shapes = {tensor.name: tensor.shape for tensor in one.targets()}
    found = [_difference(name, shapes[name], sums) for name, sums in sink.found.items() if sums.differing]
    return tuple(sorted(found, key=lambda item: (-_weight(item), item.name)))


def common(pair: Pair) -> Iterator[tuple[str, int]]:
    """The tensors that both sides have, and how many of their first elements are the same ones."""
    for tensor in pair.a.targets():
        other = pair.b.target_by_name.get(tensor.name)
        if other is None:
            continue
        if (
            other.dtype != tensor.dtype
            or tensor.shape[1:] != other.shape[1:]
            or len(tensor.shape) != len(other.shape)
        ):
            yield tensor.name, 0
        else:
            yield tensor.name, min(tensor.elements, other.elements)


def lone_tensors(one: Plan, other: Plan) -> tuple[LoneTensor, ...]:
    """Those of `one` that `other` does not have."""
    return tuple(
        LoneTensor(tensor.name, tensor.shape)
        for tensor in one.targets()
        if tensor.name not in other.target_by_name
    )


def shape_differences(pair: Pair) -> tuple[ShapeDifference, ...]:
    found = []
    for name, count in common(pair):
        a, b = pair.a.target_by_name[name].shape, pair.b.target_by_name[name].shape
        if a != b:
            found.append(ShapeDifference(name, a, b, count))
    return tuple(found)


def dtype_differences(pair: Pair) -> tuple[DtypeDifference, ...]:
    """By what the tensors are stored in."""
    a, b = _stored(pair.a), _stored(pair.b)
    return tuple(DtypeDifference(name, a[name], b[name]) for name in a if name in b and a[name] != b[name])


def _stored(plan: Plan) -> dict[str, str]:
    """The dtypes that each tensor of a plan is made of."""
    found: dict[str, dict[str, None]] = {}
    for copy in plan.copies:
        found.setdefault(copy.target, {})[plan.source_by_name[copy.source].dtype.name] = None
    return {name: "+".join(dtypes) for name, dtypes in found.items() if name in plan.target_by_name}


def _read_twice(plan: Plan, identity: Identity) -> set[str]:
    """Tied weights that are read from where their owner is read: there is one copy, and one comparison."""
    sources: dict[str, set[tuple[str, int]]] = {}
    for copy in plan.copies:
        sources.setdefault(copy.target, set()).add((copy.source, copy.source_offset))
    return {
        name
        for name, tensor in identity.family.canonical.tensors.items()
        if tensor.tied is not None and name in sources and sources[name] == sources.get(tensor.tied)
    }


def _without(plan: Plan, names: set[str]) -> Plan:
    if not names:
        return plan
    return replace(plan, files=(in_one_file(t for t in plan.targets() if t.name not in names),))


def _difference(name: str, shape: tuple[int, ...], sums: Statistics) -> ValueDifference:
    scale = math.sqrt(sums.own * sums.other)
    return ValueDifference(
        name=name,
        shape=shape,
        compared=sums.elements,
        differing=sums.differing,
        first=index_of(sums.first or 0, shape),
        a=_finite(sums.pair[0]),
        b=_finite(sums.pair[1]),
        max_abs=sums.largest,
        mean_abs=sums.total / max(1, sums.elements),
        relative=_finite(math.sqrt(sums.square / sums.own)) if sums.own else None,
        cosine=_finite(sums.product / scale) if scale else None,
        odd=sums.odd,
        rank=sums.rank,
        explains=sums.explains if sums.rank is not None else None,
    )


def _weight(found: ValueDifference) -> float:
    """How much a difference matters: what cannot be measured comes first."""
    return math.inf if found.relative is None or found.odd else found.relative


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
