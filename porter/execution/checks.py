"""Checks of a plan that need bytes: tied tensors that must be equal, and elements that must be zeros.

Elements of one dtype to which nothing is done are compared bit by bit; otherwise their values are.
"""

from __future__ import annotations

from collections.abc import Mapping

from porter.containers.base import StoredTensor
from porter.errors import DifferenceError
from porter.layout.copies import coalesce, elements, runs
from porter.planning.plan import EqualCheck, Plan, ZeroCheck
from porter.sources.base import SourceFile
from porter.sources.read_ahead import read_ahead
from porter.wording import option

# Bytes read from each side at a time: two such pieces stay in the processor's cache until they are compared.
BUFFER = 256 << 10

Sources = Mapping[str, SourceFile]


def run_checks(plan: Plan, sources: Sources) -> None:
    """Runs all checks of the plan over its open source files. Raises DifferenceError at the first failure."""
    for check in plan.checks:
        if isinstance(check, ZeroCheck):
            check_zeros(check, plan.source_by_name[check.tensor], sources)
        else:
            compare(check, plan.source_by_name, sources)


def compare(check: EqualCheck, tensors: Mapping[str, StoredTensor], sources: Sources) -> None:
    """Compares the elements of two stored tensors, in bounded memory. Raises DifferenceError."""
    kept, dropped = tensors[check.kept], tensors[check.dropped]
    if by_bytes(check, kept, dropped):
        _compare_bytes(check, kept, dropped, sources)
        return
    from porter.execution.kernels.compared import compare_values

    where = compare_values(check, tensors, sources)
    if where:
        raise difference(check, where)


def check_zeros(check: ZeroCheck, tensor: StoredTensor, sources: Sources) -> None:
    """Raises DifferenceError where an element of the check's region is not zero."""
    size = tensor.dtype.itemsize
    for run in runs(check.loops, check.offset, check.offset):
        start, left = tensor.offset + run.source * size, run.length * size
        buffer = memoryview(bytearray(min(BUFFER, left)))
        with read_ahead(sources[tensor.file], start, start + left) as file:
            while left:
                piece = buffer[: min(left, len(buffer))]
                file.read([piece], start)
                if any(bytes(piece)):
                    raise not_zeros(check)
                start, left = start + len(piece), left - len(piece)


def by_bytes(check: EqualCheck, kept: StoredTensor, dropped: StoredTensor) -> bool:
    """Whether the check asks for equal bytes of two whole tensors, in their order."""
    return (
        kept.dtype == dropped.dtype
        and kept.scales is None
        and dropped.scales is None
        and not (check.kept_operations or check.dropped_operations)
        and elements(check.loops) == kept.elements == dropped.elements
        and (check.kept_offset, check.dropped_offset) == (0, 0)
        and all((loop.source_stride, loop.target_stride) == (1, 1) for loop in coalesce(check.loops))
    )


def not_zeros(check: ZeroCheck) -> DifferenceError:
    """Elements that were to be left out hold something."""
    return DifferenceError(
        f"{check.what} of {check.tensor!r} are not zeros",
        cause="they were to be left out because they belong to no weight",
        hint=f"if they mean nothing, leave them out with {option('allow-unmapped', check.tensor)}",
    )


def difference(check: EqualCheck, cause: str) -> DifferenceError:
    """Two tensors that should have the same values have not."""
    reason = f" ({check.reason})" if check.reason else ""
    return DifferenceError(
        f"{check.kept!r} and {check.dropped!r} have to be equal{reason}", cause=cause, hint=check.hint or None
    )


def _compare_bytes(check: EqualCheck, kept: StoredTensor, dropped: StoredTensor, sources: Sources) -> None:
    # Whole bytearrays compare as memory, where they lie; memoryviews compare item by item.
    ours, theirs = (bytearray(min(BUFFER, kept.nbytes)) for _ in range(2))
    with (
        read_ahead(sources[kept.file], kept.offset, kept.offset + kept.nbytes) as one,
        read_ahead(sources[dropped.file], dropped.offset, dropped.offset + dropped.nbytes) as other,
    ):
        for start in range(0, kept.nbytes, BUFFER):
            count = min(BUFFER, kept.nbytes - start)
            if count < len(ours):
                ours, theirs = bytearray(count), bytearray(count)
            one.read([memoryview(ours)], kept.offset + start)
            other.read([memoryview(theirs)], dropped.offset + start)
            if ours != theirs:
                at = next(index for index in range(count) if ours[index] != theirs[index])
                raise difference(check, f"their bytes differ from byte {start + at} of {kept.nbytes} on")
