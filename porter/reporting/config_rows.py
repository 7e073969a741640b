"""A config between two dialects, field by field: `hidden_size 2048` → `n_embd 2048`."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

from porter.config.raw import get
from porter.planning.plan import Plan
from porter.recognition.identify import Identity
from porter.tables.model import Dialect, FieldEntry

# Characters of a value: lists of a number for each layer are cut.
_WIDEST = 12


def config_rows(identity: Identity, target: Dialect, plan: Plan) -> list[tuple[str, str]]:
    """Each field of the written config that a hyperparameter makes, beside where the source says it.

    Empty where no config is written. What a dialect does not say in a field has its default, or is code.
    """
    written = _written(target, plan)
    words = identity.words or identity.dialect
    rows: dict[str, tuple[str, str]] = {}
    for name, hyperparameter in identity.family.canonical.hyperparameters.items():
        theirs, own = words.config.fields.get(name), target.config.fields.get(name)
        if own is None or own.write_to is None or not (found := get(written, own.write_to))[0]:
            continue
        left = _said(identity, words, name, theirs) if theirs is not None else None
        if (
            left is None
            and identity.hyperparameters.get(name, hyperparameter.neutral) == hyperparameter.neutral
        ):
            continue
        rows.setdefault(own.write_to, (left or "", f"{own.write_to} {_shown(found[1])}"))
    return list(rows.values())


def _said(identity: Identity, words: Dialect, name: str, entry: FieldEntry) -> str | None:
    """Where the source's config says a hyperparameter, and what; None where it does not say it."""
    for path in entry.fields:
        there, value = get(identity.raw, path)
        if not there and path.partition(".")[0] in words.config.merge:
            # One dict of several places, under a name of the table's own.
            path, value, there = path.rpartition(".")[2], identity.hyperparameters.get(name), True
        if there and value is not None:
            return f"{path} {_shown(value)}"
    if entry.has_fixed:
        return "in code"
    return f"{entry.fields[0]}, by default" if entry.has_default and entry.fields else None


def _written(target: Dialect, plan: Plan) -> Any:
    file = target.config.file
    content = next((side.content for side in plan.side_files if side.name == file), None)
    if content is None or file is None:
        return {}
    if file.endswith((".yaml", ".yml")):
        import yaml

        return yaml.safe_load(content)
    found = json.loads(content)
    return found.get(target.config.section, found) if target.config.section else found


def _shown(value: Any) -> str:
    text = json.dumps(_as_float32(value) if isinstance(value, float) else value)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _as_float32(value: float) -> float:
    """The shortest number that is the same float32, of a value that is one: GGUF stores 1e-6 so."""
    with contextlib.suppress(OverflowError):
        if struct.unpack("f", struct.pack("f", value))[0] == value:
            for digits in range(6, 9):
                short = float(f"{value:.{digits}g}")
                if struct.unpack("f", struct.pack("f", short))[0] == value:
                    return short
    return value
