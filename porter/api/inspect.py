"""`porter.inspect`: what a checkpoint holds, from its headers and config alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from porter.api.opening import open_source
from porter.containers.base import StoredTensor
from porter.errors import PorterError
from porter.planning.identify import Identity


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: `shape` in elements, outermost first; `nbytes` in bytes; `file` within the checkpoint."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    parameters: int
    file: str


@dataclass(frozen=True)
class DtypeShare:
    """What the tensors of one dtype add up to."""

    dtype: str
    tensors: int
    parameters: int
    nbytes: int


@dataclass(frozen=True)
class Inspection:
    """A checkpoint as it is. `family` and `dialect` are None where no table fits; `reason` says why.

    `ties` maps a weight that is not stored (or stored twice) to the one that it is tied to.
    """

    source: str
    label: str
    container: str
    files: Mapping[str, int]
    family: str | None
    dialect: str | None
    reason: str | None
    tensors: tuple[TensorInfo, ...]
    parameters: int
    nbytes: int
    dtypes: tuple[DtypeShare, ...]
    ties: Mapping[str, str]
    hyperparameters: Mapping[str, Any]
    stored: tuple[StoredTensor, ...] = field(repr=False, compare=False, default=())


def inspect(
    source: str | Path | None = None,
    *,
    filter: str | None = None,
    maps: Sequence[Path] = (),
    config: Path | None = None,
) -> Inspection:
    """Look at a checkpoint: a directory, a `.safetensors` or a `.gguf` file.

    `filter` is a shell pattern that tensor names must match. No weight is read. Raises PorterError: 6 for
    a malformed file, 5 for a container that is not read, 2 if there is nothing at `source`.
    """
    opened = open_source(source, maps=maps, config=config)
    checkpoint, identity = opened.checkpoint, opened.identity
    stored = [
        tensor for tensor in checkpoint.tensors.values() if filter is None or fnmatchcase(tensor.name, filter)
    ]
    return Inspection(
        source=opened.source,
        label=checkpoint.label,
        container=checkpoint.container,
        files=checkpoint.sizes,
        family=identity.family.name if identity else None,
        dialect=identity.dialect.name if identity else None,
        reason=opened.reason.message if isinstance(opened.reason, PorterError) else None,
        tensors=tuple(
            TensorInfo(t.name, t.shape, t.dtype.name, t.nbytes, t.elements, t.file) for t in stored
        ),
        parameters=sum(tensor.elements for tensor in stored),
        nbytes=sum(tensor.nbytes for tensor in stored),
        dtypes=_shares(stored),
        ties=_ties(identity, checkpoint.tensors) if identity else {},
        hyperparameters=identity.hyperparameters if identity else {},
        stored=tuple(stored),
    )


def _shares(tensors: Sequence[StoredTensor]) -> tuple[DtypeShare, ...]:
    groups: dict[str, list[StoredTensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype.name, []).append(tensor)
    shares = [
        DtypeShare(name, len(group), sum(t.elements for t in group), sum(t.nbytes for t in group))
        for name, group in groups.items()
    ]
    return tuple(sorted(shares, key=lambda share: -share.nbytes))


def _ties(identity: Identity, stored: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Stored names of tied weights, where the config says that the tie holds."""
    if not identity.hyperparameters.get("tie_embeddings"):
        return {}
    makers = {name: rule.theirs.text for rule in identity.dialect.rules for name in rule.ours}
    return {
        makers[name]: makers[tensor.tied]
        for name, tensor in identity.family.canonical.tensors.items()
        if tensor.tied is not None and name in makers
    }
