"""An original whose config unties head and embedding, and that stores one matrix for both.

Such a port may leave the head out and say that it is tied: every value is there. The two are compared value
by value first; where they are equal, the original is taken for a tied one.
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


def as_tied(identity: Identity) -> Identity:
    return replace(identity, hyperparameters={**identity.hyperparameters, TIED: True})


def holds_ties(identity: Identity, planned: PortPlan, files: Mapping[str, SourceFile]) -> bool:
    """Whether what the original stores of tied weights is equal. `planned` is planned as of a tied one."""
    checks = tie_checks(planned.join, planned.covered.held, identity.dialect, identity.dialect)
    tensors = {tensor.name: tensor for tensor in planned.covered.tensors.values()}
    try:
        for check in checks:
            compare(check, tensors, files)
    except DifferenceError:
        return False
    return bool(checks)
