"""`porter.inspect`: what a checkpoint holds, from its headers and config alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from porter.api.opening import open_source
from porter.errors import UsageError
from porter.planning.arguments import as_paths
from porter.planning.build import build_plan
from porter.planning.plan import Plan
from porter.planning.plan_options import PlanOptions
from porter.reading.unforeseen import reading
from porter.recognition.inspection import Inspection, describe
from porter.sources.base import Source
from porter.verification.known_mistakes import known_mistakes
from porter.verification.published import departures


def inspect(
    source: str | Path | Source | None = None,
    *,
    filter: str | None = None,
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    source_dialect: str | None = None,
    key: str | None = None,
    family: str | None = None,
) -> Inspection:
    """Look at a checkpoint: a directory, a weight file, or a model on the Hub (`gemma-2b`, `hf://org/name`).

    Of a model on the Hub only headers and config are fetched, and nothing that the cache holds. `filter` is
    a shell pattern that tensor names must match; `source_dialect` says which checkpoint of a directory that
    holds several, and what it is if it could be two; `key` the state dict to take from a torch file that
    holds several. No weight is read. Raises PorterError: 6 for a malformed file, 5 for a container that is
    not read, 2 if there is nothing at `source`.

    >>> found = porter.inspect("gemma-2b/")
    >>> found.family, found.dialect, len(found.tensors)
    ('gemma', 'hf', 29)
    """
    opened = open_source(
        source,
        maps=maps,
        config=config,
        dialect=source_dialect,
        remote="headers",
        key=key,
        family=family,
    )
    if isinstance(opened.reason, UsageError):
        raise opened.reason
    with reading(opened.source):
        found = describe(opened.source, opened.checkpoint, opened.identity, opened.reason, filter)
    if opened.identity is None:
        return found
    known = known_mistakes(tuple(path for path in as_paths(maps, "maps") if path.is_dir()))
    return replace(found, notes=(*found.notes, *departures(opened.identity, known)))


def inspect_as(
    source: str | Path | Source | None,
    dialect: str,
    *,
    filter: str | None = None,
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    source_dialect: str | None = None,
    key: str | None = None,
    family: str | None = None,
) -> Plan:
    """A checkpoint's tensors under their names and shapes in another dialect: a plan of weights alone.

    Quantised tensors are shown as float32. `filter` is a shell pattern on the other dialect's names.
    """
    opened = open_source(
        source,
        maps=maps,
        config=config,
        dialect=source_dialect,
        remote="headers",
        key=key,
        family=family,
    )
    identity = opened.identified()
    quantised = any(tensor.dtype.quantised for tensor in opened.checkpoint.tensors.values())
    options = PlanOptions(dtype="float32" if quantised else "keep", weights_only=True)
    with reading(opened.source):
        plan = build_plan(
            opened.checkpoint, identity, identity.family.dialect(dialect, to_write=True), options
        )
    if filter is None:
        return plan
    files = tuple(
        replace(file, tensors=tuple(t for t in file.tensors if fnmatchcase(t.name, filter)))
        for file in plan.files
    )
    return replace(plan, files=files)
