"""The target's half of the proof: each target byte is made once, each canonical tensor carried once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

from porter.containers.base import StoredTensor
from porter.errors import UnsupportedError
from porter.layout import elements, run_length
from porter.planning.coverage import BlockIndex, Covered
from porter.planning.plan import CopyGroup, ZeroCheck
from porter.planning.plan_options import PlanOptions
from porter.tables.bind import BoundRule, Filler, Sizes
from porter.tables.model import ZEROS, Dialect
from porter.tables.patterns import Pattern


def check_filled(bound: BoundRule, group: CopyGroup) -> None:
    """Blocks partition a tensor, so the copies fill it exactly when their elements add up to it."""
    moved = sum(elements(part.loops) for part in group.parts)
    wanted = math.prod(bound.shape) - sum(elements(filler.loops) for filler in bound.fillers)
    if moved != wanted:
        raise UnsupportedError(
            f"{group.targets[0]} would not be filled exactly",
            cause=f"its sources hold {moved} elements, its shape {list(bound.shape)} has {wanted}",
        )


def check_carried_once(
    source: BlockIndex, target: BlockIndex, alias: Mapping[str, str], sizes: Sizes, dialect: Dialect
) -> None:
    """Every canonical tensor that the source holds is held once by it, and once by the target.

    Each block of a rule runs over all axes of its canonical tensor that no name holds, so a tensor that is
    held at each value of its index variables is carried with all its elements. Those in `alias` are read
    from what they are tied to, and may be left out; what is read for them is carried by them, too.
    """
    for canonical in dict.fromkeys([*source, *target]):
        if _alike(source, target, canonical):
            continue
        held = _points(source, canonical, sizes, "the source")
        made = _points(target, canonical, sizes, dialect.title)
        left = held.keys() - made.keys()
        for reader in (name for name, other in alias.items() if other == canonical) if left else ():
            left -= _points(target, reader, sizes, dialect.title).keys()
        if left and canonical not in alias:
            raise UnsupportedError(
                f"{_named(canonical, min(left))} of the source would be lost",
                cause=f"{held[min(left)]} holds it, and no tensor of {dialect.title} does"
                + (f"; nor {len(left) - 1} more of its kind" if len(left) > 1 else ""),
                hint=f"the conditions (`when`) of {dialect.path.name} must hold once for each weight",
            )


def _alike(source: BlockIndex, target: BlockIndex, canonical: str) -> bool:
    """Whether one rule on either side holds it, for the same values of all of its index variables."""
    wanted = [_variables(canonical)]
    if source.variables(canonical) != wanted or target.variables(canonical) != wanted:
        return False
    one, other = source.rules(canonical, wanted[0]), target.rules(canonical, wanted[0])
    return len(one) == len(other) == 1 and one[0][0].points == other[0][0].points


def _points(index: BlockIndex, canonical: str, sizes: Sizes, what: str) -> Mapping[tuple[int, ...], str]:
    """The stored name by the values of all index variables of a canonical tensor, in its pattern's order."""
    found: dict[tuple[int, ...], str] = {}
    wanted = _variables(canonical)
    for variables in index.variables(canonical):
        for rule, _ in index.rules(canonical, variables):
            for values, name in zip(rule.points, rule.names, strict=True):
                at = dict(zip(variables, values, strict=True))
                for point in (values,) if variables == wanted else sizes.points(wanted, at):
                    if point in found:
                        raise _twice(_named(canonical, point), found[point], name, what)
                    found[point] = name
    return found


def _variables(canonical: str) -> tuple[str, ...]:
    return Pattern(canonical).variables


def _named(canonical: str, point: tuple[int, ...]) -> str:
    return repr(Pattern(canonical).at(point))


def _twice(canonical: str, one: str, other: str, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{canonical} would be held twice by {what}",
        cause=f"by {one} and by {other}" if one != other else f"by two blocks of {one}",
        hint="the conditions (`when`) of its table must hold once for each weight",
    )


def left_out(covered: Covered, options: PlanOptions) -> tuple[list[ZeroCheck], list[str]]:
    """Stored elements that belong to no weight: those that must be zeros, and notes on all of them.

    Those that a table says may hold anything, and those of tensors that `--allow-unmapped` names, are left
    out without a look at them.
    """
    checked, notes = [], []
    for rule in covered.held:
        for name, filler in itertools.product(rule.names, rule.fillers):
            tensor = covered.tensors[name]
            zero = filler.kind == ZEROS
            zero = zero and not any(fnmatchcase(tensor.name, glob) for glob in options.allow_unmapped)
            what = _which(filler, tensor)
            if zero and tensor.strides is not None:
                raise UnsupportedError(
                    f"{tensor.name} has rows to be left out and is a strided view",
                    hint="save it again after .contiguous()",
                )
            if zero:
                checked.append(ZeroCheck(tensor.name, what, filler.offset, filler.loops))
            how = "which are checked to be zeros" if zero else "whatever they hold"
            notes.append(f"{tensor.name}: {what} are left out, {how}")
    return checked, notes


def _which(filler: Filler, tensor: StoredTensor) -> str:
    number, row = elements(filler.loops), tensor.elements // max(1, tensor.shape[0])
    whole = run_length(filler.loops) == number and number % row == 0
    if whole and filler.offset + number == tensor.elements:
        return f"the last {number // row} of {tensor.shape[0]} rows"
    return f"{number} of {tensor.elements} elements"
