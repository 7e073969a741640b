"""A plan in counts and words: its summary, its notes, and how faithful it is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from porter.containers.checkpoint import Checkpoint
from porter.planning.coverage import Covered, parts
from porter.planning.plan import COMPUTE, Copy, Plan, Summary
from porter.planning.ties import only_ties
from porter.recognition.identify import Identity
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
    tied = {tensor.name for tensor in bound if only_ties(tensor, ties)}
    made_of: dict[str, set[str]] = defaultdict(set)
    feeds: dict[str, set[str]] = defaultdict(set)
    several = Counter(copy.target for copy in copies)
    shared = Counter(copy.source for copy in copies)
    for copy in copies:
        if several[copy.target] > 1:
            made_of[copy.target].add(copy.source)
        if shared[copy.source] > 1:
            feeds[copy.source].add(copy.target)
    fused = {name for name, sources in made_of.items() if len(sources) > 1}
    split = {target for targets in feeds.values() if len(targets - tied) > 1 for target in targets}
    split -= fused | tied
    stored_ties = [name for name in covered.tensors if only_ties(covered.bound[name], ties)]
    return Summary(
        source_tensors=len(checkpoint.tensors),
        target_tensors=len(tensors),
        renamed=len(several.keys() - fused - split - tied),
        fused=len(fused),
        split=len(split),
        ties_written=len(tied),
        ties_dropped=len(omitted) if stored_ties else 0,
        dropped=len(covered.dropped) + len(covered.ignored) + len(covered.beyond) + len(covered.state),
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
    if covered.state:
        notes.append(f"a trainer's own, not weights, and left out: {parts(covered.state)}")
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
    return "exact when checked" if plan.checks else "exact"
