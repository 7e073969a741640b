"""Dividing a plan into tasks: consecutive units of a file, together one part of it.

The division depends on the plan alone. Parts are at least PART bytes, but for a file's last one, since every
part costs requests and S3 takes no more than ten thousand; they are as small as that, since a worker holds
one in memory. A transposed tensor is read whole for each of its units, so its units are larger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from porter.containers.base import OutputFile
from porter.execution.cluster.tasks import BUFFERS, Task
from porter.execution.frames import frame, frame_bytes, wants_sums
from porter.execution.sinks.multipart import MOST_PARTS
from porter.execution.units import Unit, copies_by_target, file_units, source_range
from porter.planning.plan import Plan

# Bytes.
PART = 64 << 20
UNIT = 32 << 20
TRANSPOSED = 256 << 20

# Bytes that a task declares: the largest part, what is read ahead, buffers, and a Python with porter.
MEMORY = TRANSPOSED + PART + BUFFERS + (256 << 20)


@dataclass(frozen=True)
class Division:
    """How plans are divided; in bytes."""

    part: int = PART
    unit: int = UNIT
    transposed: int = TRANSPOSED


def divide(plan: Plan, division: Division | None = None) -> tuple[Task, ...]:
    """All tasks of a plan, file by file, without their places and the bytes of frames."""
    division = division or Division()
    copies = copies_by_target(plan)
    return tuple(
        task
        for file in plan.files
        for task in _parts(file, file_units(plan, file, copies, division.unit, division.transposed), division)
    )


def _parts(file: OutputFile, units: Iterable[Unit], division: Division) -> Iterator[Task]:
    least = max(division.part, -(-file.size // (MOST_PARTS - 1)))
    held: list[Unit] = []
    number = start = 0
    for unit in units:
        held.append(unit)
        if unit.end - start >= least or unit.end == file.size:
            number += 1
            yield Task(file.name, number, start, unit.end, tuple(held))
            held, start = [], unit.end


def framed(file: OutputFile, tasks: Iterable[Task], sums: Mapping[str, int] | None) -> Iterator[Task]:
    """The same tasks with the bytes between the tensors, in the place of their units."""
    pieces = frame(file, sums if wants_sums(file) else None)
    for task in tasks:
        own = tuple(unit for unit in task.units if unit.tensor is not None)
        frames = tuple(
            (unit.start, frame_bytes(pieces, unit.start, unit.end, file.name))
            for unit in task.units
            if unit.tensor is None
        )
        yield replace(task, units=own, frames=frames)


def bytes_read(task: Task) -> int:
    """Bytes that a task asks of the source."""
    ranges = [source_range(part) for unit in task.units for part in unit.parts]
    return sum(stop - start for start, stop in ranges)
