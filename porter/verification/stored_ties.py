"""An original whose config says one thing of head and embedding, and whose weights another.

Where the config unties them and both hold the same, a port may leave the head out and say that it is tied:
every value is there. Where the config ties them and two that differ are stored, frameworks use the two, and a
port must hold both. The two are compared value by value first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from porter.errors import DifferenceError
from porter.execution.checks import compare
from porter.planning.port_plan import PortPlan
from porter.planning.ties import tie_checks
from porter.recognition.identify import Identity
from porter.sources.base import SourceFile

TIED = "tie_embeddings"


def may_be_tied(identity: Identity, planned: PortPlan) -> bool:
    """Whether the original stores a head of its own, and the port does not."""
    canonical = identity.family.canonical
    tied = {name for name, tensor in canonical.tensors.items() if tensor.tied is not None}
    here, there = (
        {block.canonical for rule in rules for block in rule.blocks} & tied
        for rules in (planned.covered.held, planned.bound)
    )
    return not identity.hyperparameters.get(TIED) and bool(here - there)


def as_tied(identity: Identity, tied: bool = True) -> Identity:
    return replace(identity, hyperparameters={**identity.hyperparameters, TIED: tied})


def holds_ties(identity: Identity, planned: PortPlan, files: Mapping[str, SourceFile]) -> bool | None:
    """Whether what the original stores of tied weights is equal, None where it stores one of them. `planned`
    is planned as of a tied one."""
    checks = tie_checks(planned.join, planned.covered.held, identity.dialect, identity.dialect)
    tensors = {tensor.name: tensor for tensor in planned.covered.tensors.values()}
    try:
        for check in checks:
            compare(check, tensors, files)
    except DifferenceError:
        return False
    return True if checks else None
