"""A plan to the canonical axes: every weight of a checkpoint once, under porter's own name, row-major.

The family's canonical table is the target, each canonical tensor a tensor of its own whose dims are its axes.
Tied weights are there once, and rows behind a vocabulary are not there. What has to be equal or zero for that
is a check of the plan, as it is in a conversion.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from porter.containers.checkpoint import Checkpoint
from porter.layout import parse_layout
from porter.planning.as_stored import in_one_file
from porter.planning.build import build_plan
from porter.planning.plan import Plan, groups_of
from porter.planning.plan_options import PlanOptions
from porter.recognition.identify import Identity
from porter.tables.bind import Sizes
from porter.tables.model import Canonical, ConfigTable, Dialect, FieldEntry, Files, Rule
from porter.tables.patterns import taken_apart

CANONICAL = "canonical"


def canonical_dialect(canonical: Canonical) -> Dialect:
    """The canonical tensors of a family as a dialect: names and axes are its own.

    It can hold a tied head and an embedding that differ.
    """
    fields = {
        name: FieldEntry(name, item.where)
        for name, item in canonical.hyperparameters.items()
        if name == "tie_embeddings"
    }
    rules = tuple(
        Rule(
            theirs=tensor.pattern,
            ours=(name,),
            layout=parse_layout(" ".join(tensor.axes)),
            operations=(),
            when=None,
            when_tied="omit",
            where=tensor.where,
        )
        for name, tensor in canonical.tensors.items()
    )
    return Dialect(
        family=canonical.family,
        name=CANONICAL,
        title="the canonical axes",
        rules=rules,
        ignore=(),
        prefixes=(),
        config=ConfigTable(file=None, match={}, fields=fields, write={}, require={}, known=()),
        files=Files(weights=CANONICAL),
        path=Path(canonical.path),
    )


def plan_canonical(
    checkpoint: Checkpoint, identity: Identity, options: PlanOptions | None = None, *, untied: bool = False
) -> Plan:
    """Prove and plan. Of `options`, `dtype`, `text_only` and `allow_unmapped` count. Raises as `build_plan`.

    Tensors follow one another in the source's order, so that its files are read front to back. With `untied`
    tied weights are there twice, each from its own copy where one is stored, and need not be equal.
    """
    options = replace(
        options or PlanOptions(),
        to=CANONICAL,
        weights_only=True,
        tied="untie" if untied else None,
        container=None,
    )
    made = build_plan(checkpoint, identity, canonical_dialect(identity.family.canonical), options)
    places = {tensor.name: (tensor.file, tensor.offset) for tensor in made.sources}
    first: dict[str, tuple[str, int]] = {}
    for group in groups_of(made.copies):
        for target, source in zip(group.targets, group.parts[0].sources, strict=True):
            first[target] = places[source]
    ordered = sorted(made.targets(), key=lambda tensor: (first.get(tensor.name, ("", 0)), tensor.name))
    return replace(made, files=(in_one_file(ordered),))


def axes_of(plan: Plan, canonical: Canonical) -> dict[str, dict[str, int]]:
    """The named axes of each tensor of a plan to the canonical axes, outermost first, with their sizes."""
    sizes = Sizes(canonical, plan.hyperparameters)
    known = {tensor.pattern.spellings[0].template: tensor for tensor in canonical.tensors.values()}
    constant: dict[str, dict[str, int]] = {}
    found = {}
    for name in (tensor.name for tensor in plan.targets()):
        template, digits = taken_apart(name)
        tensor = known[template]
        if sizes.varying.isdisjoint(tensor.axes):
            if tensor.name not in constant:
                constant[tensor.name] = sizes.sizes(tensor.axes, {})
            found[name] = constant[tensor.name]
        else:
            found[name] = sizes.sizes(tensor.axes, tensor.pattern.matched(template, digits) or {})
    return found
