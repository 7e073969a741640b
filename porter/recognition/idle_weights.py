"""Weights that are stored and that no framework computes with: a comparison leaves them aside.

Gemma 3n's last layers use the keys and values of an earlier layer. Published files hold projections for them
all the same, transformers saves none, and KerasHub has random ones: the model is the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from porter.recognition.identify import Identity
from porter.tables.bind import bind_rules
from porter.tables.model import Canonical, Dialect


def as_computed(identity: Identity) -> Identity:
    """The checkpoint as the model that it computes, whatever else it stores."""
    canonical = identity.family.canonical
    named = _idle(canonical)
    if not named:
        return identity
    hyperparameters = {**identity.hyperparameters, **dict.fromkeys(named, False)}
    idle = idle_names(identity.dialect, canonical, hyperparameters)
    return replace(identity, hyperparameters=hyperparameters, idle=idle)


def as_carried(identity: Identity, target: Dialect) -> Identity:
    """What a conversion carries: idle weights as well, but where the target has no place for them."""
    entries = [target.config.fields.get(name) for name in _idle(identity.family.canonical)]
    none = any(entry is not None and entry.has_fixed and entry.fixed is False for entry in entries)
    return as_computed(identity) if none else identity


def idle_names(dialect: Dialect, canonical: Canonical, hyperparameters: Mapping[str, Any]) -> frozenset[str]:
    """The stored names that a dialect may have beside those of the weights that are computed with."""
    named = _idle(canonical)
    if not named:
        return frozenset()
    without, beside = (
        {
            name
            for rule in bind_rules(dialect, canonical, {**hyperparameters, **dict.fromkeys(named, value)})
            for name in rule.names
        }
        for value in (False, True)
    )
    return frozenset(beside - without)


def idle_tensors(identity: Identity) -> list[str]:
    """What a checkpoint stores besides, by its own names."""
    return [name for name, spelled in identity.names.items() if spelled in identity.idle]


def _idle(canonical: Canonical) -> list[str]:
    return [name for name, item in canonical.hyperparameters.items() if item.idle]
