"""A plan in counts and words: its summary, its notes, and how faithful it is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from itertools import chain

from porter.containers.checkpoint import Checkpoint
from porter.planning.coverage import Covered, count, parts
from porter.planning.fidelity import formula
from porter.planning.plan import Copies, Copy, Summary, groups_of
from porter.recognition.identify import Identity
from porter.tables.model import Dialect
from porter.values.operations import Operation


def summarise(
    checkpoint: Checkpoint,
    covered: Covered,
    copies: Copies,
    targets: int,
    tied: Set[str],
    stored_ties: bool,
    omitted: int,
) -> Summary:
    """Counts. `tied` are target tensors that equal another; `omitted` those that are left out for that."""
    feeds = Counter(chain.from_iterable(part.sources for group in copies.groups for part in group.parts))
    several = {name for name, number in feeds.items() if number > 1}
    fused, split = set[str](), set[str]()
    plain = 0
    shared: dict[str, set[str]] = defaultdict(set)
    for group in copies.groups:
        if len(group.parts) == 1 and several.isdisjoint(group.parts[0].sources):
            plain += sum(name not in tied for name in group.targets)
            continue
        for target, *sources in zip(group.targets, *(part.sources for part in group.parts), strict=True):
            if len(set(sources)) > 1:
                fused.add(target)
            for source in several.intersection(sources):
                shared[source].add(target)
            if len(set(sources)) == 1 and target not in tied:
                plain += 1
    for made in shared.values():
        if len(made - tied) > 1:
            split |= made
    split -= fused | tied
    return Summary(
        source_tensors=len(checkpoint.tensors),
        target_tensors=targets,
        renamed=plain - len(split),
        fused=len(fused),
        split=len(split),
        ties_written=len(tied),
        ties_dropped=omitted if stored_ties else 0,
        dropped=sum(map(len, (covered.dropped, covered.ignored, covered.beyond, covered.state)))
        + len(covered.passed_over)
        + len(covered.idle),
        unmapped=len(covered.dropped),
    )


def plan_notes(identity: Identity, target: Dialect, copies: Sequence[Copy], covered: Covered) -> list[str]:
    notes = []
    if identity.unknown_fields:
        kept = identity.keeps_words(target)
        notes.append(
            f"{identity.dialect.config.file}: unknown to porter and "
            + ("copied as they are: " if kept else "left out: ")
            + ", ".join(identity.unknown_fields)
        )
    if covered.beyond:
        notes.append(f"text only: left out are {parts(covered.beyond)}")
    if covered.passed_over:
        notes.append(
            f"left out: {count(len(covered.passed_over), 'tensor')} such as {covered.passed_over[0]}, which "
            f"{identity.dialect.title} does not load either"
        )
    if covered.idle:
        what = f"{count(len(covered.idle), 'tensor')} that no framework computes with"
        notes.append(f"left out: {what}, such as {covered.idle[0]}")
    if covered.state:
        notes.append(f"a trainer's own, not weights, and left out: {parts(covered.state)}")
    if covered.dropped:
        notes.append(f"dropped on request: {', '.join(covered.dropped[:5])}")
    return notes + operation_notes(copies)


def operation_notes(copies: Sequence[Copy]) -> list[str]:
    """What is done to values, and to how many tensors: `3 tensors such as norm.weight: w - 1, in float32`."""
    found: dict[tuple[Operation, ...], list[str]] = {}
    for group in groups_of(copies):
        for part in group.parts:
            if part.operations:
                found.setdefault(part.operations, []).extend(group.targets)
    notes = []
    for operations, targets in found.items():
        names = list(dict.fromkeys(targets))
        notes.append(
            f"{count(len(names), 'tensor')}{' such as' if len(names) > 1 else ':'} {names[0]}: "
            f"{formula(operations)}, in float32"
        )
    return notes
