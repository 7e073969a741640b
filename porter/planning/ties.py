"""Tied weights: when a tie holds, what each side does with it, and what must be equal before one goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from porter.errors import DifferenceError, UnsupportedError, UsageError
from porter.planning.coverage import Covered
from porter.planning.plan import Copy, EqualCheck
from porter.planning.plan_options import Options
from porter.tables.bind import BoundTensor
from porter.tables.model import Canonical, Dialect


def ties_in_force(canonical: Canonical, hyperparameters: Mapping[str, Any]) -> dict[str, str]:
    if not hyperparameters.get("tie_embeddings"):
        return {}
    return {name: tensor.tied for name, tensor in canonical.tensors.items() if tensor.tied is not None}


def only_ties(tensor: BoundTensor, ties: Mapping[str, str]) -> bool:
    return bool(ties) and all(block.canonical in ties for block in tensor.blocks)


def untie(
    hyperparameters: Mapping[str, Any], target: Dialect, ties: Mapping[str, str], options: Options
) -> tuple[dict[str, Any], bool]:
    """`--tied write` into a dialect that leaves tied tensors out makes the two independent."""
    found = dict(hyperparameters)
    if options.tied not in (None, "write", "omit"):
        raise UsageError(f"--tied must be write or omit, not {options.tied!r}")
    leaves_out = any(rule.when_tied == "omit" for rule in target.rules)
    if ties and options.tied == "write" and leaves_out:
        found["tie_embeddings"] = False
        return found, True
    if not ties and options.tied == "omit":
        raise UnsupportedError(
            "there is no tied tensor to leave out",
            cause="the source's config says that the head is not tied to the embedding",
        )
    return found, False


def shared_storage(
    bound: Sequence[BoundTensor], copies: Sequence[Copy], ties: Mapping[str, str]
) -> dict[str, str]:
    """Tied target tensors that can share another's storage: the same copies make both."""
    made: dict[str, list[tuple[object, ...]]] = {}
    for copy in copies:
        key = (copy.source, copy.source_offset, copy.target_offset, copy.loops, copy.operations)
        made.setdefault(copy.target, []).append(key)
    owners = {tuple(made[t.name]): t.name for t in bound if not only_ties(t, ties)}
    return {
        tensor.name: owners[tuple(made[tensor.name])]
        for tensor in bound
        if only_ties(tensor, ties) and tuple(made[tensor.name]) in owners
    }


def tie_checks(
    covered: Covered, bound: Sequence[BoundTensor], ties: Mapping[str, str]
) -> tuple[EqualCheck, ...]:
    """Where both copies of a tie are stored, they must hold the same bytes before one may be dropped."""
    makers = {block.canonical: tensor.name for tensor in bound for block in tensor.blocks}
    checks = []
    for name, other in ties.items():
        # A table may store the tied tensor under a condition only.
        dropped, kept = makers.get(name, ""), makers.get(other, "")
        if dropped in covered.tensors and kept in covered.tensors:
            one, two = covered.tensors[kept], covered.tensors[dropped]
            if one.dtype != two.dtype:
                raise DifferenceError(
                    f"{two.name} is tied to {one.name}, but their dtypes differ",
                    cause=f"{one.name} is {one.dtype.name}, {two.name} is {two.dtype.name}",
                    hint="if the head was trained on its own, untie it: --to hf --tied write",
                )
            for stored in (one, two):
                if stored.strides is not None and (
                    one.strides != two.strides or stored.span != stored.elements
                ):
                    raise UnsupportedError(
                        f"{one.name} and {two.name} have to be equal, and are stored in two orders",
                        cause=f"{stored.name} is a strided view: {list(stored.strides)}",
                        hint="save them again after .contiguous()",
                    )
            checks.append(EqualCheck(one.name, two.name, "tied embeddings"))
    return tuple(checks)
