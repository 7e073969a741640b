"""The drift alarm: do the tables still say what an installed framework's modules are?

Each configuration is a row: ok, differs, or of no family. There is one for each family that binds every
axis to a different size, so that a layout which only fits by chance is caught; and (with `every`) one for
each that the peer itself knows by name. They are built on the meta device, and names and shapes are compared
with the bound table, strictly. Whatever is wrong with one of them is a row, and no end of the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from porter.config.read import ConfigReader
from porter.config.write import write_config
from porter.errors import ModelLacksError, PorterError, UsageError
from porter.recognition.choose_family import choose_family
from porter.tables.bind import bind_dialect
from porter.tables.catalogue import DECODER, Families, Family
from porter.tables.model import Dialect
from porter.verification.modules import Expected, expected_tensors, needs

_DIALECTS = {"litgpt": "litgpt", "transformers": "hf", "porter": "litgpt"}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class DriftReport:
    """One configuration of a peer: its family, how many tensors it has, and what differs.

    Of `no family` is one that LitGPT builds and that no table for transformers can express; `not implemented`
    is what porter's own model refuses, which is no fault of a table.
    """

    peer: str
    family: str
    configuration: str
    tensors: int
    result: Literal["ok", "differs", "no family", "not implemented"]
    problems: tuple[str, ...]


def compare(peer: str, families: Families, *, every: bool = False) -> list[DriftReport]:
    """Compare every family's table with a peer. Raises UsageError if the peer is unknown or not installed."""
    if peer not in _DIALECTS:
        raise UsageError(f"unknown peer {peer!r}", hint=f"one of {', '.join(_DIALECTS)}")
    reports = []
    for family in families.values():
        if family.missing is not None and not family.dialects:
            # A family of the user's own whose tables do not load.
            reports.append(DriftReport(peer, family.name, "(its tables)", 0, "differs", (family.missing,)))
        dialect = family.dialects.get(_DIALECTS[peer])
        if dialect is not None and family.name != DECODER:
            reports.append(_prime(peer, family, dialect))
            if every and peer == "transformers":
                reports.extend(
                    _named(peer, family, dialect, name, raw) for name, raw in _transformers(dialect)
                )
    if every and peer == "litgpt":
        reports.extend(_litgpt(families, name, raw) for name, raw in _litgpt_configs())
    return reports


def example_hyperparameters(family: Family) -> dict[str, Any]:
    """The family's example: no two axes, and no product that makes a dim, have the same size."""
    neutral = {name: item.neutral for name, item in family.canonical.hyperparameters.items()}
    return {**neutral, **family.canonical.example}


def _prime(peer: str, family: Family, dialect: Dialect) -> DriftReport:
    name = "(all axes different)"
    try:
        hyperparameters = example_hyperparameters(family)
        shapes = _bound(family, dialect, hyperparameters)
        config = write_config(
            dialect, family.canonical, hyperparameters, shapes=shapes, weights_dtype="float32"
        )
        return _report(peer, family, name, shapes, expected_tensors(peer, config))
    except UsageError:
        # A peer that is not installed is no row.
        raise
    except PorterError as error:
        report = _failed(peer, family, name, 0, error)
        lacking = isinstance(error, ModelLacksError)
        return dataclasses.replace(report, result="not implemented") if lacking else report


def _named(peer: str, family: Family, dialect: Dialect, name: str, raw: Mapping[str, Any]) -> DriftReport:
    tensors = 0
    try:
        expected = expected_tensors(peer, raw)
        tensors = len(expected.shapes)
        reader = ConfigReader(dialect, family.canonical, raw, expected.shapes, name)
        return _report(peer, family, name, _bound(family, dialect, reader.read()), expected)
    except UsageError:
        raise
    except PorterError as error:
        return _failed(peer, family, name, tensors, error)


def _litgpt(families: Families, name: str, raw: Mapping[str, Any]) -> DriftReport:
    """A model of LitGPT's must have a family besides, whose table for transformers can express it."""
    base = families[DECODER]
    source = base.dialects["litgpt"]
    report = _named("litgpt", base, source, name, raw)
    if report.result != "ok":
        return report
    shapes = expected_tensors("litgpt", raw).shapes
    values = ConfigReader(source, base.canonical, raw, shapes, name).read()
    family = choose_family(families, source, values)
    if family.missing is not None:
        return dataclasses.replace(report, result="no family", problems=(family.missing,))
    return dataclasses.replace(report, family=family.name)


def _failed(peer: str, family: Family, name: str, tensors: int, error: PorterError) -> DriftReport:
    problem = error.message + (f" ({error.cause})" if error.cause else "")
    return DriftReport(peer, family.name, name, tensors, "differs", (problem,))


def _bound(
    family: Family, dialect: Dialect, hyperparameters: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    return {t.name: t.shape for t in bind_dialect(dialect, family.canonical, hyperparameters)}


def _report(peer: str, family: Family, name: str, shapes: Shapes, expected: Expected) -> DriftReport:
    problems = [
        f"{tensor}: the module has {list(expected.shapes[tensor])}, the table {list(shape)}"
        for tensor, shape in shapes.items()
        if tensor in expected.shapes and expected.shapes[tensor] != shape
    ]
    problems += [f"{t}: only in the table" for t in shapes if t not in expected.shapes]
    problems += [f"{t}: only in the module" for t in expected.shapes if t not in shapes]
    result: Literal["ok", "differs"] = "differs" if problems else "ok"
    return DriftReport(peer, family.name, name, len(expected.shapes), result, tuple(problems))


def _litgpt_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    with needs("litgpt"):
        from litgpt.config import Config, configs
    for entry in configs:
        yield entry["name"], dataclasses.asdict(Config(**entry))


def _transformers(dialect: Dialect) -> Iterator[tuple[str, dict[str, Any]]]:
    with needs("transformers"):
        from transformers import AutoConfig
    for model_type in dialect.config.match.get("model_type", ()):
        yield f"{model_type} (defaults)", AutoConfig.for_model(model_type).to_dict()
