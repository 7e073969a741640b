"""From what single weights hold to mistakes in words, folded over layers.

"layers 0 to 17: `mlp.fc_1` holds up_proj and `mlp.fc_2` gate_proj: gate and up are swapped".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from porter.errors import PorterError
from porter.verification.explain import Explained
from porter.verification.known_mistakes import KnownMistake
from porter.verification.sides import Sides
from porter.verification.verdict import Mistake
from porter.verification.weight_places import Place, Weight

# Names of tensors that are told; the others are counted.
_NAMES = 3

LAYER = "layer"


@dataclass(frozen=True)
class _Group:
    """Weights in which one thing was done."""

    says: str
    known: str | None
    weights: tuple[Weight, ...]
    holds: Mapping[Weight, str]
    proved: bool


def name_mistakes(
    sides: Sides, explained: Sequence[Explained], known: Sequence[KnownMistake]
) -> tuple[Mistake, ...]:
    """The mistakes, those that explain most weights first."""
    groups = [*_changes(explained), *_moved(sides, explained, known), *_aliases(sides, explained, known)]
    groups += _described(sides, explained)
    groups.sort(key=lambda group: -len(group.weights))
    return tuple(_mistake(sides, group) for group in groups)


def _changes(explained: Sequence[Explained]) -> list[_Group]:
    """Structural mistakes and changes of values, by what the table says of them."""
    found: dict[str, list[Explained]] = defaultdict(list)
    for one in explained:
        for known in one.candidate.mistakes if one.candidate else ():
            found[known.says].append(one)
    return [
        _Group(says, says, tuple(one.weight for one in ones), {}, all(one.proved for one in ones))
        for says, ones in found.items()
    ]


def _elsewhere(explained: Sequence[Explained]) -> list[tuple[Weight, Weight, bool]]:
    """Weights that hold another one of the original: both, and whether all elements were compared."""
    return [
        (one.weight, one.candidate.origin.weight, one.proved)
        for one in explained
        if one.candidate is not None and one.candidate.elsewhere
    ]


def _moved(sides: Sides, explained: Sequence[Explained], known: Sequence[KnownMistake]) -> list[_Group]:
    """The same tensor of another layer, or of another expert: named by the map from one to the other."""
    maps: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    weights: dict[tuple[str, str], list[Weight]] = defaultdict(list)
    unsure: set[tuple[str, str]] = set()
    several: set[tuple[str, str]] = set()
    for weight, origin, proved in _elsewhere(explained):
        if weight.canonical != origin.canonical:
            continue
        changed = [name for name in weight.indices if weight.indices[name] != origin.indices[name]]
        if len(changed) != 1:
            continue
        key = (weight.canonical, changed[0])
        at, to = weight.indices[changed[0]], origin.indices[changed[0]]
        if maps[key].setdefault(at, to) != to:
            several.add(key)
        weights[key].append(weight)
        unsure |= set() if proved else {key}
    groups: dict[tuple[str, tuple[tuple[int, int], ...]], list[tuple[str, str]]] = defaultdict(list)
    for key, moves in maps.items():
        groups[key[1], tuple(sorted(moves.items()))].append(key)
    found = []
    for (index, steps), keys in groups.items():
        says = None if several.intersection(keys) else _name_of_map(sides, index, dict(steps), known)
        every = tuple(weight for key in keys for weight in weights[key])
        if not says:
            says = f"{index}s are in another order: " + _some(f"{at} holds {to}" for at, to in steps)
        found.append(_Group(says, says.partition(":")[0], every, {}, not unsure.intersection(keys)))
    return found


def _name_of_map(
    sides: Sides, index: str, moves: Mapping[int, int], known: Sequence[KnownMistake]
) -> str | None:
    size = max((w.indices[index] for w in sides.original if index in w.indices), default=-1) + 1
    there = sorted({w.indices[index] for w in sides.port if index in w.indices})
    for mistake in known:
        if mistake.index != index:
            continue
        for says, expression in mistake.named:
            try:
                made = {at: _value(sides, expression, index, at, size) for at in there}
            except PorterError:
                continue
            if all(moves.get(at, at) == to for at, to in made.items()):
                return says
    if len(moves) == 2 and {*moves} == {*moves.values()}:
        one, other = sorted(moves)
        return f"{index}s {one} and {other} are swapped"
    if len(moves) == 1:
        ((at, to),) = moves.items()
        return f"{index} {at} holds what belongs to {index} {to}"
    return None


def _value(sides: Sides, expression: Any, index: str, at: int, size: int) -> int:
    ranked = sorted(range(size), key=str)
    functions: dict[str, Callable[..., Any]] = {
        "sorted_as_text": lambda place: ranked[place],
        "place_as_text": lambda place: ranked.index(place),
    }
    names = {**sides.hyperparameters, index: at}
    return int(expression.evaluate(names.__getitem__, functions))


def _aliases(sides: Sides, explained: Sequence[Explained], known: Sequence[KnownMistake]) -> list[_Group]:
    """Another tensor of the original: swapped where the table knows it, and both hold the other's."""
    found = [
        (weight, origin, proved)
        for weight, origin, proved in _elsewhere(explained)
        if weight.canonical != origin.canonical or len(_changed(weight, origin)) != 1
    ]
    pairs = {(weight.canonical, origin.canonical) for weight, origin, _ in found}
    groups: dict[tuple[str, str | None], list[tuple[Weight, Weight, bool]]] = defaultdict(list)
    for weight, origin, proved in found:
        one, other = weight.canonical, origin.canonical
        said = next(
            (
                mistake.says
                for mistake in known
                for ours, theirs in mistake.alias
                if fnmatchcase(one, ours)
                and fnmatchcase(other, theirs)
                and _stem(one, ours) == _stem(other, theirs)
                and (len(mistake.alias) == 1 or (other, one) in pairs)
            ),
            None,
        )
        key = said or f"{_last(one)} holds {_last(other)}"
        groups[key, said].append((weight, origin, proved))
    made = []
    for (says, said), ones in groups.items():
        holds = {weight: _last(_short(sides.original[origin])) for weight, origin, _ in ones}
        made.append(_Group(says, said, tuple(w for w, _, _ in ones), holds, all(p for *_, p in ones)))
    return made


def _changed(weight: Weight, origin: Weight) -> list[str]:
    return [name for name, value in weight.indices.items() if origin.indices.get(name) != value]


def _described(sides: Sides, explained: Sequence[Explained]) -> list[_Group]:
    """What is no mistake of the table, and is something that has a name even so."""
    groups: dict[tuple[str, str], list[Explained]] = defaultdict(list)
    for one in explained:
        if one.description is None:
            continue
        kind, says = one.description.kind, one.description.brief
        if sides.alias.get(one.weight.canonical, one.weight.canonical) != one.weight.canonical:
            tied = sides.alias[one.weight.canonical]
            says = says if kind is not None else one.description.says
            kind, says = "stale head", f"is not the {tied} that it is tied to: {says}"
        if kind is not None:
            groups[kind, says].append(one)
    return [
        _Group(says, kind, tuple(one.weight for one in ones), {}, all(one.proved for one in ones))
        for (kind, says), ones in groups.items()
    ]


def _mistake(sides: Sides, group: _Group) -> Mistake:
    layers = tuple(sorted({w.indices[LAYER] for w in group.weights if LAYER in w.indices}))
    tensors = tuple(dict.fromkeys(sides.port[weight].tensor.name for weight in group.weights))
    return Mistake(_sentence(sides, group, layers), tensors, group.known, layers, group.proved)


def _sentence(sides: Sides, group: _Group, layers: Sequence[int]) -> str:
    by_name: dict[str, list[Weight]] = defaultdict(list)
    for weight in group.weights:
        by_name[_called(sides, weight)].append(weight)
    names = list(by_name)
    if group.holds:
        told = [
            f"{name} {'holds ' if at == 0 else ''}{group.holds[weights[0]]}"
            for at, (name, weights) in enumerate(list(by_name.items())[:_NAMES])
        ]
        what = _and(told, len(names) - len(told))
        if group.known is None:
            return f"{layers_in_words(layers)}{what}"
        return f"{layers_in_words(layers)}{what}: {group.says}"
    if 2 * len(group.weights) > len(sides.port) and len(names) > _NAMES:
        return f"{'every tensor' if len(group.weights) == len(sides.port) else 'most tensors'}: {group.says}"
    if group.says.startswith(("layer", "expert")):
        every = {w for w in sides.port if LAYER in w.indices}
        whole = len(group.weights) >= 0.8 * len([w for w in every if w.indices[LAYER] in layers])
        return group.says if whole else f"{_and(names[:_NAMES], len(names) - _NAMES)}: {group.says}"
    return f"{layers_in_words(layers)}{_and(names[:_NAMES], len(names) - _NAMES)}: {group.says}"


def layers_in_words(layers: Sequence[int]) -> str:
    """`layers 0 to 17: `, `layer 3: `, or nothing where no layer is meant."""
    if not layers:
        return ""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and layer == spans[-1][1] + 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    texts = []
    for first, last in spans:
        texts += [str(first)] if first == last else [f"{first} to {last}"]
    word = "layer" if len(layers) == 1 else "layers"
    return f"{word} {_and(texts[:6], len(texts) - 6)}: "


def _called(sides: Sides, weight: Weight) -> str:
    """The port's tensor in short, and which weight of it where it holds several: `attn.qkv` (k)."""
    place = sides.port[weight]
    several = len(place.rule.blocks) > 1
    return f"`{_short(place)}`" + (f" ({_last(weight.canonical)})" if several else "")


def _short(place: Place) -> str:
    """A stored name without layer and ending: `mlp.fc_1` of `transformer.h.{layer}.mlp.fc_1.weight`."""
    text = place.rule.rule.theirs.text
    text = re.sub(r"^.*\{_?layer\}[./]", "", text)
    text = re.sub(r"(\.weight|/vars/0|/w|/scale)$", "", text)
    return re.sub(r"^(model|transformer|layers)[./]", "", text)


def _last(name: str) -> str:
    return re.split(r"[./]", name)[-1]


def _stem(name: str, pattern: str) -> str:
    ending = pattern.lstrip("*")
    return name[: len(name) - len(ending)] if pattern.startswith("*") else ""


def _some(texts: Iterable[str]) -> str:
    every = list(texts)
    return ", ".join(every[:_NAMES]) + (f" and {len(every) - _NAMES} more" if len(every) > _NAMES else "")


def _and(texts: Sequence[str], more: int = 0) -> str:
    every = [*texts, f"{more} more"] if more > 0 else list(texts)
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} and {every[-1]}"
