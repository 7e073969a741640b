"""What a checkpoint is, as a value: tensors, totals, ties and memory, from headers and config alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from porter.containers.base import StoredTensor
from porter.containers.checkpoint import Checkpoint
from porter.errors import PorterError
from porter.facts import Facts
from porter.recognition.identify import Identity


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
class Memory:
    """Bytes that the weights take per dtype, and the bfloat16 KV cache per 1,000 tokens of one sequence.

    Tied weights count once. `sliding` is the share of the cache that stops growing at `window` tokens.
    4 and 8 bit count no scales.
    """

    weights: Mapping[str, int]
    kv_cache: int
    sliding: int
    window: int | None


@dataclass(frozen=True, repr=False)
class Inspection(Facts):
    """A checkpoint as it is. `family` and `dialect` are None where no table fits; `reason` says why, `hint`
    what to do. `notes` say what had to be assumed about it.

    `ties` maps a weight that is not stored (or stored twice) to the one that it is tied to. `stored_tensors`
    is how many there are, of which a filter may have chosen some.
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
    memory: Memory | None
    hyperparameters: Mapping[str, Any]
    stored: tuple[StoredTensor, ...] = field(repr=False, compare=False, default=())
    notes: tuple[str, ...] = ()
    hint: str | None = None
    stored_tensors: int = 0

    def _facts(self) -> list[tuple[str, str]]:
        chosen = "" if len(self.tensors) == self.stored_tensors else f" of {self.stored_tensors:,}"
        return [
            ("model", f"{self.label}, {self.family} ({self.dialect})" if self.family else self.label),
            ("tensors", f"{len(self.tensors):,}{chosen} tensors, {self.parameters:,} parameters"),
            ("dtypes", ", ".join(share.dtype for share in self.dtypes) or "none"),
            ("size", f"{self.nbytes:,} bytes in {len(self.files)} {self.container} files"),
            *((name, f"tied to {other}") for name, other in self.ties.items()),
            *([("reason", self.reason)] if self.reason else []),
            *(("note", text) for text in self.notes),
        ]

    def _rows(self) -> list[list[str]]:
        rows = [["Tensor", "Shape", "Dtype", "Params"]]
        return rows + [[t.name, str(list(t.shape)), t.dtype, f"{t.parameters:,}"] for t in self.tensors]


def describe(
    source: str,
    checkpoint: Checkpoint,
    identity: Identity | None,
    reason: PorterError | None,
    filter: str | None = None,
) -> Inspection:
    """Describe an opened checkpoint. `filter` is a shell pattern that tensor names must match.

    `reason` is the error that says why there is no identity.
    """
    stored = [
        tensor for tensor in checkpoint.tensors.values() if filter is None or fnmatchcase(tensor.name, filter)
    ]
    return Inspection(
        source=source,
        label=checkpoint.label,
        container=checkpoint.container,
        files=checkpoint.sizes,
        family=identity.family.name if identity else None,
        dialect=identity.dialect.name if identity else None,
        reason=reason.message if reason else None,
        tensors=tuple(
            TensorInfo(t.name, t.shape, t.dtype.name, t.nbytes, t.elements, t.file) for t in stored
        ),
        parameters=sum(tensor.elements for tensor in stored),
        nbytes=sum(tensor.nbytes for tensor in stored),
        dtypes=_shares(stored),
        ties={
            name: other
            for name, other in (_ties(identity) if identity else {}).items()
            if filter is None or fnmatchcase(name, filter)
        },
        memory=_memory(identity, list(checkpoint.tensors.values())) if identity else None,
        hyperparameters=identity.hyperparameters if identity else {},
        stored=tuple(stored),
        notes=(
            *(identity.notes if identity else checkpoint.remarks),
            *_fits_nothing(filter, stored, checkpoint),
        ),
        hint=reason.hint if reason else None,
        stored_tensors=len(checkpoint.tensors),
    )


def _fits_nothing(
    filter: str | None, stored: Sequence[StoredTensor], checkpoint: Checkpoint
) -> tuple[str, ...]:
    if filter is None or stored:
        return ()
    if not filter.strip():
        return ("an empty filter fits no tensor; '*' fits all",)
    inside = next((name for name in checkpoint.tensors if filter in name), None)
    hint = f"; '*{filter}*' fits {inside}" if inside else ""
    return (f"no tensor's whole name fits {filter!r}{hint}",)


def _shares(tensors: Sequence[StoredTensor]) -> tuple[DtypeShare, ...]:
    groups: dict[str, list[StoredTensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype.name, []).append(tensor)
    shares = [
        DtypeShare(name, len(group), sum(t.elements for t in group), sum(t.nbytes for t in group))
        for name, group in groups.items()
    ]
    return tuple(sorted(shares, key=lambda share: -share.nbytes))


def _ties(identity: Identity) -> dict[str, str]:
    """Stored names of tied weights, where the config says that the tie holds."""
    if not identity.hyperparameters.get("tie_embeddings"):
        return {}
    makers = {name: rule.theirs.text for rule in identity.dialect.rules for name in rule.weights}
    return {
        makers[name]: makers[tensor.tied]
        for name, tensor in identity.family.canonical.tensors.items()
        if tensor.tied is not None and name in makers
    }


# Bits per parameter, as people plan for them.
_BITS = {"float32": 32, "bfloat16": 16, "8 bit": 8, "4 bit": 4}

# k and v, in bfloat16.
_KV_BYTES = 2 * 2


def _memory(identity: Identity, tensors: Sequence[StoredTensor]) -> Memory:
    """From the config alone, and the number of parameters (a tied head that is stored twice counts once)."""
    values = identity.hyperparameters
    twice = set(_ties(identity))
    parameters = sum(t.elements for t in tensors if identity.names.get(t.name) not in twice)
    if values.get("attention_kind") == "latent":
        # What is kept is the narrow latent of k and v, and the part of k that all heads share.
        layer = _KV_BYTES // 2 * (values["kv_lora_rank"] + values["qk_rope_dim"]) * 1000
    else:
        layer = _KV_BYTES * values["n_kv_head"] * values["head_dim"] * 1000
    sliding = sum(values.get("sliding_layers") or []) if values.get("sliding_window") else 0
    return Memory(
        weights={name: parameters * bits // 8 for name, bits in _BITS.items()},
        kv_cache=layer * values["n_layer"],
        sliding=layer * sliding,
        window=values.get("sliding_window") if sliding else None,
    )
