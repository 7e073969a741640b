"""The source's half of the proof: every tensor is used or knowingly dropped, and nothing is missing.

Names, shapes and dtypes are compared with what the table says for these hyperparameters. All tensors at
fault are listed, not only the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import compress

from porter.containers.base import StoredTensor
from porter.containers.checkpoint import Checkpoint
from porter.containers.orbax import orbax_tree
from porter.containers.storage_kinds import ADAPTERS, find_kind, whole_numbers
from porter.dtypes import SCALED_I8
from porter.errors import MalformedError, UnsupportedError
from porter.recognition.identify import Identity
from porter.recognition.stored_names import NameMatcher
from porter.tables.bind import Block, BoundRule
from porter.wording import flag, option

# A broken checkpoint may miss thousands of tensors; a person reads the first few.
_LISTED = 12


@dataclass(frozen=True)
class Covered:
    """The source tensors by the table's names, those left aside, and where each canonical tensor lies.

    `beyond` are tensors of parts that the family has no words for, left out because that was asked for;
    `state` is a trainer's own, and `passed_over` what the framework does not load either: both are left out
    unasked and said. `held` are the rules with those of their tensors that are there. `idle` are those that
    nothing computes with, where a comparison leaves them aside.
    """

    tensors: Mapping[str, StoredTensor]
    ignored: tuple[str, ...]
    dropped: tuple[str, ...]
    beyond: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    held: tuple[BoundRule, ...] = ()
    idle: tuple[str, ...] = ()


def cover(
    checkpoint: Checkpoint,
    identity: Identity,
    bound: Sequence[BoundRule],
    *,
    ties: Mapping[str, str],
    allow_unmapped: Sequence[str] = (),
    text_only: bool = False,
) -> Covered:
    """Match a checkpoint against its bound table. Of tensors that are tied (`ties`), either may be missing.

    With `text_only` tensors of parts beyond the language model are left out; without, they are an error.
    """
    expected: dict[str, BoundRule] = {}
    for rule in bound:
        expected.update(dict.fromkeys(rule.names, rule))
    scaled_rules = [rule for rule in bound if rule.rule.scale_by is not None]
    factors = {t.scales: t.name for rule in scaled_rules for t in rule.tensors() if t.scales is not None}
    present: dict[str, StoredTensor] = {}
    scales: dict[str, StoredTensor] = {}
    ignored, dropped, unmapped, beyond, state, passed_over, idle = [], [], [], [], [], [], []
    matcher = NameMatcher(identity.dialect, identity.wrapper)
    spellings = identity.names
    counted = checkpoint.container == "gguf"
    for name, tensor in checkpoint.tensors.items():
        spelled = spellings.get(name)
        if spelled in expected:
            present[spelled] = as_counted(tensor, expected[spelled].shape) if counted else tensor
        elif spelled in factors:
            scales[factors[spelled]] = tensor
        elif spelled in identity.idle:
            idle.append(name)
        elif any(fnmatchcase(matcher.bare(name), glob) for glob in identity.dialect.beyond):
            beyond.append(name)
        elif matcher.ignored(name):
            ignored.append(name)
        elif checkpoint.container == orbax_tree.CONTAINER and orbax_tree.is_state(tensor):
            state.append(name)
        elif any(fnmatchcase(name, glob) for glob in allow_unmapped):
            dropped.append(name)
        elif any(fnmatchcase(matcher.bare(name), glob) for glob in identity.dialect.passed_over):
            passed_over.append(name)
        else:
            unmapped.append(name)
    if beyond and not text_only:
        raise _not_text(beyond, identity)
    _check_unmapped(unmapped, identity)
    _check_floats(present, expected, checkpoint)
    _check_factors(present, dropped, checkpoint)
    if len(present) < len(expected):
        _check_missing(_missing(present, expected, ties), expected, checkpoint)
    held = _held(bound, present)
    _check_shapes(present, expected, held)
    bare = [
        f"{present[name].name} (expected {factor})"
        for factor, name in factors.items()
        if name in present and present[name].dtype.name == "I8" and name not in scales
    ]
    if bare:
        raise MalformedError(
            f"{count(len(bare), 'tensor')} of whole numbers without the factors of their rows",
            cause=listed(bare),
            hint="is the checkpoint complete?",
        )
    whole = {**present, **{name: scale_rows(present.get(name), tensor) for name, tensor in scales.items()}}
    return Covered(
        whole,
        tuple(ignored),
        tuple(dropped),
        tuple(beyond),
        tuple(state),
        tuple(passed_over),
        held,
        tuple(idle),
    )


def as_counted(tensor: StoredTensor, shape: tuple[int, ...]) -> StoredTensor:
    """ggml has four dims in every tensor: how many of those that are 1 are counted says nothing."""
    same = _without_ones(tensor.shape) == _without_ones(shape)
    return tensor._replace(shape=shape) if same else tensor


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The dims from the outermost on that is not 1."""
    first = next((at for at, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def _check_factors(present: Mapping[str, StoredTensor], dropped: list[str], checkpoint: Checkpoint) -> None:
    """Eight-bit floats are their weights only together with the factors that were stored beside them, and a
    model with an adapter is its weights together with it."""
    kind = find_kind(dropped)
    if kind in ADAPTERS:
        raise UnsupportedError(
            f"the tensors of {checkpoint.label} that were to be dropped are {kind.what}",
            cause=f"without them the model computes something else: {listed(dropped)}",
            hint=kind.hint,
        )
    scaled = [tensor.name for tensor in present.values() if tensor.dtype.name.startswith("F8")]
    if kind is not None and scaled:
        raise UnsupportedError(
            f"{count(len(scaled), 'weight')} of {checkpoint.label} in FP8, whose factors were to be dropped",
            cause=f"{listed(dropped)} beside {listed(scaled)}",
            hint=kind.hint,
        )


def _check_floats(
    present: Mapping[str, StoredTensor], expected: Mapping[str, BoundRule], checkpoint: Checkpoint
) -> None:
    """A weight is a float, or quantised in a way that says so; whole numbers alone mean nothing."""
    wrong = [
        f"{tensor.name} is {tensor.dtype.name}"
        for name, tensor in present.items()
        if tensor.dtype.kind not in ("float", "quantised")
        and not (expected[name].rule.scale_by is not None and tensor.dtype.name == "I8")
    ]
    if wrong:
        kind = whole_numbers(checkpoint.tensors)
        raise UnsupportedError(
            f"{count(len(wrong), 'weight')} of {checkpoint.label} in whole numbers; they look {kind.what}",
            cause=listed(wrong),
            hint=kind.hint,
        )


def scale_rows(tensor: StoredTensor | None, scales: StoredTensor) -> StoredTensor:
    """A tensor of whole numbers together with the factors of its rows."""
    if tensor is None or tensor.dtype.name != "I8":
        found = "there is none" if tensor is None else f"{tensor.name} is {tensor.dtype.name}"
        raise MalformedError(f"{scales.name} has no whole numbers to scale", cause=found)
    if tensor.strides is not None or scales.strides is not None:
        raise UnsupportedError(
            f"{tensor.name} is quantised and a strided view", hint="save it again after .contiguous()"
        )
    if scales.shape != tensor.shape[:1] or scales.dtype.kind != "float":
        raise MalformedError(
            f"{scales.name} cannot scale the rows of {tensor.name}",
            cause=f"expected {tensor.shape[0]} floats, found {list(scales.shape)} of {scales.dtype.name}",
        )
    return tensor._replace(dtype=SCALED_I8, scales=scales.name)


def parts(names: Iterable[str]) -> str:
    """What tensors of a larger model are parts of: `vision_tower (5 tensors)`."""
    found: dict[str, int] = {}
    for name in names:
        words = name.replace("/", ".").split(".")
        part = next((word for word in words if word not in ("model", "params", "transformer")), name)
        found[part] = found.get(part, 0) + 1
    return ", ".join(f"{part} ({count(number, 'tensor')})" for part, number in found.items())


def _not_text(beyond: list[str], identity: Identity) -> UnsupportedError:
    return UnsupportedError(
        f"{count(len(beyond), 'tensor')} of the source belong to no language model",
        cause=f"{parts(beyond)} cannot be ported; {identity.family.name} is the language model alone",
        hint=f"take the language model out with {flag('text-only')}",
    )


def _check_unmapped(unmapped: list[str], identity: Identity) -> None:
    if not unmapped:
        return
    if kind := find_kind(unmapped):
        raise UnsupportedError(
            f"these weights are {kind.what}", cause=f"found {listed(unmapped)}", hint=kind.hint
        )
    beyond = [name for name in unmapped if name in identity.names]
    cause = listed(unmapped)
    if beyond:
        layers = identity.hyperparameters.get("n_layer")
        cause += f"\n{beyond[0]!r} has the right form, but the config says otherwise"
        cause += f" (n_layer = {layers})" if layers is not None else ""
    raise UnsupportedError(
        f"{count(len(unmapped), 'tensor')} of the source {'is' if len(unmapped) == 1 else 'are'} not mapped "
        f"by {identity.family.name}/{identity.dialect.name}",
        cause=cause,
        hint=_way_out(unmapped, beyond, identity),
    )


def _way_out(unmapped: Sequence[str], beyond: Sequence[str], identity: Identity) -> str:
    """What to do about tensors without a rule; to drop them only where no more is known of them."""
    if beyond:
        return "is the config the one that belongs to these weights?"
    if any(_within(name, identity.names) for name in unmapped):
        return (
            "they belong to modules that the model computes with; is it of another family? A table of your "
            f"own can say where they go: {option('map', 'FILE.toml')}"
        )
    return (
        f"drop them knowingly with {option('allow-unmapped', 'GLOB')}, or map them with "
        f"{option('map', 'FILE.toml')}"
    )


def _within(name: str, known: Iterable[str]) -> bool:
    """Whether a tensor is of a module, or of a layer, that others are known of: then it is no extra."""
    parts = name.replace("/", ".").split(".")
    depth = next((at + 1 for at, part in enumerate(parts[:-1]) if part.isdecimal()), len(parts) - 1)
    start = ".".join(parts[:depth]) + "."
    return depth > 0 and any(other.replace("/", ".").startswith(start) for other in known)


def _held(bound: Iterable[BoundRule], present: Mapping[str, StoredTensor]) -> tuple[BoundRule, ...]:
    if len(present) == sum(len(rule.names) for rule in bound):
        return tuple(bound)
    held = []
    for rule in bound:
        there = [name in present for name in rule.names]
        if all(there):
            held.append(rule)
        elif any(there):
            points, names = tuple(compress(rule.points, there)), tuple(compress(rule.names, there))
            held.append(rule._replace(points=points, names=names))
    return tuple(held)


def _missing(
    present: Mapping[str, StoredTensor], expected: Mapping[str, BoundRule], ties: Mapping[str, str]
) -> set[str]:
    """What is not there and is tied to nothing that is. Of a pair, the one that owns the weight is missed."""
    held = {block.canonical for name in present for block in expected[name].blocks}
    free = {other for name, other in ties.items() if name in held} | ties.keys()
    absent = expected.keys() - present.keys()
    return {name for name in absent if not all(block.canonical in free for block in expected[name].blocks)}


def _check_missing(missing: set[str], expected: Mapping[str, BoundRule], checkpoint: Checkpoint) -> None:
    if not missing:
        return
    ordered = [name for name in expected if name in missing]
    raise MalformedError(
        f"{count(len(missing), 'tensor')} missing from {checkpoint.label}",
        cause=listed(
            f"{name} {list(expected[name].shape)} ({expected[name].rule.where})" for name in ordered
        ),
        hint="; ".join((*checkpoint.remarks, "is the checkpoint complete, and is its config the right one?")),
    )


def _check_shapes(
    present: Mapping[str, StoredTensor], expected: Mapping[str, BoundRule], held: Sequence[BoundRule]
) -> None:
    if all({present[name].shape for name in rule.names} <= {rule.shape} for rule in held):
        return
    empty = [t.name for name, t in present.items() if 0 in t.shape and 0 not in expected[name].shape]
    if empty:
        raise MalformedError(
            f"{count(len(empty), 'tensor')} without elements, as ZeRO-3 leaves them on each rank",
            cause=listed(empty),
            hint="gather the weights, in the directory that DeepSpeed saved: `python zero_to_fp32.py . OUT`; "
            "or train with stage3_gather_16bit_weights_on_model_save",
        )
    wrong = [
        f"{tensor.name} in {tensor.file}: expected {list(expected[name].shape)}, found {list(tensor.shape)} "
        f"(layout {expected[name].rule.layout}, {expected[name].rule.where})"
        for name, tensor in present.items()
        if tensor.shape != expected[name].shape
    ]
    if wrong:
        raise MalformedError(
            f"{count(len(wrong), 'tensor')} with a wrong shape",
            cause=listed(wrong),
            hint="is the config the one that belongs to these weights?",
        )


# Stored names and the blocks in them, by the values of the variables that the names hold.
Entries = Mapping[tuple[int, ...], tuple[str, Block]]


class BlockIndex:
    """Where each canonical tensor lies: looked up by its name and the variables that are held fixed."""

    def __init__(self, bound: Iterable[BoundRule]) -> None:
        self._held: dict[str, dict[tuple[str, ...], list[tuple[BoundRule, Block]]]] = {}
        self._entries: dict[tuple[str, tuple[str, ...]], Entries] = {}
        for rule in bound:
            for block in rule.blocks:
                groups = self._held.setdefault(block.canonical, {})
                groups.setdefault(rule.variables, []).append((rule, block))

    def __iter__(self) -> Iterator[str]:
        """The canonical tensors, by their patterns."""
        return iter(self._held)

    def variables(self, canonical: str) -> list[tuple[str, ...]]:
        """The sets of variables that stored names of this canonical tensor hold."""
        return list(self._held.get(canonical, ()))

    def rules(self, canonical: str, variables: tuple[str, ...]) -> list[tuple[BoundRule, Block]]:
        """The rules whose names hold these variables, each with its block for the canonical tensor."""
        return self._held[canonical][variables]

    def entries(self, canonical: str, variables: tuple[str, ...]) -> Entries:
        """The stored names and blocks that hold these variables, by their values."""
        key = canonical, variables
        if key not in self._entries:
            self._entries[key] = {
                point: (name, block)
                for rule, block in self._held[canonical][variables]
                for point, name in zip(rule.points, rule.names, strict=True)
            }
        return self._entries[key]


def listed(lines: Iterable[str]) -> str:
    """Lines for a `cause`, the first dozen and how many more."""
    every = list(lines)
    shown = every[:_LISTED]
    if len(every) > len(shown):
        shown.append(f"… and {len(every) - len(shown)} more")
    return "\n".join(shown)


def count(number: int, noun: str) -> str:
    """`1 tensor`, `2 tensors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
