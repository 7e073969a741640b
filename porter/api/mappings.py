"""`porter mappings`: the tables there are, one of them readably, and a user's own checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from porter.config.raw import load_mapping
from porter.config.read import ConfigReader
from porter.errors import UsageError
from porter.tables.bind import bind_dialect
from porter.tables.catalogue import DECODER, Family, load_families, load_user_table, load_users_family
from porter.tables.check import settled
from porter.tables.model import Dialect

if TYPE_CHECKING:
    from porter.verification.drift import DriftReport


@dataclass(frozen=True)
class TableInfo:
    """One table: `directions` is `read` or `read, write`."""

    family: str
    dialect: str
    title: str
    directions: str
    rules: int
    version: int
    path: Path


@dataclass(frozen=True)
class RuleRow:
    """A canonical tensor between two dialects, with shapes where sizes are known."""

    source: str
    source_layout: str
    canonical: str
    axes: str
    target_layout: str
    target: str
    source_shape: tuple[int, ...] | None
    target_shape: tuple[int, ...] | None


def list_tables(maps: Sequence[Path] = ()) -> list[TableInfo]:
    """Every table, shipped and of the user's own; what all decoders share stands once, under `decoder`."""
    return [
        TableInfo(
            family.name,
            dialect.name,
            dialect.title,
            "read, write" if dialect.written else "read",
            len(dialect.rules),
            family.canonical.version,
            dialect.path,
        )
        for family in load_families(maps).values()
        for dialect in family.dialects.values()
        if family.name == DECODER or not dialect.shared
    ]


def show(
    family: str,
    source: str,
    target: str,
    *,
    maps: Sequence[Path] = (),
    hyperparameters: dict[str, Any] | None = None,
) -> list[RuleRow]:
    """One family between two dialects, a row per canonical tensor and pair of rules."""
    families = load_families(maps)
    found = families.named(family)
    one, two = found.dialect(source), found.dialect(target)
    settled_one, settled_two = settled(one, found.canonical), settled(two, found.canonical)
    shapes_one = _shapes(found, one, hyperparameters)
    shapes_two = _shapes(found, two, hyperparameters)
    rows = []
    for name, tensor in found.canonical.tensors.items():
        # What one of the two never has is no row: a shared table has rules for all families.
        if tensor.when is not None and False in map(tensor.when.decide, (settled_one, settled_two)):
            continue
        for rule in one.rules:
            for other in two.rules:
                if name not in rule.weights or name not in other.weights:
                    continue
                if any(r.when is not None and r.when.decide(settled_one) is False for r in (rule, other)):
                    continue
                if hyperparameters is not None and (
                    rule.theirs.text not in shapes_one or other.theirs.text not in shapes_two
                ):
                    continue
                rows.append(
                    RuleRow(
                        rule.theirs.text,
                        str(rule.layout),
                        name,
                        " ".join(tensor.axes),
                        str(other.layout),
                        other.theirs.text,
                        shapes_one.get(rule.theirs.text),
                        shapes_two.get(other.theirs.text),
                    )
                )
    return rows


def broken_families(maps: Sequence[Path] = ()) -> dict[str, str]:
    """Families of the user's own whose tables do not load, and why."""
    return {
        name: family.missing
        for name, family in load_families(maps).items()
        if family.missing is not None and not family.dialects
    }


def new_family(base: str, name: str, root: Path) -> Path:
    """Write the skeleton of a family that is like `base` into a folder of families; the table's path.

    Raises UsageError for a name that cannot be one, and where there is such a table already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(f"{name!r} cannot be a family's name", hint="lower case letters, digits and _")
    families = load_families([root] if root.is_dir() else [])
    if base not in families or "hf" not in families[base].dialects:
        raise UsageError(f"there is no family {base!r} to begin with", hint=f"one of {', '.join(families)}")
    path = root / name / "hf.toml"
    if name in families or path.exists():
        raise UsageError(f"there is a family {name!r} already", hint="choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_SKELETON.format(base=base, name=name), encoding="utf-8")
    return path


# What differs from the base is all that a table says.
_SKELETON = """\
# {name}: like {base}, but …
extends      = "{base}/hf"
model_type   = "{name}"
architecture = "…ForCausalLM"

# Where another field holds a hyperparameter, or its default is another, or code fixes it:
# [config.fields]
# n_kv_head = {{ field = "num_key_value_heads", default = 8 }}
# qk_norm   = {{ fixed = "'head'" }}

# Parts of names that are spelled in another way than in {base}:
# [names]
# "self_attn.o_proj" = "self_attn.dense"

# Tensors that are stored in another way, or not at all:
# [rules]
# "model.layers.{{layer}}.self_attn.o_proj.weight" = {{ ours = "{{layer}}.attn.o", layout = "…" }}
"""


def hyperparameters_of(config: Path, family: str, dialect: str, maps: Sequence[Path] = ()) -> dict[str, Any]:
    """The canonical hyperparameters that a config file states, read in one dialect's words."""
    found = load_families(maps).named(family)
    reader = ConfigReader(found.dialect(dialect), found.canonical, load_mapping(config), {}, config.stem)
    return reader.read()


def check(path: Path) -> Dialect:
    """Load and check a table of the user's own. Raises TableError with file, line, rule and remedy."""
    return load_users_family(path) or load_user_table(path)


def drift(peer: str, *, every: bool = False, maps: Sequence[Path] = ()) -> list[DriftReport]:
    """Compare the tables with an installed peer's modules; see `porter.verification.drift`."""
    from porter.verification.drift import compare

    return compare(peer, load_families(maps), every=every)


def _shapes(
    family: Family, dialect: Dialect, hyperparameters: dict[str, Any] | None
) -> dict[str, tuple[int, ...]]:
    """The shape of the first stored tensor of each rule."""
    if hyperparameters is None:
        return {}
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in bind_dialect(dialect, family.canonical, hyperparameters):
        shapes.setdefault(tensor.rule.theirs.text, tensor.shape)
    return shapes
