"""The weights of a port against what its plan makes of the original: every element, at the speed of reading.

The plan runs into a comparing sink: nothing is written, and memory stays small whatever the model's size.
"""

from __future__ import annotations

from collections.abc import Mapping

from porter.containers.checkpoint import Checkpoint
from porter.dtypes import casts_exactly
from porter.execution.executor import execute
from porter.execution.open_files import OpenFiles
from porter.execution.run_options import NEVER, RunOptions
from porter.execution.sinks.compare import CompareSink, Differing
from porter.execution.watch import Watch
from porter.layout.copies import elements
from porter.planning.plan import COMPUTE, CopyGroup, Plan, groups_of
from porter.planning.port_plan import PortPlan
from porter.sources.base import Source
from porter.verification.diagnose import Diagnosis
from porter.verification.samples import index_of
from porter.verification.verdict import (
    DifferingTensor,
    MisshapenTensor,
    MissingTensor,
    Outcome,
    WeightsVerdict,
)

# Bytes of all buffers together, and of what is gathered for one unit: verify is to run beside other work.
MEMORY, UNIT = 64 << 20, 8 << 20


def compare_weights(
    planned: PortPlan,
    original: Source,
    out: Checkpoint,
    port: OpenFiles,
    watch: Watch | None = None,
) -> tuple[Mapping[str, Differing], Mapping[str, Differing]]:
    """Which tensors differ, by the table's names, and which of these hold values that their dtype cannot.

    Raises PorterError where a side cannot be read.
    """
    sink = CompareSink(
        planned.there,
        port,
        by_value={name for group in groups_of(planned.plan.copies) for name in _computed(group)},
        unused={
            name: tuple((filler.offset, filler.offset + elements(filler.loops)) for filler in fillers)
            for name, fillers in planned.unused.items()
        },
        stored=out.tensors,
    )
    sink.unit_bytes = UNIT
    options = RunOptions(reflink=NEVER, digest=NEVER, resume=False, max_memory=MEMORY)
    execute(planned.plan, original, sink, options, watch)
    return sink.differing, sink.lost


def weights_verdict(
    planned: PortPlan, differing: Mapping[str, Differing], diagnosis: Diagnosis, quick: bool
) -> WeightsVerdict:
    """What a comparison has found, of all elements or, where it was `quick`, of samples."""
    tensors = planned.plan.target_by_name
    rounded = rounded_to(planned.plan)
    wrong = [name for name in tensors if name in differing]
    misplaced = planned.missing or planned.extra or planned.misfits or planned.lost
    outcome: Outcome = "differs" if wrong or misplaced else "rounded" if rounded else "equal"
    if not tensors and outcome != "differs":
        outcome = "not compared"
    return WeightsVerdict(
        outcome=outcome,
        tensors=len(tensors),
        elements=sum(tensor.elements for tensor in tensors.values()),
        rounded_to=rounded,
        missing=tuple(MissingTensor(absent.name, absent.shape) for absent in planned.missing),
        extra=planned.extra,
        misshapen=tuple(
            MisshapenTensor(misfit.name, misfit.expected, misfit.found, misfit.dtype)
            for misfit in planned.misfits
        ),
        differing=tuple(
            DifferingTensor(
                name=planned.there[name].name,
                shape=tensors[name].shape,
                dtype=planned.there[name].dtype.name,
                elements=differing[name].elements,
                of=tensors[name].elements,
                first=index_of(differing[name].first, tensors[name].shape),
                says=diagnosis.says.get(name),
                brief=diagnosis.briefs.get(name),
                largest=differing[name].largest,
                relative=differing[name].largest / differing[name].scale if differing[name].scale else None,
            )
            for name in wrong
        ),
        omitted=planned.omitted,
        lost=planned.lost,
        bytes_read=diagnosis.bytes_read
        + (0 if quick else sum(t.nbytes for t in (*planned.plan.sources, *planned.there.values()))),
    )


def rounded_to(plan: Plan) -> tuple[str, ...]:
    """The dtypes that values are rounded to on the way into the port, by name."""
    found = set()
    for group in groups_of(plan.copies):
        target = plan.target_by_name[group.targets[0]].dtype
        for part in group.parts:
            source = plan.source_by_name[part.sources[0]].dtype
            if not casts_exactly(source, target):
                found.add(target.name)
    return tuple(sorted(found))


def _computed(group: CopyGroup) -> tuple[str, ...]:
    return group.targets if any(part.copy_class == COMPUTE for part in group.parts) else ()
