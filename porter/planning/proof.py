"""The target's half of the proof: each target byte is made once, each source element carried once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from porter.errors import UnsupportedError
from porter.layout import elements
from porter.planning.coverage import Covered
from porter.planning.plan import Copy, Padding
from porter.planning.plan_options import Options
from porter.planning.ties import only_ties
from porter.tables.bind import BoundTensor
from porter.tables.model import Dialect


def check_filled(bound: BoundTensor, copies: Sequence[Copy]) -> None:
    """Blocks partition a tensor, so the copies fill it exactly when their elements add up to it."""
    moved = sum(elements(copy.loops) for copy in copies)
    wanted = math.prod(bound.shape) - bound.padding
    if moved != wanted:
        raise UnsupportedError(
            f"{bound.name} would not be filled exactly",
            cause=f"its sources hold {moved} elements, its shape {list(bound.shape)} has {wanted}",
        )


def check_used(covered: Covered, copies: Sequence[Copy], alias: Mapping[str, str], target: Dialect) -> None:
    """Every element of every mapped source tensor goes to one place; ties go by what they are tied to."""
    moved = dict.fromkeys(covered.tensors, 0)
    by_stored_name = {tensor.name: name for name, tensor in covered.tensors.items()}
    for copy in copies:
        if copy.canonical not in alias:
            moved[by_stored_name[copy.source]] += elements(copy.loops)
    for name, tensor in covered.tensors.items():
        bound = covered.bound[name]
        if moved[name] != tensor.elements - bound.padding and not only_ties(bound, alias):
            raise UnsupportedError(
                f"{tensor.name} would not be carried over exactly once",
                cause=f"of its {tensor.elements} elements, {moved[name]} would be written as {target.title}",
                hint=f"the conditions (`when`) of {target.path.name} must hold once for each weight",
            )


def cropped_rows(covered: Covered, options: Options) -> tuple[tuple[Padding, ...], list[str]]:
    """Stored rows that belong to no weight: those that must be zeros, and notes on all of them.

    Rows that a table says may hold anything, and those of tensors that `--allow-unmapped` names, are left
    out without a look at them.
    """
    checked, notes = [], []
    for name, tensor in covered.tensors.items():
        padding = covered.bound[name].padding
        if not padding:
            continue
        if tensor.strides is not None:
            raise UnsupportedError(
                f"{tensor.name} has rows to be left out and is a strided view",
                hint="save it again after .contiguous()",
            )
        rows = padding // (tensor.elements // tensor.shape[0])
        zero = covered.bound[name].rule.padding == "zero"
        zero = zero and not any(fnmatchcase(tensor.name, glob) for glob in options.allow_unmapped)
        if zero:
            checked.append(Padding(tensor.name, padding))
        how = "which are checked to be zeros" if zero else "whatever they hold"
        notes.append(f"{tensor.name}: its last {rows} of {tensor.shape[0]} rows are left out, {how}")
    return tuple(checked), notes
