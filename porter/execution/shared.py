"""Units made of extents whose whole blocks two files can share: no byte of them is read or written.

Only the edges, which are parts of blocks, and parts that lie otherwise, are copied. Sharing a range again
changes nothing, so it is no part of what a journal notes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from porter.errors import UnsupportedError
from porter.execution.buffers import Buffers
from porter.execution.classes import run_move
from porter.execution.kernels.extents import move_bytes
from porter.execution.kernels.move import Move
from porter.execution.run_options import ALWAYS, NEVER
from porter.execution.units import Part, Unit
from porter.execution.writers import RangeWriter, Writer
from porter.planning.sharing import SharedRange, shared_block
from porter.sources.base import NearFile, SourceFile
from porter.system import clone_range
from porter.wording import option

# Bytes. Some file systems refuse longer requests at once.
LONGEST = 1 << 30


@dataclass
class Shared:
    """Ranges of units that are done; how many bytes share their blocks; why not more do."""

    ranges: set[tuple[int, int]] = field(default_factory=set)
    nbytes: int = 0
    refused: str | None = None


def share(
    units: Iterable[Unit],
    sources: Mapping[str, SourceFile],
    writer: Writer,
    reflink: str,
    count: Callable[[int], None],
) -> Shared:
    """Finishes every unit that can share blocks with a source.

    Where the file system cannot, nothing is done and `refused` says why. With `reflink` always that is an
    UnsupportedError, and so is a file of which no block could be shared anyway.
    """
    done = Shared()
    descriptor = getattr(writer, "fd", None)
    if reflink == NEVER or (descriptor is None and reflink != ALWAYS):
        return done
    if descriptor is None:
        done.refused = "the output is no file on a disk"
        return _checked(done, writer, reflink)
    buffers = Buffers(1 << 20)
    for unit in units:
        ranges = [(part, _range(part)) for part in unit.parts] if unit.extents else []
        if not any(found for _, found in ranges):
            continue
        into = RangeWriter(writer, unit.start, unit.end)
        for part, found in ranges:
            assert part.source is not None
            reader = sources[part.source.file]
            move = Move(part.copy, part.source, part.target, reader, into, buffers, part.box)
            move.check()
            if found is None:
                run_move(move)
                continue
            done.refused = _clone(reader, descriptor, found)
            if done.refused:
                # Every later request would most likely be refused too, at the price of a system call.
                return _checked(done, writer, reflink)
            into.add(found.length)
            start = part.target.offset + part.target.dtype.nbytes(part.box.target)
            move_bytes(move, found.source - (found.target - start), start, found.target - start)
            after = found.target + found.length
            move_bytes(move, found.source + found.length, after, start + found.nbytes - after)
            done.nbytes += found.length
        into.finish()
        count(unit.nbytes)
        done.ranges.add((unit.start, unit.end))
    return _checked(done, writer, reflink)


def _range(part: Part) -> SharedRange | None:
    if part.source is None:
        return None
    box = part.box
    return shared_block(box.loops, box.source, box.target, part.source, part.target)


def _checked(done: Shared, writer: Writer, reflink: str) -> Shared:
    if reflink == ALWAYS and (done.refused or not done.nbytes):
        raise UnsupportedError(
            f"{writer.name} cannot share blocks with the source",
            cause=done.refused or "no whole block lies at the same place in a source file and here",
            hint=f"leave out {option('reflink', 'always')}, and the bytes are copied",
        )
    return done


def _clone(reader: SourceFile, target: int, found: SharedRange) -> str | None:
    if not isinstance(reader, NearFile):
        return "the source is no file on this machine"
    for start in range(0, found.length, LONGEST):
        count = min(LONGEST, found.length - start)
        refused = clone_range(reader.fd, found.source + start, target, found.target + start, count)
        if refused:
            return refused
    return None
