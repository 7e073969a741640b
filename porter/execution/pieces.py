"""What a plan wants of a source file that passes by in chunks, and where each piece of it goes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from porter.containers.base import StoredTensor
from porter.execution.checks import by_bytes
from porter.execution.open_files import WeightFile
from porter.layout.copies import elements
from porter.planning.plan import EXTENT, EqualCheck, Plan, ZeroCheck


@dataclass(frozen=True)
class Piece:
    """Bytes [start, stop) of a source file and where they go: (file, offset) pairs."""

    start: int
    stop: int
    places: tuple[tuple[WeightFile, int], ...]


def pieces_of(
    plan: Plan,
    name: str,
    writers: Mapping[str, WeightFile],
    waiting: Sequence[StoredTensor],
    spools: Mapping[str, WeightFile],
) -> list[Piece]:
    """What of a source file is wanted, in its order: extents go to `writers`, what waits to `spools`."""
    places: dict[tuple[int, int], list[tuple[WeightFile, int]]] = {}
    for copy in plan.copies:
        source = plan.source_by_name[copy.source]
        if source.file != name or copy.copy_class != EXTENT:
            continue
        target = plan.target_by_name[copy.target]
        count = source.dtype.nbytes(elements(copy.loops))
        start = source.offset + source.dtype.nbytes(copy.source_offset)
        offset = target.offset + target.dtype.nbytes(copy.target_offset)
        if count:
            places.setdefault((start, start + count), []).append((writers[target.file], offset))
    for tensor in waiting:
        if tensor.file == name and tensor.nbytes:
            key = (tensor.offset, tensor.offset + tensor.nbytes)
            places.setdefault(key, []).append((spools[name], tensor.offset))
    return [Piece(start, stop, tuple(to)) for (start, stop), to in sorted(places.items())]


def waiting_tensors(plan: Plan) -> list[StoredTensor]:
    """Source tensors that have to be whole before they can be moved or checked, and their scales."""
    names = {copy.source for copy in plan.copies if copy.copy_class != EXTENT}
    plain = plain_checks(plan)
    for check in plan.checks:
        if isinstance(check, ZeroCheck):
            names.add(check.tensor)
        elif check not in plain:
            names |= {check.kept, check.dropped}
    names |= {scales for name in names if (scales := plan.source_by_name[name].scales)}
    return [tensor for tensor in plan.sources if tensor.name in names]


def plain_checks(plan: Plan) -> list[EqualCheck]:
    """Checks for equal bytes of whole tensors: a hash of either, as it passes by, decides them."""
    found = plan.source_by_name
    return [
        check
        for check in plan.checks
        if isinstance(check, EqualCheck) and by_bytes(check, found[check.kept], found[check.dropped])
    ]


def chunks(size: int, chunk: int, pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """Chunks of a file; where `pieces` are given, only those that hold some of them."""
    every = [(start, min(start + chunk, size)) for start in range(0, size, chunk)]
    if not pieces:
        return every
    return [span for span in every if any(True for _ in overlapping(pieces, *span))]


def overlapping(pieces: Sequence[Piece], start: int, stop: int) -> Iterator[tuple[Piece, int, int]]:
    """Pieces that share bytes with [start, stop), and the bytes [low, high) of the file that they share.

    Pieces do not overlap one another.
    """
    index = max(bisect_right(pieces, start, key=lambda piece: piece.start) - 1, 0)
    while index < len(pieces) and pieces[index].start < stop:
        if pieces[index].stop > start:
            yield pieces[index], max(start, pieces[index].start), min(stop, pieces[index].stop)
        index += 1
