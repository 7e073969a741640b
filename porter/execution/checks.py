"""Checks of a plan that need bytes: tied tensors that must be equal, and padding that must be zeros."""

from __future__ import annotations

from collections.abc import Mapping

from porter.containers.base import StoredTensor
from porter.errors import DifferenceError
from porter.planning.plan import EqualCheck, Padding, Plan
from porter.sources.base import SourceFile

# Bytes read from each side at a time.
BUFFER = 1 << 20


def run_checks(plan: Plan, sources: Mapping[str, SourceFile]) -> None:
    """Runs all checks of the plan over its open source files. Raises DifferenceError at the first failure."""
    for check in plan.checks:
        _check_equal(check, plan.source_by_name[check.kept], plan.source_by_name[check.dropped], sources)
    for padding in plan.cropped:
        _check_zeros(padding, plan.source_by_name[padding.tensor], sources)


def _check_equal(
    check: EqualCheck, kept: StoredTensor, dropped: StoredTensor, sources: Mapping[str, SourceFile]
) -> None:
    if (kept.dtype, kept.shape) != (dropped.dtype, dropped.shape):
        raise _difference(check, f"{_what(kept)} against {_what(dropped)}")
    ours, theirs = (memoryview(bytearray(min(BUFFER, kept.nbytes))) for _ in range(2))
    for start in range(0, kept.nbytes, BUFFER):
        count = min(BUFFER, kept.nbytes - start)
        sources[kept.file].read([ours[:count]], kept.offset + start)
        sources[dropped.file].read([theirs[:count]], dropped.offset + start)
        # bytes compare as memory; memoryviews compare item by item.
        first, second = bytes(ours[:count]), bytes(theirs[:count])
        if first != second:
            at = next(index for index in range(count) if first[index] != second[index])
            raise _difference(check, f"their bytes differ from byte {start + at} of {kept.nbytes} on")


def _check_zeros(padding: Padding, tensor: StoredTensor, sources: Mapping[str, SourceFile]) -> None:
    left = tensor.dtype.nbytes(padding.elements)
    start = tensor.offset + tensor.nbytes - left
    buffer = memoryview(bytearray(min(BUFFER, left)))
    while left:
        piece = buffer[: min(left, len(buffer))]
        sources[tensor.file].read([piece], start)
        if any(bytes(piece)):
            row = tensor.elements // tensor.shape[0]
            raise padding_error(tensor.name, padding.elements // row)
        start, left = start + len(piece), left - len(piece)


def padding_error(name: str, rows: int) -> DifferenceError:
    """Rows that were to be left out as padding hold something."""
    return DifferenceError(
        f"the last {rows} rows of {name!r} are not zeros",
        cause="they were to be left out because they lie behind the vocabulary",
        hint=f"if they mean nothing, leave them out with --allow-unmapped '{name}'",
    )


def _what(tensor: StoredTensor) -> str:
    return f"{tensor.dtype.name} {list(tensor.shape)}"


def _difference(check: EqualCheck, cause: str) -> DifferenceError:
    reason = f" ({check.reason})" if check.reason else ""
    return DifferenceError(
        f"{check.kept!r} and {check.dropped!r} have to be equal{reason}",
        cause=cause,
        hint="--tied write keeps both",
    )
