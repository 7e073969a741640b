"""A plan in counts and words: its summary, its notes, and how faithful it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from porter.containers.checkpoint import Checkpoint
from porter.planning.coverage import Covered, parts
from porter.planning.identify import Identity
from porter.planning.plan import COMPUTE, Copy, Plan, Summary
from porter.planning.ties import only_ties
from porter.tables.bind import BoundTensor


def summarise(
    checkpoint: Checkpoint,
    covered: Covered,
    copies: Sequence[Copy],
    tensors: Mapping[str, object],
    ties: Mapping[str, str],
    omitted: Sequence[BoundTensor],
    bound: Sequence[BoundTensor],
) -> Summary:
    by_target: dict[str, list[Copy]] = {}
    feeds: dict[str, set[str]] = {}
    for copy in copies:
        by_target.setdefault(copy.target, []).append(copy)
        feeds.setdefault(copy.source, set()).add(copy.target)
    tied = {tensor.name for tensor in bound if ties and only_ties(tensor, ties)}
    fused = {name for name, made in by_target.items() if len({copy.source for copy in made}) > 1}
    whole = fused | tied
    split = {
        name
        for name, made in by_target.items()
        if name not in whole and len(feeds[made[0].source] - tied) > 1
    }
    stored_ties = [name for name in covered.tensors if ties and only_ties(covered.bound[name], ties)]
    return Summary(
        source_tensors=len(checkpoint.tensors),
        target_tensors=len(tensors),
        renamed=len(set(by_target) - fused - split - tied),
        fused=len(fused),
        split=len(split),
        ties_written=len(tied),
        ties_dropped=len(omitted) if stored_ties else 0,
        dropped=len(covered.dropped) + len(covered.ignored) + len(covered.beyond),
        unmapped=len(covered.dropped),
    )


def plan_notes(identity: Identity, copies: Sequence[Copy], covered: Covered) -> list[str]:
    notes = []
    if identity.unknown_fields:
        notes.append(
            f"{identity.dialect.config.file}: unknown to porter and not ported: "
            + ", ".join(identity.unknown_fields)
        )
    if covered.beyond:
        notes.append(f"text only: left out are {parts(covered.beyond)}")
    if covered.dropped:
        notes.append(f"dropped on request: {', '.join(covered.dropped[:5])}")
    if any(operation.kind for copy in copies for operation in copy.operations):
        notes.append("the norms' +1, folded into the source's weights, is taken out again in float32")
    return notes


def grade(plan: Plan) -> str:
    """How faithful the conversion is: `exact`, `exact when checked`, or `lossy` (rounded, or operated on)."""
    wider = {("BF16", "F32"), ("F16", "F32"), ("BF16", "F64"), ("F16", "F64"), ("F32", "F64")}
    for copy in plan.copies:
        if copy.copy_class != COMPUTE:
            continue
        source = plan.source_by_name[copy.source].dtype
        target = plan.target_by_name[copy.target].dtype
        widened = (source.name, target.name) in wider or (source.quantised and target.name in ("F32", "F64"))
        if copy.operations or not (widened or source == target):
            return "lossy"
    return "exact when checked" if plan.checks or plan.cropped else "exact"
