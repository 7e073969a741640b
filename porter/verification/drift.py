"""The drift alarm: do the tables still say what an installed framework's modules are?

For each family two kinds of configuration are built on the meta device: one that binds every axis to a
different size, so that a layout which only fits by chance is caught, and (with `every`) all those that
the peer itself knows by name. Names and shapes are compared with the bound table, strictly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from porter.config.read import ConfigReader
from porter.config.write import write_config
from porter.errors import PorterError, UsageError
from porter.recognition.identify import matches
from porter.tables.bind import bind_dialect
from porter.tables.catalogue import Family
from porter.tables.model import Dialect
from porter.verification.modules import Expected, expected_tensors, needs

_DIALECTS = {"litgpt": "litgpt", "transformers": "hf", "porter": "litgpt"}


@dataclass(frozen=True)
class DriftReport:
    """One configuration of a peer: how many tensors it has, and what differs."""

    peer: str
    family: str
    configuration: str
    tensors: int
    problems: tuple[str, ...]


def compare(peer: str, families: Mapping[str, Family], *, every: bool = False) -> list[DriftReport]:
    """Compare every family's table with a peer. Raises UsageError if the peer is unknown or not installed."""
    if peer not in _DIALECTS:
        raise UsageError(f"unknown peer {peer!r}", hint=f"one of {', '.join(_DIALECTS)}")
    reports = []
    for family in families.values():
        dialect = family.dialects.get(_DIALECTS[peer])
        if dialect is None:
            continue
        reports.append(_prime(peer, family, dialect))
        if every:
            reports.extend(
                _named(peer, family, dialect, name, raw) for name, raw in _known(peer, family, dialect)
            )
    return reports


def example_hyperparameters(family: Family) -> dict[str, Any]:
    """The family's example: no two axes, and no product that makes a dim, have the same size."""
    neutral = {name: item.neutral for name, item in family.canonical.hyperparameters.items()}
    return {**neutral, **family.canonical.example}


def _prime(peer: str, family: Family, dialect: Dialect) -> DriftReport:
    hyperparameters = example_hyperparameters(family)
    shapes = _bound(family, dialect, hyperparameters)
    config = write_config(dialect, family.canonical, hyperparameters, shapes=shapes, weights_dtype="float32")
    return _report(peer, family, "(all axes different)", shapes, expected_tensors(peer, config))


def _named(peer: str, family: Family, dialect: Dialect, name: str, raw: Mapping[str, Any]) -> DriftReport:
    expected = expected_tensors(peer, raw)
    try:
        reader = ConfigReader(dialect, family.canonical, raw, expected.shapes, name)
        shapes = _bound(family, dialect, reader.read())
    except PorterError as error:
        problem = error.message + (f" ({error.cause})" if error.cause else "")
        return DriftReport(peer, family.name, name, len(expected.shapes), (problem,))
    return _report(peer, family, name, shapes, expected)


def _bound(
    family: Family, dialect: Dialect, hyperparameters: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    return {t.name: t.shape for t in bind_dialect(dialect, family.canonical, hyperparameters)}


def _report(
    peer: str, family: Family, name: str, shapes: Mapping[str, tuple[int, ...]], expected: Expected
) -> DriftReport:
    problems = [
        f"{tensor}: the module has {list(expected.shapes[tensor])}, the table {list(shape)}"
        for tensor, shape in shapes.items()
        if tensor in expected.shapes and expected.shapes[tensor] != shape
    ]
    problems += [f"{t}: only in the table" for t in shapes if t not in expected.shapes]
    problems += [f"{t}: only in the module" for t in expected.shapes if t not in shapes]
    return DriftReport(peer, family.name, name, len(expected.shapes), tuple(problems))


def _known(peer: str, family: Family, dialect: Dialect) -> Iterator[tuple[str, dict[str, Any]]]:
    """Configurations that the peer knows by name and that are of this family."""
    if peer == "litgpt":
        with needs("litgpt"):
            from litgpt.config import Config, configs
        for entry in configs:
            raw = dataclasses.asdict(Config(**entry))
            if matches(raw, dialect.config.match):
                yield entry["name"], raw
    elif peer == "transformers":
        with needs("transformers"):
            from transformers import AutoConfig
        for model_type in dialect.config.match.get("model_type", ()):
            yield f"{model_type} (defaults)", AutoConfig.for_model(model_type).to_dict()
