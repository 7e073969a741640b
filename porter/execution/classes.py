"""Which executor runs which class of copy, and why. None of them imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from porter.errors import PorterError
from porter.execution.kernels.extents import move_extent
from porter.execution.kernels.move import Move
from porter.execution.kernels.runs import move_runs
from porter.layout.copies import elements
from porter.planning.plan import COMPUTE, COPY_CLASSES, EXTENT, RUNS, TILE, Plan
from porter.planning.sharing import shared_range

SHARED = "shared"

# What each executor does, and why it was chosen for its class: measured, see benchmarks/README.md.
REASONS = {
    SHARED: "whole blocks at the same place modulo 4096: shared where the file system can, else copied",
    EXTENT: "one range: 256 KiB at a time through the processor's cache, one thread reading and one writing",
    RUNS: "ranges in another order: gathered in 1 MiB, written at once",
    TILE: "transposed: 64 MiB tiles, each page of the source read once, turned in strips, in threads",
    COMPUTE: "values change: 1 MiB pieces in the processor's cache, 16 MiB where they are transposed too",
}


@dataclass(frozen=True)
class Choice:
    """An executor, how many copies it gets, the bytes that they write, and why."""

    executor: str
    copies: int
    nbytes: int
    why: str


def explain(plan: Plan) -> tuple[Choice, ...]:
    """The executor chosen for each class of copy of a plan; edges of shared ranges count as shared."""
    totals: dict[str, tuple[int, int]] = {}
    for copy in plan.copies:
        source, target = plan.source_by_name[copy.source], plan.target_by_name[copy.target]
        name = SHARED if shared_range(copy, source, target) else copy.copy_class
        number, nbytes = totals.get(name, (0, 0))
        totals[name] = number + 1, nbytes + target.dtype.nbytes(elements(copy.loops))
    order = (SHARED, *COPY_CLASSES)
    return tuple(Choice(name, *totals[name], REASONS[name]) for name in order if name in totals)


def run_move(move: Move) -> None:
    """Runs one copy, or a part of one. Raises PorterError if it would leave its tensors."""
    move.check()
    if move.copy.copy_class == EXTENT:
        move_extent(move)
    elif move.copy.copy_class == RUNS:
        move_runs(move)
    elif move.copy.copy_class == TILE:
        from porter.execution.kernels.tiles import move_tiles

        move_tiles(move)
    elif move.copy.copy_class == COMPUTE:
        from porter.execution.kernels.compute import move_values

        move_values(move)
    else:
        raise PorterError(f"{move.label}: unknown class {move.copy.copy_class!r}")
