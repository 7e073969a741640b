"""`porter.diff`: how two models differ, in whatever dialects and containers the two are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from porter.api.opening import Opened, open_source
from porter.config.raw import load_mapping
from porter.errors import PorterError, UsageError
from porter.execution.watch import Watch
from porter.planning.plan_options import PlanOptions
from porter.planning.port_plan import idle_notes
from porter.recognition.idle_weights import as_computed, idle_tensors
from porter.sources.base import Source
from porter.verification.compare_configs import hyperparameter_pairs
from porter.verification.compare_models import (
    Side,
    compare_values,
    dtype_differences,
    lone_tensors,
    pair_models,
    shape_differences,
)
from porter.verification.compare_tokenizers import compare_tokenizers
from porter.verification.config_ids import Config, with_ids
from porter.verification.model_diff import FieldDifference, ModelDiff
from porter.verification.same_value import same_value
from porter.wording import renamed


def diff(
    a: str | Path | Source,
    b: str | Path | Source,
    *,
    atol: float = 0.0,
    rtol: float = 0.0,
    dtype_agnostic: bool = False,
    weights_only: bool = False,
    text_only: bool = False,
    allow_unmapped: str | Sequence[str] = (),
    maps: str | Path | Sequence[str | Path] = (),
    a_dialect: str | None = None,
    b_dialect: str | None = None,
    a_key: str | None = None,
    b_key: str | None = None,
    family: str | None = None,
    watch: Watch | None = None,
) -> ModelDiff:
    """Compare two models: weights by value in float32, dtypes, shapes, configs by meaning, tokenizers by ids.

    Weights are paired by porter's canonical names and axes where tables know both sides, else by their names.
    Values are the same where |a - b| ≤ atol + rtol · |b|; NaN is NaN, and -0 is 0. With `dtype_agnostic` it
    does not matter what values are stored in, with `weights_only` what config and tokenizer say. Nothing is
    written. Raises PorterError where a side cannot be read or the two have nothing in common.

    >>> done = porter.convert("gemma-2b/", "out/", to="litgpt", dtype="float16")
    >>> found = porter.diff("gemma-2b/", "out/")
    >>> found.same, found.only_in_a, found.dtypes[0].a, found.dtypes[0].b
    (False, (), 'F32', 'F16')
    """
    if not (atol >= 0 and rtol >= 0):
        raise UsageError("a tolerance is a number from 0 on", cause=f"atol = {atol}, rtol = {rtol}")
    # What callers may pass is wider than what the options then hold.
    given: dict[str, Any] = {"allow_unmapped": allow_unmapped, "maps": maps}
    options = PlanOptions(text_only=text_only, family=family, **given)
    with renamed({"from": "a-dialect", "key": "a-key"}):
        one = open_source(a, maps=options.maps, dialect=a_dialect, remote="bytes", key=a_key, family=family)
    with renamed({"from": "b-dialect", "key": "b-key"}):
        two = open_source(b, maps=options.maps, dialect=b_dialect, remote="bytes", key=b_key, family=family)
    left, right = _side(one), _side(two)
    pair = pair_models(left, right, options)
    compared = sum(tensor.name in pair.b.target_by_name for tensor in pair.a.targets())
    shapes = shape_differences(pair)
    values = compare_values(
        pair, one.checkpoint, two.checkpoint, atol=atol, rtol=rtol, watch=watch or Watch()
    )
    config, fields, notes = (None, {}, ()) if weights_only else _configs(one, two)
    return ModelDiff(
        a=one.source,
        b=two.source,
        by=pair.by,
        families=(_family(one), _family(two)),
        dialects=(_dialect(one), _dialect(two)),
        compared=compared,
        equal=compared - len({item.name for item in shapes} | {item.name for item in values}),
        only_in_a=lone_tensors(pair.a, pair.b),
        only_in_b=lone_tensors(pair.b, pair.a),
        shapes=shapes,
        dtypes=() if dtype_agnostic else dtype_differences(pair),
        values=values,
        config=config,
        tokenizer=None if weights_only else compare_tokenizers(one.checkpoint, two.checkpoint),
        notes=tuple(dict.fromkeys((*pair.notes, *_notes("A", left), *_notes("B", right), *notes))),
        fields=fields,
    )


def _side(opened: Opened) -> Side:
    identity = None if opened.identity is None else as_computed(opened.identity)
    return Side(opened.checkpoint, identity, opened.reason)


def _notes(name: str, side: Side) -> tuple[str, ...]:
    idle = [] if side.identity is None else idle_tensors(side.identity)
    return (*idle_notes(name, idle), *side.checkpoint.remarks)


def _family(opened: Opened) -> str:
    return "" if opened.identity is None else opened.identity.family.name


def _dialect(opened: Opened) -> str:
    return "" if opened.identity is None else opened.identity.dialect.name


def _configs(
    a: Opened, b: Opened
) -> tuple[tuple[FieldDifference, ...] | None, dict[str, tuple[Any, Any]], tuple[str, ...]]:
    """By canonical hyperparameters where both are known, else by the fields of `config.json`.

    What differs, all that was compared, and notes.
    """
    if a.identity is not None and b.identity is not None:
        table = {**b.identity.family.canonical.hyperparameters, **a.identity.family.canonical.hyperparameters}
        dialects = [side.identity.words or side.identity.dialect for side in (a, b) if side.identity]
        values = with_ids(Config.of(a.identity), Config.of(b.identity))
        pairs = hyperparameter_pairs(table, dialects, *values)
    else:
        one, two = _raw(a), _raw(b)
        if not one or not two:
            return None, {}, ("the configs are not compared: a side has none that is known",)
        pairs = [(name, one.get(name), two.get(name)) for name in dict.fromkeys([*one, *two])]
    differing = tuple(FieldDifference(*pair) for pair in pairs if not same_value(*pair[1:]))
    return differing, {name: (one, two) for name, one, two in pairs}, ()


def _raw(opened: Opened) -> Mapping[str, Any]:
    path = opened.checkpoint.files.get("config.json")
    try:
        return {} if path is None else load_mapping(path)
    except PorterError:
        return {}
