"""What was done wrong in a port whose tensors differ, are missing, have other names or other shapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from porter.containers.base import StoredTensor
from porter.dtypes import dtype_word
from porter.execution.open_files import OpenFiles
from porter.execution.sinks.compare import Differing
from porter.planning.port_plan import PortPlan
from porter.verification.explain import Explained, explain
from porter.verification.known_mistakes import KnownMistakes
from porter.verification.misplaced import misplaced
from porter.verification.name_mistakes import name_mistakes
from porter.verification.samples import index_of
from porter.verification.sides import Sides
from porter.verification.stored_values import StoredValues
from porter.verification.verdict import Mistake
from porter.verification.weight_places import places

# Elements of each weight that are looked at where a comparison is quick.
QUICK = 1024


@dataclass(frozen=True)
class Diagnosis:
    """`says` describes the difference of tensors, by the table's names, `briefs` what of it several may have
    in common. `bytes_read` is what it cost."""

    mistakes: tuple[Mistake, ...]
    says: Mapping[str, str]
    briefs: Mapping[str, str]
    bytes_read: int


def open_sides(
    planned: PortPlan,
    original: OpenFiles,
    port: OpenFiles,
    original_tensors: Mapping[str, StoredTensor],
    port_tensors: Mapping[str, StoredTensor],
) -> Sides:
    """Both sides, weight by weight. Nothing is read yet."""
    return Sides(
        original=places(planned.covered.held, planned.covered.tensors, planned.join.sizes),
        port=places(planned.bound, planned.there, planned.sizes),
        original_values=StoredValues(original, original_tensors),
        port_values=StoredValues(port, port_tensors),
        alias=planned.join.alias,
        sizes=planned.sizes,
        hyperparameters=planned.plan.hyperparameters,
    )


def sampled_differences(sides: Sides) -> dict[str, Differing]:
    """Tensors of which a sample differs, by the table's names; elements and first count samples."""
    found: dict[str, Differing] = {}
    for weight, place in sides.port.items():
        if sides.source_of(weight) not in sides.original:
            continue
        unlike = sides.unlike(weight, sides.right(weight), QUICK)
        if unlike.elements:
            before = found.get(place.name)
            elements = unlike.elements + (before.elements if before else 0)
            found[place.name] = Differing(elements, before.first if before else 0)
    return found


def diagnose(
    planned: PortPlan,
    sides: Sides,
    differing: Mapping[str, Differing],
    known: KnownMistakes,
    tensors: Mapping[str, StoredTensor],
    lost: Mapping[str, Differing],
    *,
    quick: bool = False,
) -> Diagnosis:
    """Name what can be named. `tensors` are all that the port holds, by its own names, `lost` those (by the
    table's) with values out of their dtype's range."""
    mistakes = misplaced(planned, sides, tensors)
    explained: Sequence[Explained] = ()
    if differing:
        # Bytes of something else may be any numbers.
        with np.errstate(all="ignore"):
            explained = explain(sides, differing, known.mistakes, quick=quick)
        mistakes += name_mistakes(sides, explained, known.mistakes)
    says, briefs = _descriptions(sides, explained)
    if lost:
        mistakes += out_of_range(planned, lost)
        for name, found in lost.items():
            count = "1 value is" if found.elements == 1 else f"{found.elements:,} values are"
            too = f"{count} out of {dtype_word(planned.there[name].dtype)}'s range"
            says[name] = f"{says[name]}; {too}" if name in says else too
            briefs[name] = says[name]
    return Diagnosis(tuple(mistakes), says, briefs, sides.read)


def out_of_range(planned: PortPlan, lost: Mapping[str, Differing]) -> list[Mistake]:
    """Values of the original that the port's dtype cannot hold: one mistake for each dtype."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in lost:
        groups[dtype_word(planned.there[name].dtype)].append(name)
    found = []
    for dtype, names in groups.items():
        stored = tuple(planned.there[name].name for name in names)
        count = sum(lost[name].elements for name in names)
        index = index_of(lost[names[0]].first, planned.there[names[0]].shape)
        many = "1 value is" if count == 1 else f"{count:,} values are"
        says = f"{many} out of {dtype}'s range, the first at {list(index)} of {stored[0]}"
        found.append(Mistake(says, stored, "out of range"))
    return found


def _descriptions(sides: Sides, explained: Sequence[Explained]) -> tuple[dict[str, str], dict[str, str]]:
    found: dict[str, list[str]] = defaultdict(list)
    briefs: dict[str, list[str]] = defaultdict(list)
    for one in explained:
        name = sides.port[one.weight].name
        if one.candidate is not None:
            said = ", ".join(known.says for known in one.candidate.mistakes)
            if one.candidate.elsewhere:
                held = sides.original[one.candidate.origin.weight].tensor.name
                said = f"holds {held}" + (f"; {said}" if said else "")
            brief = said
            if one.beside is not None:
                said += f"; {one.beside.elements:,} values differ from that, up to {one.beside.largest:.3g}"
        elif one.description is not None:
            said, brief = one.description.says, one.description.brief
        else:
            continue
        several = len(sides.port[one.weight].rule.blocks) > 1
        part = one.weight.canonical.rpartition(".")[2]
        found[name].append(f"{part}: {said}" if several else said)
        briefs[name].append(f"{part}: {brief}" if several else brief)
    whole, short = (
        {name: "; ".join(dict.fromkeys(texts)) for name, texts in each.items()} for each in (found, briefs)
    )
    return whole, short
