"""Copies of class extent whose whole blocks the two files can share: no byte of them is read or written.

Only the edges, which are parts of blocks, are copied. Sharing a range again changes nothing, so it is no
part of what a journal notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from porter.containers.base import OutputFile
from porter.errors import UnsupportedError
from porter.execution.kernels.extents import move_bytes
from porter.execution.kernels.move import Move
from porter.execution.open_files import RangeWriter, SourceFile, WeightFile
from porter.execution.run_options import ALWAYS, NEVER
from porter.execution.system import clone_range
from porter.planning.plan import Copy, Plan
from porter.planning.sharing import shared_range

# Bytes. Some file systems refuse longer requests at once.
LONGEST = 1 << 30


@dataclass
class Shared:
    """Copies that are done, by target tensor; how many bytes share their blocks; why not more do."""

    copies: dict[str, list[Copy]] = field(default_factory=dict)
    nbytes: int = 0
    refused: str | None = None


def share(
    plan: Plan,
    file: OutputFile,
    copies: Mapping[str, Sequence[Copy]],
    sources: Mapping[str, SourceFile],
    writer: WeightFile,
    reflink: str,
) -> Shared:
    """Runs every copy into `file` that can share blocks.

    Where the file system cannot, nothing is done and `refused` says why. With `reflink` always that is an
    UnsupportedError, and so is a file of which no block could be shared anyway.
    """
    done = Shared()
    if reflink == NEVER:
        return done
    for tensor in file.tensors:
        for copy in copies.get(tensor.name, ()):
            source = plan.source_by_name[copy.source]
            range_ = shared_range(copy, source, tensor)
            if range_ is None:
                continue
            reader = sources[source.file]
            start = tensor.offset + tensor.dtype.nbytes(copy.target_offset)
            end = start + range_.nbytes
            into = RangeWriter(writer, start, end, range_.nbytes - range_.length, summed=False)
            move = Move(copy, source, tensor, reader, into)
            move.check()
            refused = _clone(reader, writer, range_.source, range_.target, range_.length)
            if refused:
                # Every later request would most likely be refused too, at the price of a system call.
                done.refused = refused
                return _checked(done, file, reflink)
            head = range_.target - start
            move_bytes(move, range_.source - head, start, head)
            after = range_.target + range_.length
            move_bytes(move, range_.source + range_.length, after, end - after)
            into.finish()
            writer.count(range_.length)
            done.copies.setdefault(tensor.name, []).append(copy)
            done.nbytes += range_.length
    return _checked(done, file, reflink)


def _checked(done: Shared, file: OutputFile, reflink: str) -> Shared:
    if reflink == ALWAYS and (done.refused or not done.nbytes):
        raise UnsupportedError(
            f"{file.name} cannot share blocks with the source",
            cause=done.refused or "no whole block lies at the same place in a source file and here",
            hint="leave out --reflink always, and the bytes are copied",
        )
    return done


def _clone(reader: SourceFile, writer: WeightFile, source: int, target: int, length: int) -> str | None:
    for start in range(0, length, LONGEST):
        count = min(LONGEST, length - start)
        refused = clone_range(reader.fd, source + start, writer.fd, target + start, count)
        if refused:
            return refused
    return None
