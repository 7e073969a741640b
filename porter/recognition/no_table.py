"""Why no table fits a checkpoint: what is nearest, and the table of one's own to start from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from porter.config.raw import override_of, raw_config
from porter.config.read import ConfigReader
from porter.containers.checkpoint import Checkpoint
from porter.errors import PorterError, UnsupportedError
from porter.recognition.infer import missing_rules
from porter.recognition.stored_names import first_names, known_names
from porter.tables.catalogue import DECODER, Family
from porter.tables.check import must_hold, settled
from porter.wording import option

# Entries of a config by which the nearest family is told.
_ENTRIES = 1_000


def no_table_fits(
    checkpoint: Checkpoint, families: Mapping[str, Family], config: Path | None
) -> UnsupportedError:
    known = ", ".join(sorted(n for n, family in families.items() if n != DECODER and family.dialects))
    for file in ("config.json", "model_config.yaml", "(metadata)"):
        raw = raw_config(checkpoint, file, override_of(config, file))
        if raw:
            nearest, likeness = _nearest(checkpoint, families, raw)
            said = next(
                (
                    f"{key} = {raw[key]!r}"
                    for key in ("model_type", "general.architecture", "class_name", "name")
                    if key in raw
                ),
                "no model_type",
            )
            return UnsupportedError(
                f"no mapping table fits {checkpoint.label}",
                cause=f"{file} says {said}{_own_layout(raw, families)}; porter has tables for {known}"
                f"{likeness}{_broken(families)}",
                hint=f"if it is one of them, say so with {option('family', 'NAME')}; or start a table of "
                f"your own with porter mappings new {nearest} --name mine, for {option('mappings', 'DIR')}:\n"
                + _beginning(checkpoint, nearest, families, raw),
            )
    if checkpoint.container == "hdf5":
        return UnsupportedError(
            f"no mapping table fits {checkpoint.label}",
            cause="there is no config beside its weights, and they are not those of any family with a table: "
            f"found tensors such as {first_names(checkpoint.tensors)}",
            hint=f"name its config with {option('config', 'FILE')}, or add a table of your own with "
            f"{option('map', 'FILE.toml')}",
        )
    return UnsupportedError(
        f"{checkpoint.label} has no config beside its weights",
        cause="the tensors alone cannot separate the number of heads from head_dim",
        hint=f"put its config.json or model_config.yaml there, or name it with {option('config', 'FILE')}",
    )


def _own_layout(raw: Mapping[str, Any], families: Mapping[str, Family]) -> str:
    """Of a family's GGUF that llama.cpp does not write."""
    name = str(raw.get("general.architecture"))
    if name not in families or "gguf" in families[name].dialects:
        return ""
    return f", for which llama.cpp has no architecture: how whoever wrote it lays out a {name} is not known"


def _nearest(
    checkpoint: Checkpoint, families: Mapping[str, Family], raw: Mapping[str, Any]
) -> tuple[str, str]:
    """The family whose names are most like the checkpoint's, and what it does not know of them."""
    found = {
        name: known_names(checkpoint, family.dialects["hf"])[1]
        for name, family in families.items()
        if "hf" in family.dialects
    }

    # A real config has some hundred entries; what more say is no likeness to anything.
    raw = dict(islice(raw.items(), _ENTRIES))

    def likeness(name: str) -> tuple[int, ...]:
        """Of families that know as many names, the one that misses the fewest of its own is nearest.

        Where names do not tell, it is the one that knows more of the config, or else whose code adds less.
        """
        family = families[name]
        shapes = {ours: checkpoint.tensors[theirs].shape for theirs, ours in found[name].items()}
        missed = missing_rules(family.dialects["hf"], family.canonical, shapes)
        asked = sum(
            must_hold(family.canonical.tensors[ours].when, family.dialects["hf"], family.canonical)
            for rule in family.dialects["hf"].rules
            for ours in rule.weights
        )
        strange, own = _strange_fields(family, raw), _fixed_in_code(family)
        return len(found[name]), -missed, asked, -strange, -own

    best = max(sorted(found), key=likeness, default="")
    if not best or not found[best]:
        return "llama", ""
    count, others = len(found[best]), [name for name in checkpoint.tensors if name not in found[best]]
    lacks = f"; not, for example, {first_names(others)}" if others else ""
    return best, f"\nnearest is {best}: it knows {count} of {len(checkpoint.tensors)} names{lacks}"


def _strange_fields(family: Family, raw: Mapping[str, Any]) -> int:
    """How many fields of a config a family's table does not know, or does not cover."""
    try:
        reader = ConfigReader(family.dialects["hf"], family.canonical, raw, {}, "")
    except PorterError:
        return len(raw)
    return len(reader.unknown_fields()) + len(reader.not_covered())


def _fixed_in_code(family: Family) -> int:
    """How much a family's code does that others have no field for, such as Gemma's norms of 1 + w."""
    known = settled(family.dialects["hf"], family.canonical)
    stated = family.canonical.hyperparameters
    return sum(not stated[name].required and value != stated[name].neutral for name, value in known.items())


def _broken(families: Mapping[str, Family]) -> str:
    """What is wrong with tables of the user's own, which one of them may have been meant to fit."""
    broken = {name: family.missing for name, family in families.items() if not family.dialects}
    found = [f"{name}: {why}" for name, why in broken.items()]
    return "".join(f"\n{line}" for line in found)


# Names beyond these are counted: a table is begun with the first layer's.
_SHOWN = 12


def _beginning(
    checkpoint: Checkpoint, nearest: str, families: Mapping[str, Family], raw: Mapping[str, Any]
) -> str:
    """The table to start from: the nearest family's, and the stored names that it has no rule for."""
    lines = [
        f'  extends    = "{nearest}/hf"',
        f'  model_type = "{raw.get("model_type", "…")}"',
    ]
    known = known_names(checkpoint, families[nearest].dialects["hf"])[1] if nearest in families else {}
    others: dict[str, str] = {}
    for name, tensor in checkpoint.tensors.items():
        if name not in known:
            others.setdefault(re.sub(r"\.\d+\.", ".{layer}.", name, count=1), f"{list(tensor.shape)}")
    if others:
        lines += ["  [rules]", "  # which canonical tensor each of these holds, and how it lies in it:"]
        lines += [f'  # {json.dumps(name)} = "…"   {shape}' for name, shape in list(others.items())[:_SHOWN]]
        if len(others) > _SHOWN:
            lines.append(f"  # … and {len(others) - _SHOWN} more")
    return "\n".join(lines)
