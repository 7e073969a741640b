"""What was done wrong in a port whose tensors differ, are missing, have other names or other shapes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from porter.containers.base import StoredTensor
from porter.execution.open_files import OpenFiles
from porter.execution.sinks.compare import Differing
from porter.planning.port_plan import PortPlan
from porter.tables.bind import BoundRule
from porter.verification.explain import Explained, explain
from porter.verification.known_mistakes import KnownMistakes
from porter.verification.name_mistakes import name_mistakes
from porter.verification.samples import samples
from porter.verification.sides import Sides, same
from porter.verification.stored_values import StoredValues
from porter.verification.verdict import Mistake
from porter.verification.weight_places import Place, Weight, places

# Elements of each weight that are looked at where a comparison is quick.
QUICK = 1024


@dataclass(frozen=True)
class Diagnosis:
    """`says` describes the difference of tensors, by the table's names. `bytes_read` is what it cost."""

    mistakes: tuple[Mistake, ...]
    says: Mapping[str, str]
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
    differing: Collection[str],
    known: KnownMistakes,
    extra: Mapping[str, StoredTensor],
    *,
    quick: bool = False,
) -> Diagnosis:
    """Name what can be named. `extra` are the port's tensors that the table has no name for."""
    mistakes = list(_renamed(planned, sides, extra))
    mistakes += _misshapen(planned)
    explained: Sequence[Explained] = ()
    if differing:
        explained = explain(sides, differing, known.mistakes, quick=quick)
        mistakes += name_mistakes(sides, explained, known.mistakes)
    return Diagnosis(tuple(mistakes), _descriptions(sides, explained), sides.read)


def _descriptions(sides: Sides, explained: Sequence[Explained]) -> dict[str, str]:
    found: dict[str, list[str]] = defaultdict(list)
    for one in explained:
        name = sides.port[one.weight].name
        if one.candidate is not None:
            said = ", ".join(known.says for known in one.candidate.mistakes)
            if one.candidate.elsewhere:
                held = sides.original[one.candidate.origin.weight].tensor.name
                said = f"holds {held}" + (f"; {said}" if said else "")
            if one.beside is not None:
                said += f"; {one.beside.elements:,} values differ from that, up to {one.beside.largest:.3g}"
        elif one.description is not None:
            said = one.description.says
        else:
            continue
        several = len(sides.port[one.weight].rule.blocks) > 1
        part = one.weight.canonical.rpartition(".")[2]
        found[name].append(f"{part}: {said}" if several else said)
    return {name: "; ".join(dict.fromkeys(texts)) for name, texts in found.items()}


def _renamed(planned: PortPlan, sides: Sides, extra: Mapping[str, StoredTensor]) -> list[Mistake]:
    """Tensors that hold what is missing under another name, rule by rule."""
    absent = {tensor.name: tensor for tensor in planned.missing}
    groups: dict[tuple[str, str], list[tuple[str, int | None]]] = defaultdict(list)
    taken: set[str] = set()
    for rule in planned.expected:
        for bound in rule.tensors() if absent.keys() & set(rule.names) else ():
            if bound.name not in absent:
                continue
            for name, tensor in extra.items():
                if name in taken or tensor.shape != rule.shape or tensor.dtype.kind != "float":
                    continue
                if _holds(planned, sides, rule, bound.name, tensor):
                    taken.add(name)
                    key = (_folded(bound.name), _folded(name))
                    groups[key].append((name, bound.fixed.get("layer")))
                    break
    found = []
    for (right, wrong), ones in groups.items():
        layers = tuple(layer for _, layer in ones if layer is not None)
        says = f"`{wrong}` holds what belongs to `{right}`: named otherwise"
        found.append(Mistake(says, tuple(name for name, _ in ones), "named otherwise", layers, False))
    return found


def _holds(planned: PortPlan, sides: Sides, rule: BoundRule, name: str, tensor: StoredTensor) -> bool:
    """Whether a tensor of another name holds, in samples, what the rule's tensor of that name should."""
    one = rule._replace(
        names=(name,), points=tuple(p for n, p in zip(rule.names, rule.points, strict=True) if n == name)
    )
    there = places([one], {name: tensor}, planned.sizes)
    for weight, place in there.items():
        if sides.source_of(weight) not in sides.original:
            return False
        with_it = _with(sides, weight, place)
        origin = with_it.right(weight)
        c = samples(place.sizes, QUICK)
        values = with_it.comes_from(weight, origin, c)
        expected = with_it.as_stored(values, (), origin.weight, weight)
        if not same(with_it.found(weight, origin.reading, c), expected).all():
            return False
    return bool(there)


def _with(sides: Sides, weight: Weight, place: Place) -> Sides:
    return Sides(
        sides.original,
        {**sides.port, weight: place},
        sides.original_values,
        sides.port_values,
        sides.alias,
        sides.sizes,
        sides.hyperparameters,
    )


def _misshapen(planned: PortPlan) -> list[Mistake]:
    """What the shape alone says: dims turned round, or another number of rows."""
    groups: dict[str, list[str]] = defaultdict(list)
    for misfit in planned.misfits:
        if sorted(misfit.expected) == sorted(misfit.found) and misfit.expected != misfit.found:
            groups["its dims are in another order: transposed"].append(misfit.name)
        elif misfit.expected[1:] == misfit.found[1:] and len(misfit.expected) == len(misfit.found):
            rows = misfit.expected[0] - misfit.found[0]
            word = f"{rows} rows are missing" if rows > 0 else f"{-rows} rows too many"
            groups[f"{word} ({misfit.found[0]}, not {misfit.expected[0]})"].append(misfit.name)
    return [
        Mistake(f"`{_folded(names[0])}`: {says}", tuple(names), says.partition(" (")[0], (), True)
        for says, names in groups.items()
    ]


def _folded(name: str) -> str:
    return re.sub(r"(?<![^./])[0-9]+(?![^./])", "{n}", name)
