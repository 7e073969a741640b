"""Where a source can go: the dialects that it can be planned into, by the proof that a conversion runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from porter.api.opening import Opened, open_source
from porter.errors import PorterError, UsageError
from porter.planning.build import build_plan
from porter.planning.plan_options import PlanOptions
from porter.recognition.identify import Identity
from porter.tables.model import Dialect
from porter.wording import option


def list_targets(source: str | Path) -> list[Dialect]:
    """The dialects that a source can go to, its own among them. Raises PorterError."""
    opened = open_source(source)
    return _reached(PlanOptions(), opened, opened.identified())


def no_target(options: PlanOptions, opened: Opened, identity: Identity) -> UsageError:
    """The error where no dialect was named: it says where this source can go."""
    lines = [
        f"{option('to', target.name):<19} {target.title}"
        + (", to cast or shard it" if target.name == identity.dialect.name else "")
        for target in _reached(options, opened, identity)
    ]
    written = ", ".join(identity.family.written)
    return UsageError(
        "no target was named",
        cause=f"{opened.checkpoint.label} is {identity.family.name}, in the dialect {identity.dialect.name}",
        hint="say what to make:\n" + "\n".join(lines)
        if lines
        else f"nothing that porter writes can express it: {written}",
    )


def _reached(options: PlanOptions, opened: Opened, identity: Identity) -> list[Dialect]:
    quantised = any(tensor.dtype.quantised for tensor in opened.checkpoint.tensors.values())
    dtype = "bfloat16" if quantised and options.dtype == "keep" else options.dtype
    found = []
    for name in identity.family.written:
        target = identity.family.dialects[name]
        try:
            build_plan(opened.checkpoint, identity, target, replace(options, to=name, dtype=dtype))
        except PorterError:
            continue
        found.append(target)
    return found
