"""One digest of a model's canonical content, the same in every dialect, container and sharding.

What is hashed, and how, is written down in docs/fingerprint.md, from which others can compute it. VERSION and
the order of the canonical axes stand in the fingerprint: it changes only together with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from porter.containers.array_files import overlaid
from porter.containers.base import StoredTensor
from porter.containers.checkpoint import Checkpoint
from porter.dtypes import dtype_word
from porter.errors import PorterError, UnsupportedError
from porter.execution.executor import execute
from porter.execution.run_options import RunOptions
from porter.execution.sinks.digest import DigestSink, Hash
from porter.execution.watch import Watch
from porter.facts import Facts
from porter.planning.canonical_plan import axes_of, plan_canonical
from porter.planning.plan import Plan
from porter.planning.plan_options import PlanOptions
from porter.recognition.identify import Identity
from porter.recognition.idle_weights import as_computed
from porter.wording import flag, option

VERSION = 1

# Bytes of memory for all buffers, beside the units of two threads.
MEMORY = 64 << 20

# Bytes of a tensor that are put in order at once.
UNIT = 16 << 20


@dataclass(frozen=True)
class TensorDigest:
    """A canonical tensor: its axes with their sizes, outermost first, its dtype in torch's words."""

    name: str
    axes: Mapping[str, int]
    dtype: str
    digest: str


@dataclass(frozen=True, repr=False)
class Fingerprint(Facts):
    """`fingerprint` names the whole: `porter1:` and 64 hex digits. `tensors` are sorted by name.

    `dtype_agnostic` says that every value was widened to float32 first, exactly.
    """

    fingerprint: str
    family: str
    dialect: str
    dtype_agnostic: bool
    tensors: tuple[TensorDigest, ...]

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("model", f"{self.family} ({self.dialect})"),
            ("fingerprint", self.fingerprint),
            ("tensors", f"{len(self.tensors):,}{', as float32' if self.dtype_agnostic else ''}"),
        ]


def fingerprint_of(
    checkpoint: Checkpoint,
    identity: Identity,
    options: PlanOptions | None = None,
    *,
    dtype_agnostic: bool = False,
    watch: Watch | None = None,
) -> Fingerprint:
    """The fingerprint of an opened checkpoint; of `options`, `text_only` and `allow_unmapped` count.

    Raises PorterError and its kinds as a conversion does: for a checkpoint that is not what its family's
    table says, for tied weights that differ, and, unless `dtype_agnostic`, for quantised weights.
    """
    identity = as_computed(identity)
    chosen = options or PlanOptions()
    wanted = PlanOptions(
        dtype="float32" if dtype_agnostic else "keep",
        text_only=chosen.text_only,
        allow_unmapped=chosen.allow_unmapped,
    )
    try:
        plan = plan_canonical(checkpoint, identity, wanted)
    except UnsupportedError as error:
        if error.hint and option("dtype") in error.hint:
            error.hint = f"{flag('dtype-agnostic')} takes the digest of the values, in float32"
        raise
    if dtype_agnostic:
        _check_widened(plan)
    axes = axes_of(plan, identity.family.canonical)
    source = checkpoint.source
    if source is None:
        raise PorterError(f"only the headers of {checkpoint.label} were opened")
    sink = DigestSink(blake3_of, lambda tensor: header(tensor, axes[tensor.name]))
    sink.unit_bytes = UNIT
    with overlaid(source, plan.sources) as whole:
        execute(plan, whole, sink, RunOptions(max_memory=MEMORY), watch)
    tensors = tuple(
        TensorDigest(tensor.name, axes[tensor.name], dtype_word(tensor.dtype), sink.digests[tensor.name])
        for tensor in sorted(plan.targets(), key=lambda tensor: tensor.name)
    )
    return Fingerprint(
        fingerprint=combined(tensors),
        family=identity.family.name,
        dialect=identity.dialect.name,
        dtype_agnostic=dtype_agnostic,
        tensors=tensors,
    )


def header(tensor: StoredTensor, axes: Mapping[str, int]) -> bytes:
    """What is hashed before a tensor's pieces."""
    sizes = " ".join(f"{axis}={size}" for axis, size in axes.items())
    return f"porter tensor {VERSION}\n{tensor.name}\n{sizes}\n{dtype_word(tensor.dtype)}\n".encode()


def combined(tensors: tuple[TensorDigest, ...]) -> str:
    """The fingerprint of tensors that are sorted by name."""
    lines = "".join(f"{tensor.digest} {tensor.name}\n" for tensor in tensors)
    digest = blake3_of(f"porter model {VERSION}\n{lines}".encode()).digest().hex()
    return f"porter{VERSION}:{digest}"


def blake3_of(data: bytes | bytearray | memoryview) -> Hash:
    from blake3 import blake3

    return blake3(data)


def _check_widened(plan: Plan) -> None:
    wide = [tensor.name for tensor in plan.sources if tensor.dtype.name == "F64"]
    if wide:
        raise UnsupportedError(
            f"{wide[0]} is float64, which float32 does not hold exactly",
            hint=f"leave out {flag('dtype-agnostic')}",
        )
