"""A table bound to hyperparameters: every stored tensor by name, with its shape and where each weight lies.

Binding is pure arithmetic over names, sizes and strides. It is linear in the number of stored tensors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from porter.errors import MalformedError, PorterError
from porter.layout import AddressMap, Expression, Loop, bind, coalesce, elements
from porter.tables.check import sizes_read
from porter.tables.model import FILLERS, Canonical, Dialect, Rule, TableError

_FUNCTIONS = {"sqrt": math.sqrt}


class Block(NamedTuple):
    """One canonical tensor, or a slice of it, inside the stored tensors of a rule.

    `address` runs over the axes that are not fixed by the stored tensor's name.
    """

    canonical: str
    address: AddressMap


class Filler(NamedTuple):
    """A block of a stored tensor that is no weight: which (ZEROS or UNUSED), and where its elements lie.

    `loops` are coalesced; both strides of each are that of the stored tensor.
    """

    kind: str
    offset: int
    loops: tuple[Loop, ...]


class BoundTensor(NamedTuple):
    """A stored tensor that a dialect has for these hyperparameters. Shape in elements, row-major.

    Its name holds the values `point` of the `variables`; tensors of one rule share their blocks, mostly.
    `blocks` are its weights, `fillers` the rest of it. `scales` is the name of the factors of its rows, for
    where it is stored in whole numbers.
    """

    name: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    rule: Rule
    variables: tuple[str, ...]
    point: tuple[int, ...]
    fillers: tuple[Filler, ...] = ()
    scales: str | None = None

    @property
    def fixed(self) -> dict[str, int]:
        """The variables that the name holds, by name."""
        return dict(zip(self.variables, self.point, strict=True))


class BoundRule(NamedTuple):
    """The stored tensors of one rule that are alike, which are mostly all of them: as a `BoundTensor` each.

    `names` and `points` go together.
    """

    rule: Rule
    variables: tuple[str, ...]
    points: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    fillers: tuple[Filler, ...] = ()

    def tensors(self) -> Iterator[BoundTensor]:
        """One by one."""
        for name, point in zip(self.names, self.points, strict=True):
            scales = _scales(self.rule, self.variables, point)
            yield BoundTensor(
                name, self.shape, self.blocks, self.rule, self.variables, point, self.fillers, scales
            )


@dataclass(frozen=True)
class Sizes:
    """The sizes of axes and index variables of one family under given hyperparameters.

    `axes` are the sizes that a dialect adds.
    """

    canonical: Canonical
    hyperparameters: Mapping[str, Any]
    axes: Mapping[str, Expression] = field(default_factory=dict)

    @cached_property
    def _expressions(self) -> Mapping[str, Expression]:
        return {**sizes_read(self.canonical), **self.canonical.index, **self.axes}

    @cached_property
    def varying(self) -> frozenset[str]:
        """Axes and index variables whose size depends on an index variable, through other axes as well."""
        own = {**self.canonical.axes, **self.canonical.index, **self.axes}
        found: set[str] = set()
        reads = set(self.canonical.index)
        while further := {name for name, size in own.items() if name not in found and size.names & reads}:
            found |= further
            reads |= further
        return frozenset(found | {axis for axis, finer in self.canonical.refine.items() if found & {*finer}})

    @cached_property
    def _constant(self) -> dict[str, int]:
        return {}

    def size(self, axis: str, at: Mapping[str, int]) -> int:
        """The size of an axis, with index variables at the given values. Raises PorterError."""
        if axis in self.canonical.refine:
            return self._refined(axis, at)
        if axis in self.varying:
            return self._evaluate(axis, at)
        if axis not in self._constant:
            self._constant[axis] = self._evaluate(axis, {})
        return self._constant[axis]

    def _refined(self, axis: str, at: Mapping[str, int]) -> int:
        """The size of an axis that has finer ones. Where it has a size of its own, it is that and no other;
        what its finer ones make is checked where a layout names them."""
        if axis in self._expressions:
            return self._evaluate(axis, at)
        return math.prod(self.finer(axis, at).values())

    def finer(self, axis: str, at: Mapping[str, int]) -> dict[str, int]:
        """The sizes of the axes that one is refined into. Raises MalformedError if they do not make it up."""
        found = {name: self.size(name, at) for name in self.canonical.refine[axis]}
        if axis in self._expressions and math.prod(found.values()) != (whole := self.size(axis, at)):
            raise MalformedError(
                f"the axis {axis} of size {whole} is not made up of {' and '.join(found)}",
                cause=", ".join(f"{name} = {size}" for name, size in found.items()),
            )
        return found

    def sizes(self, axes: Sequence[str], at: Mapping[str, int]) -> dict[str, int]:
        """Sizes of several axes; an axis whose size varies along a stacked one is ragged: an error."""
        stacked = [axis for axis in axes if axis in self.canonical.index]
        found = {}
        for axis in axes:
            if axis in self.varying and stacked:
                every = {
                    self.size(axis, {**at, **dict(zip(stacked, point, strict=True))})
                    for point in self.points(stacked, at)
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
            for point in self.points(free, at)
        }
        if len(values) > 1:
            raise MalformedError(f"`{condition.text}` differs along the stacked {', '.join(free)}")
        return values.pop() if values else False

    def points(
        self, variables: Sequence[str], at: Mapping[str, int] | None = None
    ) -> Iterator[tuple[int, ...]]:
        """All values of index variables, the last one fastest; those in `at` are held."""
        at = at or {}
        if not self.varying.intersection(variables):
            return itertools.product(*((at[v],) if v in at else range(self.size(v, {})) for v in variables))
        return self._unlike(variables, at)

    def _unlike(self, variables: Sequence[str], at: Mapping[str, int]) -> Iterator[tuple[int, ...]]:
        # The number of experts may depend on the layer, wherever that stands in the name.
        order = sorted(variables, key=lambda variable: len(self._depends[variable]))
        back = [order.index(variable) for variable in variables]
        for found in self._nested(order, at):
            yield tuple(found[place] for place in back)

    def _nested(self, order: Sequence[str], at: Mapping[str, int]) -> Iterator[tuple[int, ...]]:
        if not order:
            yield ()
            return
        first, rest = order[0], order[1:]
        for value in (at[first],) if first in at else range(self.size(first, at)):
            for tail in self._nested(rest, {**at, first: value}):
                yield (value, *tail)

    @cached_property
    def _depends(self) -> Mapping[str, frozenset[str]]:
        """For each index variable, all names that its number is computed from."""
        own, found = {**self.canonical.axes, **self.canonical.index}, {}
        for name in self.canonical.index:
            met, reads = set[str](), [name]
            while reads:
                further = own[reads.pop()].names - met
                met |= further
                reads.extend(further & own.keys())
            found[name] = frozenset(met)
        return found

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
            if name in self.canonical.axes or name in self.axes:
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
    bound = bind_rules(dialect, canonical, hyperparameters)
    return [tensor for rule in bound for tensor in rule.tensors()]


def bind_rules(dialect: Dialect, canonical: Canonical, hyperparameters: Mapping[str, Any]) -> list[BoundRule]:
    """The same by rule: what its tensors have in common is worked out once."""
    sizes = Sizes(canonical, hyperparameters, dialect.axes)
    _check_inverses(sizes)
    bound = [
        part for rule in dialect.rules for part in _bind_rule(_with_numbers(rule, sizes), canonical, sizes)
    ]
    seen: dict[str, Rule] = {}
    for part in bound:
        for name in () if seen.keys().isdisjoint(part.names) else seen.keys() & part.names:
            raise TableError(
                part.rule.where,
                f"two rules hold for the stored tensor {name!r}",
                cause=f"the other one is at {seen[name].where}",
            )
        seen.update(dict.fromkeys(part.names, part.rule))
    return bound


def _with_numbers(rule: Rule, sizes: Sizes) -> Rule:
    """The rule with what it adds and multiplies by as numbers."""
    if not any(isinstance(value, Expression) for _, value in rule.operations):
        return rule
    return replace(
        rule,
        operations=tuple(
            (kind, float(sizes._value(value, {})) if isinstance(value, Expression) else value)
            for kind, value in rule.operations
        ),
    )


def _bind_rule(rule: Rule, canonical: Canonical, sizes: Sizes) -> Iterator[BoundRule]:
    variables = rule.theirs.variables
    axes = list(dict.fromkeys(axis for leaf in rule.layout.leaves for axis in leaf))
    points = tuple(sizes.points(variables))
    if not points:
        return
    if not _varies(rule, canonical, sizes, axes):
        # First whether it is there: what is not may have axes without a size.
        if not _exists(rule, canonical, sizes, at := _held(rule, points[0])):
            return
        alike = {tuple(sizes.sizes(axes, at).values()): points}
    else:
        apart: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for point in points:
            at = _held(rule, point)
            if _exists(rule, canonical, sizes, at):
                apart.setdefault(tuple(sizes.sizes(axes, at).values()), []).append(point)
        alike = {key: tuple(found) for key, found in apart.items()}
    for key, found in alike.items():
        size = dict(zip(axes, key, strict=True))
        layout = bind(rule.layout, size)
        leaves = [Block(*leaf) for leaf in zip(rule.ours, layout.leaves, strict=True)]
        fillers = [_filler(block, size) for block in leaves if block.canonical in FILLERS]
        yield BoundRule(
            rule,
            variables,
            found,
            tuple(map(rule.theirs.at, found)),
            layout.shape,
            tuple(block for block in leaves if block.canonical not in FILLERS),
            tuple(filler for filler in fillers if elements(filler.loops)),
        )


def _held(rule: Rule, point: tuple[int, ...]) -> dict[str, int]:
    """The variables that a stored name holds, by name."""
    return dict(zip(rule.theirs.variables, point, strict=True))


def _scales(rule: Rule, variables: tuple[str, ...], point: tuple[int, ...]) -> str | None:
    return rule.scale_by.format(dict(zip(variables, point, strict=True))) if rule.scale_by else None


def _filler(block: Block, found: Mapping[str, int]) -> Filler:
    strides = block.address.strides
    loops = coalesce([Loop(found[axis], stride, stride) for axis, stride in strides.items()])
    return Filler(block.canonical, block.address.offset, loops)


def _varies(rule: Rule, canonical: Canonical, sizes: Sizes, axes: Sequence[str]) -> bool:
    """Whether shapes or conditions differ from one of the rule's tensors to the next.

    They hardly ever do; a checkpoint of a hundred thousand tensors is then bound once per rule.
    """
    conditions = [rule.when, *(canonical.tensors[name].when for name in rule.weights)]
    held = set(rule.theirs.variables)
    return any(axis in sizes.varying for axis in axes) or any(
        condition is not None and condition.names & held and condition.decide(sizes.hyperparameters) is None
        for condition in conditions
    )


def _exists(rule: Rule, canonical: Canonical, sizes: Sizes, fixed: Mapping[str, int]) -> bool:
    stacked = [axis for leaf in rule.layout.leaves for axis in leaf if axis in canonical.index]
    if not sizes.holds(rule.when, fixed, stacked):
        return False
    there = [sizes.holds(canonical.tensors[name].when, fixed, stacked) for name in rule.weights]
    if any(there) and not all(there):
        raise TableError(
            rule.where,
            f"{rule.theirs.format(fixed)} would hold only a part of its blocks",
            cause=", ".join(
                f"{name} {'exists' if here else 'does not'}"
                for name, here in zip(rule.weights, there, strict=True)
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
