"""Running one unit: its parts one after the other into the unit's range of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from porter.errors import PorterError
from porter.execution.buffers import Buffers
from porter.execution.classes import run_move
from porter.execution.kernels.move import Move
from porter.execution.kernels.zeros import move_zeros
from porter.execution.units import Unit, source_range
from porter.execution.writers import RangeWriter, Writer
from porter.sources.base import SourceFile
from porter.sources.read_ahead import read_ahead


class Done(NamedTuple):
    """A unit that is finished: its range, and the CRC-32 of its bytes if it was summed."""

    file: str
    start: int
    end: int
    crc: int | None


def run_unit(
    unit: Unit,
    sources: Mapping[str, SourceFile],
    writer: Writer,
    buffers: Buffers,
    *,
    summed: bool = False,
    count: Callable[[int], None] = lambda count: None,
) -> Done:
    """Runs a unit of a tensor. Frames are made of the whole file: see `porter.execution.frames`.

    Needs nothing but the unit, so that it can be run in another process than the one that planned it.
    Raises PorterError and its kinds.
    """
    if unit.tensor is None:
        raise PorterError(f"{unit.file}: a frame is not run, it is made")
    gathered = not writer.readable and not unit.in_order
    into = RangeWriter(writer, unit.start, unit.end, summed=summed, gathered=gathered, count=count)
    for part in unit.parts:
        if part.source is None:
            move_zeros(part.target, part.box, into)
            continue
        factors = None if part.scales is None else (part.scales, sources[part.scales.file])
        with read_ahead(sources[part.source.file], *source_range(part)) as reader:
            run_move(Move(part.copy, part.source, part.target, reader, into, buffers, part.box, factors))
    return Done(unit.file, unit.start, unit.end, into.finish())
