"""What a table must satisfy before any checkpoint is seen. Each error names file, line, rule and remedy.

- Every name that an expression reads is a hyperparameter, an axis or an index variable.
- Each axis and each index variable of a canonical tensor appears exactly once, in the stored name or in
  the layout's block for it.
- A rule has as many blocks as canonical tensors; all of them exist.
- Every canonical tensor that can exist is produced by one rule, or by several that all say `when`.
- No stored name fits two rules, or a rule and `ignore`.
- Every required hyperparameter has its place in the config.
- Expressions call only functions that there are, and what code fixes is computed from hyperparameters alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from porter.layout import Expression
from porter.tables.model import (
    FILLERS,
    Canonical,
    CanonicalTensor,
    Constant,
    Dialect,
    Rule,
    TableError,
    Where,
)
from porter.tables.patterns import Pattern

# What an expression may call. Conditions, sizes and fixed values call nothing: both directions compute them.
READING = frozenset(
    {
        *("field", "given", "has", "shape", "label", "count", "length", "is_list", "floor", "refuse"),
        *("numbers", "llama3_factor", "rotated_share", "cut_share"),
    }
)
WRITING = frozenset({"written"})
VALUES = frozenset({"sqrt"})


def check_canonical(canonical: Canonical) -> None:
    """Check a canonical table on its own."""
    sizes = set(canonical.hyperparameters) | set(canonical.index)
    start = Where(canonical.path, 1)
    for name, expression in (
        *canonical.axes.items(),
        *canonical.index.items(),
        *canonical.inverses.items(),
    ):
        known = sizes | set(canonical.axes)
        _names(expression, known, start, f"the size of {name}")
    _check_circles(canonical, start)
    for tensor in canonical.tensors.values():
        if tensor.name in FILLERS:
            raise TableError(tensor.where, f"{tensor.name!r} is a word of the notation, and no weight's name")
        for variable in tensor.pattern.variables:
            if variable not in canonical.index:
                raise TableError(
                    tensor.where,
                    f"{tensor.name!r} uses the index variable {{{variable}}}, which has no size",
                    hint=f'add `{variable} = "<expression>"` to [index]',
                )
        finer = [part for axis in tensor.axes for part in canonical.refine.get(axis, ())]
        for axis in (*(axis for axis in tensor.axes if axis not in canonical.refine), *finer):
            if axis not in canonical.axes and axis not in canonical.hyperparameters:
                raise TableError(
                    tensor.where,
                    f"{tensor.name!r}: the axis {axis} has no size",
                    hint=f'add `{axis} = "<expression>"` to [axes], or a hyperparameter of that name',
                )
            if axis in canonical.index:
                raise TableError(tensor.where, f"{tensor.name!r}: {axis} is an index variable, not an axis")
        if tensor.when is not None:
            _names(tensor.when, sizes, tensor.where, "`when`")
        if tensor.tied is not None:
            _check_tie(tensor, canonical)
    for hyperparameter in canonical.hyperparameters.values():
        if hyperparameter.when is not None:
            _names(hyperparameter.when, sizes, hyperparameter.where, hyperparameter.name)
    for name, expression in canonical.normal.items():
        _names(expression, canonical.hyperparameters, start, f"the normal form of {name}")
        if name not in canonical.hyperparameters:
            raise TableError(start, f"[normal] states {name!r}, which is no hyperparameter")


def _check_circles(canonical: Canonical, where: Where) -> None:
    sizes = {**canonical.axes, **canonical.index}
    for name in sizes:
        reads, met = [name], set[str]()
        while reads:
            expression = sizes.get(reads.pop())
            further = (expression.names if expression else frozenset()) - met
            if name in further:
                raise TableError(where, f"the size of {name} is derived from itself", hint="break the circle")
            met |= further
            reads.extend(further)


def check_dialect(dialect: Dialect, canonical: Canonical) -> None:
    """Check an expanded dialect table against its canonical table."""
    known = {*canonical.hyperparameters, *canonical.index, *canonical.axes, *canonical.refine}
    for name, size in dialect.axes.items():
        if name in known:
            raise TableError(
                Where(dialect.path, 1), f"[axes]: {canonical.family} has a size of {name} itself"
            )
        _names(size, known, Where(dialect.path, 1), f"the size of {name}")
    for rule in dialect.rules:
        _check_rule(rule, canonical, {*known, *dialect.axes})
    _check_produced_once(dialect, canonical)
    _check_overlaps(dialect, canonical)
    _check_config(dialect, canonical)


def _check_tie(tensor: CanonicalTensor, canonical: Canonical) -> None:
    other = canonical.tensors.get(tensor.tied or "")
    if other is None or other.axes != tensor.axes or other.tied is not None:
        raise TableError(
            tensor.where,
            f"{tensor.name!r} is tied to {tensor.tied!r}, which is no untied tensor over the same axes",
        )
    if "tie_embeddings" not in canonical.hyperparameters:
        raise TableError(tensor.where, "a tie needs the hyperparameter `tie_embeddings`")


def _check_rule(rule: Rule, canonical: Canonical, known: set[str]) -> None:
    leaves = rule.layout.leaves
    if len(leaves) != len(rule.ours):
        raise TableError(
            rule.where,
            f"the layout `{rule.layout}` has {len(leaves)} blocks, `ours` names {len(rule.ours)} tensors",
            hint="blocks, depth-first, belong to the tensors of `ours` in order",
        )
    if not rule.weights and rule.when is None:
        hint = "list its name in `ignore`, or say `when` it holds none"
        raise TableError(rule.where, "a stored tensor without a weight", hint=hint)
    for name, leaf in zip(rule.ours, leaves, strict=True):
        if name in FILLERS:
            for axis in leaf:
                if axis not in known:
                    raise TableError(
                        rule.where,
                        f"the axis {axis} of {name!r} has no size",
                        hint=f'add `{axis} = "<expression>"` to [axes]',
                    )
            continue
        tensor = canonical.tensors.get(name)
        if tensor is None:
            raise TableError(
                rule.where,
                f"{canonical.family} has no canonical tensor {name!r}",
                hint=f"there are: {', '.join(canonical.tensors)}",
            )
        wanted = [*tensor.pattern.variables, *_as_cut(tensor.axes, leaf, canonical)]
        given = [*rule.theirs.variables, *leaf]
        for axis in given:
            if axis not in wanted:
                raise TableError(
                    rule.where,
                    f"{name!r} has no axis {axis}",
                    cause=f"its axes are: {' '.join(wanted)}; the block for it is: {' '.join(leaf)}",
                )
        for axis in wanted:
            if given.count(axis) != 1:
                raise TableError(
                    rule.where,
                    f"the axis {axis} of {name!r} appears {given.count(axis)} times",
                    cause=f"stored name: {rule.theirs.text}; block: {' '.join(leaf) or '(empty)'}",
                    hint="each axis and index variable stands once, in the stored name or in the layout",
                )
    if rule.when is not None:
        _names(rule.when, set(canonical.hyperparameters) | set(canonical.index), rule.where, "`when`")
    for kind, value in rule.operations:
        if isinstance(value, Expression):
            known = set(canonical.hyperparameters) | set(canonical.axes)
            _names(value, known, rule.where, f"`{kind}`", VALUES)
    _check_extras(rule)


def _as_cut(axes: Iterable[str], leaf: Sequence[str], canonical: Canonical) -> Iterator[str]:
    """The axes as a block names them: one that is refined as a whole, or as its finer axes."""
    for axis in axes:
        finer = canonical.refine.get(axis, ())
        yield from finer if set(finer) & {*leaf} else (axis,)


def _check_extras(rule: Rule) -> None:
    """Other names hold the same variables."""
    for other in (*rule.also, *([rule.scale_by] if rule.scale_by else [])):
        if sorted(other.variables) != sorted(rule.theirs.variables):
            raise TableError(
                rule.where,
                f"{other.text!r} and {rule.theirs.text!r} hold different variables",
                hint="the names of one tensor, and of its factors, number the same things",
            )


def _check_produced_once(dialect: Dialect, canonical: Canonical) -> None:
    makers: dict[str, list[Rule]] = {name: [] for name in canonical.tensors}
    for rule in dialect.rules:
        for name in rule.weights:
            makers[name].append(rule)
    for name, every in makers.items():
        tensor = canonical.tensors[name]
        # A shared base has rules for other families; this one's own are all meant to hold at times.
        rules = [rule for rule in every if not dialect.known or may_hold(rule.when, dialect, canonical)]
        if not rules and may_hold(tensor.when, dialect, canonical):
            hint = "add a rule whose `ours` names it"
            if tensor.when is not None:
                hint += f", or state in [config.fields] why `{tensor.when.text}` never holds here"
            raise TableError(
                Where(dialect.path, 1),
                f"no rule of {dialect.family}/{dialect.name} makes the canonical tensor {name!r}",
                hint=hint,
            )
        if len(rules) > 1 and any(rule.when is None for rule in rules):
            raise TableError(
                rules[-1].where,
                f"two rules make the canonical tensor {name!r}",
                cause=f"the other one is at {rules[0].where}",
                hint="remove one, or give each a `when` so that only one holds",
            )


def may_hold(condition: Expression | None, dialect: Dialect, canonical: Canonical) -> bool:
    """Whether a condition can hold in a dialect."""
    return condition is None or condition.decide(settled(dialect, canonical)) is not False


def must_hold(condition: Expression | None, dialect: Dialect, canonical: Canonical) -> bool:
    """Whether a condition holds for every model in a dialect."""
    return condition is None or condition.decide(settled(dialect, canonical)) is True


def settled(dialect: Dialect, canonical: Canonical) -> dict[str, Any]:
    """The hyperparameters that are the same for every model: what code fixes, and what it has no word for."""
    known = dict(dialect.known)
    for name, item in canonical.hyperparameters.items():
        entry = dialect.config.fields.get(name)
        if entry is None:
            known[name] = item.neutral
        elif entry.has_fixed and not isinstance(entry.fixed, Expression):
            known[name] = entry.fixed
        elif entry.has_fixed and not entry.fixed.names:
            known[name] = entry.fixed.evaluate(known.__getitem__)
    return known


def _check_overlaps(dialect: Dialect, canonical: Canonical) -> None:
    seen: dict[str, list[tuple[Pattern, Where, bool]]] = {}
    # Rules last, so that an error names the line of a rule.
    entries: list[tuple[Pattern, Where, bool]] = [
        (pattern, Where(dialect.path, 1), False) for pattern in dialect.ignore
    ]
    for rule in dialect.rules:
        names = (rule.theirs, *rule.also, *([rule.scale_by] if rule.scale_by else []))
        conditional = rule.when is not None or all(canonical.tensors[name].when for name in rule.weights)
        entries += [(name, rule.where, conditional) for name in names]
    for pattern, where, conditional in entries:
        rivals = [entry for form in pattern.spellings for entry in seen.get(form.template, ())]
        for other, place, also_conditional in rivals:
            # Of two conditional ones at most one may hold: binding says where that is not so.
            if pattern.overlaps(other) and not (conditional and also_conditional):
                raise TableError(
                    where,
                    f"a stored name could fit both {pattern.text!r} and {other.text!r}",
                    cause=f"the other one is at {place}",
                    hint="a tensor belongs to one rule: narrow one of the two, or `remove` it",
                )
        for form in pattern.spellings:
            seen.setdefault(form.template, []).append((pattern, where, conditional))


def _check_config(dialect: Dialect, canonical: Canonical) -> None:
    start = Where(dialect.path, 1)
    names = set(canonical.hyperparameters)
    for entry in dialect.config.fields.values():
        if entry.name not in names:
            raise TableError(
                entry.where,
                f"{canonical.family} has no hyperparameter {entry.name!r}",
                hint=f"there are: {', '.join(sorted(names))}",
            )
        for expression in (entry.default, entry.read, entry.assumed):
            if isinstance(expression, Expression):
                _names(expression, names | {"layer"}, entry.where, entry.name, READING)
        for expression in (entry.write, entry.fixed, *entry.contains.values(), *entry.avoid.values()):
            if isinstance(expression, Expression):
                _names(expression, names | {"layer"}, entry.where, entry.name)
    for name, (value, where) in dialect.config.published.items():
        if name not in dialect.config.fields:
            raise TableError(
                where,
                f"[config.published] states {name!r}, which [config.fields] does not know",
                hint=f"there are: {', '.join(sorted(dialect.config.fields))}",
            )
        if isinstance(value, Expression):
            _names(value, names | {"layer"}, where, name, READING)
    for name, caution in dialect.config.caution.items():
        _names(caution.when, names, start, name)
    held = {entry.write_to: entry for entry in dialect.config.fields.values()}
    for name, (value, where) in dialect.config.write.items():
        if name in held and not isinstance(value, Expression):
            raise TableError(
                where,
                f"[config.write] says {name} = {value!r}, which is written from {held[name].name}",
                hint="one of the two would be lost: leave the constant out",
            )
        if isinstance(value, Constant):
            value = value.when
        if isinstance(value, Expression):
            _names(value, names | {"weights_dtype"}, where, name, WRITING)
    if dialect.config.recognise is not None:
        _names(dialect.config.recognise, names, start, "`recognise`", READING)
    if dialect.config.file is not None:
        _check_stated(dialect, canonical, start)


def _check_stated(dialect: Dialect, canonical: Canonical, start: Where) -> None:
    for name, hyperparameter in canonical.hyperparameters.items():
        if (
            hyperparameter.required
            and name not in dialect.config.fields
            and may_hold(hyperparameter.when, dialect, canonical)
        ):
            raise TableError(
                start,
                f"[config.fields] of {dialect.family}/{dialect.name} says nothing of {name!r}",
                hint="name the field that holds it, or what the dialect fixes in code (`fixed = …`)",
            )


def _names(
    expression: Expression,
    known: Iterable[str],
    where: Where,
    what: str,
    functions: frozenset[str] = frozenset(),
) -> None:
    for name in sorted(expression.calls - functions):
        raise TableError(
            where,
            f"{what}: `{expression.text}` calls {name}, which is no function here",
            hint=f"known: {', '.join(sorted(functions))}" if functions else "nothing can be called here",
        )
    unknown = sorted(expression.names - set(known))
    if unknown:
        raise TableError(
            where,
            f"{what}: `{expression.text}` reads {unknown[0]}, which is not defined",
            hint=f"known: {', '.join(sorted(known))}",
        )


def sizes_read(canonical: Canonical) -> Mapping[str, Any]:
    """The size expression of every axis: its own, or the hyperparameter of the same name."""
    return {**{name: Expression(name) for name in canonical.hyperparameters}, **canonical.axes}
