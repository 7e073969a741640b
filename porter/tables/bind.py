"""A table bound to hyperparameters: every stored tensor by name, with its shape and where each weight lies.

Binding is pure arithmetic over names, sizes and strides. It is linear in the number of stored tensors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from porter.errors import MalformedError, PorterError
from porter.layout import AddressMap, BoundLayout, Expression, bind
from porter.tables.check import sizes_read
from porter.tables.model import Canonical, Dialect, Rule, TableError

_FUNCTIONS = {"sqrt": math.sqrt}


class Block(NamedTuple):
    """One canonical tensor, or a slice of it, inside the stored tensors of a rule.

    `address` runs over the axes that are not fixed by the stored tensor's name.
    """

    canonical: str
    address: AddressMap


class BoundTensor(NamedTuple):
    """A stored tensor that a dialect has for these hyperparameters. Shape in elements, row-major.

    Its name holds the values `point` of the `variables`; tensors of one rule share their blocks, mostly.
    Its last `padding` elements belong to no weight. `scales` is the name of the factors of its rows, for
    where it is stored in whole numbers.
    """

    name: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    rule: Rule
    variables: tuple[str, ...]
    point: tuple[int, ...]
    padding: int = 0
    scales: str | None = None

    @property
    def fixed(self) -> dict[str, int]:
        """The variables that the name holds, by name."""
        return dict(zip(self.variables, self.point, strict=True))


@dataclass(frozen=True)
class Sizes:
    """The sizes of axes and index variables of one family under given hyperparameters."""

    canonical: Canonical
    hyperparameters: Mapping[str, Any]

    @cached_property
    def _expressions(self) -> Mapping[str, Expression]:
        return {**sizes_read(self.canonical), **self.canonical.index}

    @cached_property
    def varying(self) -> frozenset[str]:
        """Axes whose size depends on an index variable."""
        index = set(self.canonical.index)
        return frozenset(name for name, expression in self.canonical.axes.items() if expression.names & index)

    @cached_property
    def _constant(self) -> dict[str, int]:
        return {}

    def size(self, axis: str, at: Mapping[str, int]) -> int:
        """The size of an axis, with index variables at the given values. Raises PorterError."""
        if axis in self.varying:
            return self._evaluate(axis, at)
        if axis not in self._constant:
            self._constant[axis] = self._evaluate(axis, {})
        return self._constant[axis]

    def sizes(self, axes: Sequence[str], at: Mapping[str, int]) -> dict[str, int]:
        """Sizes of several axes; an axis whose size varies along a stacked one is ragged: an error."""
        stacked = [axis for axis in axes if axis in self.canonical.index]
        found = {}
        for axis in axes:
            if axis in self.varying and stacked:
                every = {
                    self.size(axis, {**at, **dict(zip(stacked, point, strict=True))})
                    for point in itertools.product(*(range(self.size(s, at)) for s in stacked))
                }
                if len(every) > 1:
                    raise MalformedError(
                        f"the axis {axis} is ragged along {', '.join(stacked)} and cannot be stacked",
                        cause=f"sizes {sorted(every)}",
                    )
                found[axis] = every.pop() if every else 0
            else:
                found[axis] = self.size(axis, at)
        return found

    def holds(self, condition: Expression | None, at: Mapping[str, int], stacked: Sequence[str]) -> bool:
        """Whether a `when` holds; along stacked index variables it must be the same everywhere."""
        if condition is None:
            return True
        free = [axis for axis in stacked if axis in condition.names and axis not in at]
        values = {
            bool(self._value(condition, {**at, **dict(zip(free, point, strict=True))}))
            for point in itertools.product(*(range(self.size(s, at)) for s in free))
        }
        if len(values) > 1:
            raise MalformedError(f"`{condition.text}` differs along the stacked {', '.join(free)}")
        return values.pop() if values else False

    def value(self, expression: Expression) -> Any:
        """What an expression over the hyperparameters gives. Raises MalformedError."""
        return self._value(expression, {})

    def _evaluate(self, axis: str, at: Mapping[str, int]) -> int:
        value = self._value(self._expressions[axis], at)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise MalformedError(
                f"the size of the axis {axis} must be a whole number",
                cause=f"`{self._expressions[axis].text}` gives {value!r}",
            )
        return value

    def _value(self, expression: Expression, at: Mapping[str, int]) -> Any:
        def lookup(name: str) -> Any:
            if name in at:
                return at[name]
            if name in self.canonical.axes:
                return self.size(name, at)
            return self.hyperparameters.get(name)

        try:
            return expression.evaluate(lookup, _FUNCTIONS)
        except PorterError as error:
            raise MalformedError(
                f"the hyperparameters do not fit the family {self.canonical.family}",
                cause=error.message + (f" ({error.cause})" if error.cause else ""),
            ) from None


def bind_dialect(
    dialect: Dialect, canonical: Canonical, hyperparameters: Mapping[str, Any]
) -> list[BoundTensor]:
    """Every stored tensor of the dialect, in the table's order with index variables running fastest last.

    Raises MalformedError when sizes do not fit, and TableError when two rules make one stored name.
    """
    sizes = Sizes(canonical, hyperparameters)
    _check_inverses(sizes)
    bound: dict[str, BoundTensor] = {}
    for rule in dialect.rules:
        for tensor in _bind_rule(_with_numbers(rule, sizes), canonical, sizes):
            if tensor.name in bound:
                raise TableError(
                    rule.where,
                    f"two rules hold for the stored tensor {tensor.name!r}",
                    cause=f"the other one is at {bound[tensor.name].rule.where}",
                )
            bound[tensor.name] = tensor
    return list(bound.values())


def _with_numbers(rule: Rule, sizes: Sizes) -> Rule:
    """The rule with what it adds and multiplies by as numbers."""
    if not any(isinstance(value, Expression) for _, value in rule.operations):
        return rule
    return replace(
        rule,
        operations=tuple(
            (kind, float(sizes.value(value)) if isinstance(value, Expression) else value)
            for kind, value in rule.operations
        ),
    )


def _bind_rule(rule: Rule, canonical: Canonical, sizes: Sizes) -> Iterator[BoundTensor]:
    variables = rule.theirs.variables
    axes = list(dict.fromkeys(axis for leaf in rule.layout.leaves for axis in leaf))
    varies = _varies(rule, canonical, sizes, axes)
    cache: dict[tuple[int, ...], BoundLayout] = {}
    layout: BoundLayout | None = None
    blocks: tuple[Block, ...] = ()
    padding = 0
    for point in _points(variables, sizes):
        if layout is None or varies:
            fixed = dict(zip(variables, point, strict=True))
            if not _exists(rule, canonical, sizes, fixed):
                if varies:
                    continue
                return
            found = sizes.sizes(axes, fixed)
            key = tuple(found.values())
            if key not in cache:
                cache[key] = bind(rule.layout, found)
            layout = cache[key]
            if rule.pad:
                layout, padding = _padded(rule, layout, found, sizes)
            blocks = tuple(Block(*leaf) for leaf in zip(rule.ours, layout.leaves, strict=True))
        yield BoundTensor(
            rule.theirs.at(point),
            layout.shape,
            blocks,
            rule,
            variables,
            point,
            padding,
            _scales(rule, variables, point),
        )


def _scales(rule: Rule, variables: tuple[str, ...], point: tuple[int, ...]) -> str | None:
    return rule.scale_by.format(dict(zip(variables, point, strict=True))) if rule.scale_by else None


def _padded(
    rule: Rule, layout: BoundLayout, found: Mapping[str, int], sizes: Sizes
) -> tuple[BoundLayout, int]:
    """The layout with a longer outermost axis, and how many elements that adds at the tensor's end."""
    ((axis, expression),) = rule.pad.items()
    stored = sizes.value(expression)
    if not isinstance(stored, int) or stored < found[axis]:
        raise MalformedError(
            f"{rule.theirs.text}: {stored} stored rows cannot hold the {found[axis]} of {axis}",
            cause=f"`{expression.text}` says how many rows are stored ({rule.where})",
        )
    row = math.prod(layout.shape[1:])
    return replace(layout, shape=(stored, *layout.shape[1:])), (stored - found[axis]) * row


def _varies(rule: Rule, canonical: Canonical, sizes: Sizes, axes: Sequence[str]) -> bool:
    """Whether shapes or conditions differ from one of the rule's tensors to the next.

    They hardly ever do; a checkpoint of a hundred thousand tensors is then bound once per rule.
    """
    conditions = [rule.when, *(canonical.tensors[name].when for name in rule.ours)]
    held = set(rule.theirs.variables)
    return any(axis in sizes.varying for axis in axes) or any(
        condition is not None and condition.names & held for condition in conditions
    )


def _points(
    variables: Sequence[str], sizes: Sizes, at: Mapping[str, int] | None = None
) -> Iterator[tuple[int, ...]]:
    if not any(variable in sizes.varying for variable in variables):
        yield from itertools.product(*(range(sizes.size(variable, {})) for variable in variables))
        return
    first, rest = variables[0], variables[1:]
    at = at or {}
    for value in range(sizes.size(first, at)):
        for tail in _points(rest, sizes, {**at, first: value}):
            yield (value, *tail)


def _exists(rule: Rule, canonical: Canonical, sizes: Sizes, fixed: Mapping[str, int]) -> bool:
    stacked = [axis for leaf in rule.layout.leaves for axis in leaf if axis in canonical.index]
    if not sizes.holds(rule.when, fixed, stacked):
        return False
    there = [sizes.holds(canonical.tensors[name].when, fixed, stacked) for name in rule.ours]
    if any(there) and not all(there):
        raise TableError(
            rule.where,
            f"{rule.theirs.format(fixed)} would hold only a part of its blocks",
            cause=", ".join(
                f"{name} {'exists' if here else 'does not'}"
                for name, here in zip(rule.ours, there, strict=True)
            ),
            hint="split the rule, each with its own `when`",
        )
    return all(there)


def _check_inverses(sizes: Sizes) -> None:
    """`n_head = n_kv_head · q_per_kv` and the like: a stated inverse must give the same number back."""
    for name, expression in sizes.canonical.inverses.items():
        value = sizes._value(expression, {})
        if value != sizes.hyperparameters.get(name):
            raise MalformedError(
                f"{name} = {sizes.hyperparameters.get(name)} does not follow from its parts",
                cause=f"`{expression.text}` gives {value}",
            )
