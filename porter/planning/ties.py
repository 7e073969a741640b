"""Tied weights: when a tie holds, what each side does with it, and what must be equal before one goes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from porter.errors import UnsupportedError
from porter.planning.coverage import BlockIndex, Covered
from porter.planning.join import Join
from porter.planning.plan import Copies, CopyGroup, EqualCheck
from porter.planning.plan_options import PlanOptions
from porter.tables.bind import BoundRule, Sizes
from porter.tables.model import Canonical, Dialect, Rule
from porter.wording import command, option


def ties_in_force(canonical: Canonical, hyperparameters: Mapping[str, Any]) -> dict[str, str]:
    if not hyperparameters.get("tie_embeddings"):
        return {}
    return {name: tensor.tied for name, tensor in canonical.tensors.items() if tensor.tied is not None}


def only_ties(bound: BoundRule, ties: Mapping[str, str]) -> bool:
    return bool(ties and bound.blocks) and all(block.canonical in ties for block in bound.blocks)


def untie(
    hyperparameters: Mapping[str, Any], target: Dialect, ties: Mapping[str, str], options: PlanOptions
) -> tuple[dict[str, Any], bool]:
    """The target's hyperparameters, and whether tied tensors become independent there.

    `--tied untie` says so; so does `--tied write` into a dialect that leaves tied tensors out, if a config is
    written that can say it: weights alone are loaded into a model that ties them, so that both must be equal.
    """
    found = dict(hyperparameters)
    leaves_out = any(rule.when_tied == "omit" for rule in target.rules) and not options.weights_only
    if ties and (options.tied == "untie" or (options.tied == "write" and leaves_out)):
        if not _can_untie(target):
            raise UnsupportedError(
                f"{target.title} has no head of its own",
                cause="it computes with the embedding in its place, in code",
                hint="hf and litgpt hold both",
            )
        found["tie_embeddings"] = False
        return found, True
    if not ties and options.tied == "omit":
        raise UnsupportedError(
            "there is no tied tensor to leave out",
            cause="the source's config says that the head is not tied to the embedding",
        )
    return found, False


def _can_untie(target: Dialect) -> bool:
    field = target.config.fields.get("tie_embeddings")
    return field is not None and not field.has_fixed


def shared_storage(copies: Copies, tied: Container[str]) -> dict[str, str]:
    """Tied target tensors that can share another's storage: the same copies make both."""
    alone = [group for group in copies.groups if len(group.targets) == 1]
    owners = {_made_of(group): group.targets[0] for group in alone if group.targets[0] not in tied}
    return {
        group.targets[0]: owners[_made_of(group)]
        for group in alone
        if group.targets[0] in tied and _made_of(group) in owners
    }


def _made_of(group: CopyGroup) -> tuple[object, ...]:
    return tuple(part[2:] for part in group.parts)


def either(ties: Mapping[str, str], held: Container[str]) -> dict[str, str]:
    """What each canonical tensor of a tied pair is read from, given those that the source holds.

    A tied tensor is read from the one that owns the weight; where only the tied one is stored, the other way.
    """
    return {
        **{name: other for name, other in ties.items() if other in held or name not in held},
        **{other: name for name, other in ties.items() if other not in held and name in held},
    }


def join_source(covered: Covered, sizes: Sizes, ties: Mapping[str, str], *, keep_own: bool) -> Join:
    """A tied tensor is read from what it is tied to; when untying, from its own copy where it has one."""
    held = {block.canonical for rule in covered.held for block in rule.blocks}
    alias = either(ties, held)
    if keep_own:
        alias = {name: other for name, other in alias.items() if name not in held}
    rules: dict[str, Rule] = {}
    for rule in covered.held:
        rules.update(dict.fromkeys(rule.names, rule.rule))
    return Join(
        index=BlockIndex(covered.held),
        rules=rules,
        stored=covered.tensors,
        sizes=sizes,
        alias=alias,
    )


def tie_checks(
    join: Join, present: Iterable[BoundRule], source: Dialect, target: Dialect
) -> list[EqualCheck]:
    """Where both of a tied pair are stored, they must have the same values before one may be dropped."""
    reason = "the config says that they are tied"
    if source.name.startswith("litgpt"):
        reason += "; LitGPT itself trains the two apart"
    if target.config.file is None:
        # The canonical axes, which no framework loads.
        hint = f"{command('convert')} with {option('tied', 'untie')} makes a model that says it has both"
    elif _can_untie(target):
        hint = (
            f"{option('tied', 'untie')} keeps both: {target.title} then has a head of its own, and its "
            "config says so"
        )
    else:
        hint = (
            f"{target.title} has no head of its own; hf and litgpt hold both, with {option('tied', 'untie')}"
        )
    return [
        check
        for rule in present
        for block in rule.blocks
        if block.canonical in join.alias
        for tensor in rule.tensors()
        for check in join.equal(tensor, block, reason, hint)
    ]
