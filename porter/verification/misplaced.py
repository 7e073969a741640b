"""Tensors of a port that could not be compared by name and shape: what they hold even so, by samples."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from porter.containers.base import StoredTensor
from porter.planning.port_plan import Misfit, PortPlan
from porter.tables.bind import BoundRule
from porter.verification.samples import addresses, samples
from porter.verification.sides import Sides, same
from porter.verification.verdict import Mistake
from porter.verification.weight_places import Place, Weight, places

# Elements of each weight that are looked at.
NUMBER = 1024


def misplaced(planned: PortPlan, sides: Sides, tensors: Mapping[str, StoredTensor]) -> list[Mistake]:
    """What missing tensors are called, and what those of another shape hold. `tensors` are all the port's."""
    rules = {name: rule for rule in planned.expected for name in rule.names}
    return [*_renamed(planned, sides, tensors, rules), *_misshapen(planned, sides, tensors, rules)]


def _renamed(
    planned: PortPlan, sides: Sides, tensors: Mapping[str, StoredTensor], rules: Mapping[str, BoundRule]
) -> Iterator[Mistake]:
    """Tensors that hold what is missing under another name."""
    groups: dict[tuple[str, str], list[tuple[str, int | None]]] = defaultdict(list)
    left = [name for name in planned.extra if tensors[name].dtype.kind == "float"]
    for absent in planned.missing:
        rule = rules[absent.name]
        for name in left:
            if tensors[name].shape == rule.shape and _holds(planned, sides, rule, absent.name, tensors[name]):
                left.remove(name)
                layer = _index(rule, absent.name).get("layer")
                groups[folded(absent.name), folded(name)].append((name, layer))
                break
    for (right, wrong), ones in groups.items():
        layers = tuple(layer for _, layer in ones if layer is not None)
        says = f"`{wrong}` holds what belongs to `{right}`: named otherwise"
        yield Mistake(says, tuple(name for name, _ in ones), "named otherwise", layers, False)


def _misshapen(
    planned: PortPlan, sides: Sides, tensors: Mapping[str, StoredTensor], rules: Mapping[str, BoundRule]
) -> Iterator[Mistake]:
    """Dims turned round, or another number of rows, and whether the values are the right ones even so."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for misfit in planned.misfits:
        kind, says = _of_shape(planned, sides, misfit, tensors[misfit.name], rules[misfit.table_name])
        if kind:
            groups[folded(misfit.name), kind, says].append(misfit.name)
    for (name, kind, says), names in groups.items():
        yield Mistake(f"`{name}`: {says}", tuple(names), kind, (), False)


def _of_shape(
    planned: PortPlan, sides: Sides, misfit: Misfit, tensor: StoredTensor, rule: BoundRule
) -> tuple[str, str]:
    expected, found = misfit.expected, misfit.found
    if len(expected) == 2 and found == expected[::-1]:
        turned = tensor._replace(shape=expected, strides=(1, expected[0]))
        if tensor.strides is None and _holds(planned, sides, rule, misfit.table_name, turned):
            return "transposed", "is stored transposed"
        return "transposed", "has the shape of its transpose, and other values"
    if sorted(expected) == sorted(found):
        return "transposed", "its dims are in another order: transposed"
    if expected and found and expected[1:] == found[1:]:
        rows = expected[0] - found[0]
        number = "1 row is" if abs(rows) == 1 else f"{abs(rows)} rows are"
        word = f"{number} missing" if rows > 0 else f"{number} too many"
        common = min(expected[0], found[0])
        right = tensor.strides is None and _holds(planned, sides, rule, misfit.table_name, tensor, common)
        said = "the others are as they should be" if right else "the others hold other values"
        return word, f"{word} ({found[0]}, not {expected[0]}), {said}"
    return "", ""


def _holds(
    planned: PortPlan,
    sides: Sides,
    rule: BoundRule,
    name: str,
    tensor: StoredTensor,
    rows: int | None = None,
) -> bool:
    """Whether a tensor holds, in samples, what the rule's tensor `name` should; or its first `rows` do."""
    point = [p for n, p in zip(rule.names, rule.points, strict=True) if n == name]
    there = places([rule._replace(names=(name,), points=tuple(point))], {name: tensor}, planned.sizes)
    row = tensor.elements // max(1, tensor.shape[0]) if tensor.shape else 1
    looked = 0
    for weight, place in there.items():
        if sides.source_of(weight) not in sides.original:
            return False
        view = _with(sides, weight, place)
        c = samples(place.sizes, NUMBER)
        if rows is not None:
            c = c[:, addresses(c, place.address.offset, place.strides) < rows * row]
        if not c.shape[1]:
            continue
        looked += c.shape[1]
        origin = view.right(weight)
        values = view.comes_from(weight, origin, c)
        expected = view.as_stored(values, (), origin.weight, weight)
        if not np.all(same(view.found(weight, origin.reading, c), expected)):
            return False
    return looked > 0


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


def _index(rule: BoundRule, name: str) -> dict[str, int]:
    return next((tensor.fixed for tensor in rule.tensors() if tensor.name == name), {})


def folded(name: str) -> str:
    """A stored name without its numbers: `model.layers.{n}.mlp`."""
    return re.sub(r"(?<![^./])[0-9]+(?![^./])", "{n}", name)
