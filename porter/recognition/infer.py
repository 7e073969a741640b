"""Hyperparameters from the shapes of the stored tensors alone, where the layouts tell every axis apart.

Each stored dim is an equation: an axis, a product or a sum of axes, equals a number. Those with one axis
unknown are solved until none is left; then the axes' sizes give the hyperparameters that they are made of,
through the inverses that the canonical table states (`n_head = n_kv_head * q_per_kv`).

It is not proved here that all tensors agree: whoever binds the table to the result finds the one that does
not. Keras' and Flax' kernels are told apart completely; where a dim merges heads and head_dim, as in
`q_proj`, two unknowns stay, and they are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from porter.errors import PorterError
from porter.layout import Expression
from porter.layout.parse import Axis, Dim, Group, Unit
from porter.tables.check import must_hold, sizes_read
from porter.tables.model import Canonical, Dialect, Rule
from porter.tables.patterns import Pattern, taken_apart, templates

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Inferred:
    """What shapes say: `hyperparameters` by name, and those that they cannot tell (`unknown`)."""

    hyperparameters: Mapping[str, int]
    unknown: tuple[str, ...]


def infer(dialect: Dialect, canonical: Canonical, shapes: Shapes) -> Inferred:
    """The hyperparameters that sizes and numbers of tensors hold.

    `shapes` are the stored tensors' under the table's names; others are passed over. A number of layers is
    one more than the highest that a name holds.
    """
    sizes: dict[str, int] = {}
    equations: list[tuple[Dim, int]] = []
    done: set[Pattern] = set()
    found: set[str] = set()
    for rule, values, shape in _known(dialect, shapes):
        for name, value in values.items():
            sizes[name] = max(sizes.get(name, 0), value + 1)
        if rule.theirs not in done and len(shape) == len(rule.layout.dims):
            done.add(rule.theirs)
            found.update(rule.weights)
            equations.extend(zip(rule.layout.dims, shape, strict=True))
    _solve(equations, sizes)
    return _told(dialect, canonical, sizes, found)


def missing_rules(dialect: Dialect, canonical: Canonical, shapes: Shapes) -> int:
    """How many of the rules that hold for every model of the family no stored tensor fits."""
    by_template: dict[str, list[str]] = {}
    names = tuple(shapes)
    for name, template in zip(names, templates(names), strict=True):
        by_template.setdefault(template, []).append(name)
    there = {
        rule.theirs
        for template, rules in _rules(dialect).items()
        for rule in rules
        if any(rule.theirs.match(name) is not None for name in by_template.get(template, ()))
    }
    return sum(
        rule.theirs not in there
        and rule.when is None
        and all(
            must_hold(canonical.tensors[name].when, dialect, canonical) and not canonical.tensors[name].tied
            for name in rule.weights
        )
        for rule in dialect.rules
    )


def _known(dialect: Dialect, shapes: Shapes) -> Iterator[tuple[Rule, Mapping[str, int], tuple[int, ...]]]:
    """Each stored tensor that a rule is for, with the variables in its name."""
    rules = _rules(dialect)
    for name, shape in shapes.items():
        for rule in rules.get(taken_apart(name)[0], ()):
            values = rule.theirs.match(name)
            if values is not None:
                yield rule, values, shape


def _rules(dialect: Dialect) -> dict[str, list[Rule]]:
    """The rules by the templates of their names."""
    rules: dict[str, list[Rule]] = {}
    for rule in dialect.rules:
        for form in rule.theirs.spellings:
            rules.setdefault(form.template, []).append(rule)
    return rules


def _solve(equations: list[tuple[Dim, int]], sizes: dict[str, int]) -> None:
    """Add to `sizes` every axis that can be solved for, one unknown at a time."""
    progress = True
    while progress:
        progress = False
        for dim, stored in equations:
            linear = _linear(dim, sizes)
            if linear is None or linear.axis is None or linear.axis in sizes:
                continue
            # Sizes that do not divide belong to another table, or are wrong: binding will say where.
            size, rest = divmod(stored - linear.constant, linear.factor) if linear.factor else (0, 1)
            if size > 0 and not rest:
                sizes[linear.axis] = size
                progress = True


@dataclass(frozen=True)
class _Linear:
    """`constant + factor * axis`; without an axis, a number."""

    constant: int
    factor: int = 0
    axis: str | None = None


def _linear(dim: Dim, sizes: Mapping[str, int]) -> _Linear | None:
    """A dim's size with the known axes filled in; None where two unknowns, or one squared, are in it."""
    match dim:
        case Unit():
            return _Linear(1)
        case Axis(name):
            return _Linear(sizes[name]) if name in sizes else _Linear(0, 1, name)
        case Group(alternatives):
            total: _Linear | None = _Linear(0)
            for dims in alternatives:
                product: _Linear | None = _Linear(1)
                for inner in dims:
                    product = _times(product, _linear(inner, sizes))
                total = _plus(total, product)
            return total


def _times(left: _Linear | None, right: _Linear | None) -> _Linear | None:
    if left is None or right is None or (left.axis is not None and right.axis is not None):
        return None
    if left.axis is None:
        left, right = right, left
    return _Linear(left.constant * right.constant, left.factor * right.constant, left.axis)


def _plus(left: _Linear | None, right: _Linear | None) -> _Linear | None:
    if left is None or right is None or len({left.axis, right.axis} - {None}) > 1:
        return None
    return _Linear(
        left.constant + right.constant, left.factor + right.factor, left.axis if left.axis else right.axis
    )


def _told(dialect: Dialect, canonical: Canonical, sizes: Mapping[str, int], stored: set[str]) -> Inferred:
    read: dict[str, Expression] = {**sizes_read(canonical), **canonical.index}
    found: dict[str, int] = {}
    for axis, size in sizes.items():
        # `vocab = vocab_size`; what is computed from several has an inverse, or cannot be told.
        if axis in read and read[axis].text in canonical.hyperparameters:
            found[read[axis].text] = size
    for name, inverse in canonical.inverses.items():
        try:
            found[name] = inverse.evaluate({**found, **sizes}.__getitem__)
        except PorterError:
            continue
    there = [
        tensor
        for name, tensor in canonical.tensors.items()
        if name in stored or must_hold(tensor.when, dialect, canonical)
    ]
    axes = {axis for tensor in there for axis in (*tensor.axes, *tensor.pattern.variables)}
    names = {name for axis in axes if axis in read for name in read[axis].names}
    wanted = [name for name in canonical.hyperparameters if name in names]
    return Inferred(found, tuple(name for name in wanted if name not in found))
