"""`build_plan`: the whole proof and the plan, from a checkpoint's headers, its identity and a target dialect.

Nothing is read but headers and configs. When this returns, every source tensor is used or knowingly
dropped, every target name, shape and dtype is produced exactly once, and the config has been shown to
say the same in the target's words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from porter.containers import torch_zip
from porter.containers.base import StoredTensor
from porter.containers.checkpoint import Checkpoint
from porter.dtypes import Dtype
from porter.errors import DifferenceError, UnsupportedError, UsageError
from porter.layout import elements
from porter.planning.coverage import BlockIndex, Covered, cover, parts
from porter.planning.identify import Identity
from porter.planning.join import Join
from porter.planning.outputs import place_tensors, side_files
from porter.planning.plan import COMPUTE, Copy, EqualCheck, Padding, Plan, SideFile, Summary
from porter.planning.sharing import residues
from porter.tables.bind import BoundTensor, Sizes, bind_dialect
from porter.tables.model import Canonical, Dialect


@dataclass(frozen=True)
class Options:
    """What a user may choose. `dtype` None keeps; `tied` None is what the target's table says.

    `container` is pth or None (as the target's table says). With `weights_only` the plan has no side files:
    no config and no tokenizer is ported.
    """

    dtype: Dtype | None = None
    tied: str | None = None
    max_shard_size: str | int | None = None
    allow_unmapped: tuple[str, ...] = ()
    weights_only: bool = False
    container: str | None = None
    text_only: bool = False


def build_plan(
    checkpoint: Checkpoint, identity: Identity, target: Dialect, options: Options | None = None
) -> Plan:
    """Prove and plan a conversion. Raises PorterError with the exit code of what is wrong."""
    options = options or Options()
    canonical = identity.family.canonical
    if not target.files.writable or target.files.weights is None:
        raise UnsupportedError(
            f"porter reads {target.title} and does not write it",
            hint="convert to hf or litgpt",
        )
    source_bound = bind_dialect(identity.dialect, canonical, identity.hyperparameters)
    ties = _ties_in_force(canonical, identity.hyperparameters)
    covered = cover(
        checkpoint,
        identity,
        source_bound,
        optional=[tensor.name for tensor in source_bound if _only_ties(tensor, ties)],
        allow_unmapped=options.allow_unmapped,
        text_only=options.text_only,
    )
    hyperparameters, untied = _untie(identity.hyperparameters, target, ties, options)
    target_ties = {} if untied else ties
    target_bound, omitted = _target_tensors(target, canonical, hyperparameters, target_ties, options)
    join = _join(covered, Sizes(canonical, hyperparameters), ties, keep_own=untied)

    tensors: dict[str, tuple[Dtype, tuple[int, ...]]] = {}
    copies: list[Copy] = []
    for bound in target_bound:
        dtype, filling = join.copies(bound, partial(_dtype, bound.name, options))
        _check_filled(bound, filling)
        tensors[bound.name] = (dtype, bound.shape)
        copies.extend(filling)
    made = tuple(copies)
    checks = () if untied else _tie_checks(covered, source_bound, ties)

    torch = _writes_torch(options) or target.files.container == torch_zip.CONTAINER
    shared = _shared(target_bound, copies, target_ties) if torch else {}
    copies = [copy for copy in copies if copy.target not in shared]
    places = residues(copies, checkpoint.tensors)
    files, index = place_tensors(
        target, tensors, options.max_shard_size, torch=torch, ties=shared, residues=places
    )
    shapes = {name: shape for name, (_, shape) in tensors.items()}
    sides: tuple[SideFile, ...] = ()
    notes: tuple[str, ...] = ()
    if not options.weights_only:
        sides, notes = side_files(checkpoint, identity, target, hyperparameters, tensors, shapes)
    # After the config, whose error says more: a weight that has no place has a hyperparameter that has none.
    _check_used(covered, made, join.alias, target)
    cropped, loose = _cropped(covered, options)
    used = {copy.source for copy in copies} | {c.kept for c in checks} | {c.dropped for c in checks}
    used |= {part.tensor for part in cropped}
    stored = {tensor.name: tensor for tensor in covered.tensors.values()}
    used |= {str(tensor.scales) for name, tensor in stored.items() if name in used}
    return Plan(
        family=identity.family.name,
        source_dialect=identity.dialect.name,
        target_dialect=target.name,
        tables={
            "canonical": f"{canonical.family} version {canonical.version}",
            identity.dialect.name: f"sha256:{identity.dialect.digest}",
            target.name: f"sha256:{target.digest}",
        },
        hyperparameters=hyperparameters,
        sources=tuple(
            stored.get(name, tensor) for name, tensor in checkpoint.tensors.items() if name in used
        ),
        source_sizes=checkpoint.sizes,
        files=files,
        copies=tuple(copies),
        checks=checks,
        side_files=(*index, *sides),
        summary=_summary(checkpoint, covered, copies, tensors, target_ties, omitted, target_bound),
        notes=(*identity.notes, *_notes(identity, copies, covered), *loose, *notes),
        rules={bound.name: f"{bound.rule.where}" for bound in target_bound},
        layouts={bound.name: str(bound.rule.layout) for bound in target_bound},
        padding=tuple(Padding(bound.name, bound.padding) for bound in target_bound if bound.padding),
        cropped=cropped,
    )


def _cropped(covered: Covered, options: Options) -> tuple[tuple[Padding, ...], list[str]]:
    """Stored rows that belong to no weight: those that must be zeros, and notes on all of them.

    Rows that a table says may hold anything, and those of tensors that `--allow-unmapped` names, are left
    out without a look at them.
    """
    checked, notes = [], []
    for name, tensor in covered.tensors.items():
        padding = covered.bound[name].padding
        if not padding:
            continue
        rows = padding // (tensor.elements // tensor.shape[0])
        zero = covered.bound[name].rule.padding == "zero"
        zero = zero and not any(fnmatchcase(tensor.name, glob) for glob in options.allow_unmapped)
        if zero:
            checked.append(Padding(tensor.name, padding))
        how = "which are checked to be zeros" if zero else "whatever they hold"
        notes.append(f"{tensor.name}: its last {rows} of {tensor.shape[0]} rows are left out, {how}")
    return tuple(checked), notes


def _writes_torch(options: Options) -> bool:
    if options.container not in (None, "safetensors", "pth"):
        raise UsageError(f"unknown container {options.container!r}", hint="safetensors or pth")
    return options.container == "pth"


def _shared(bound: Sequence[BoundTensor], copies: Sequence[Copy], ties: Mapping[str, str]) -> dict[str, str]:
    """Tied target tensors that can share another's storage: the same copies make both."""
    made: dict[str, list[tuple[object, ...]]] = {}
    for copy in copies:
        key = (copy.source, copy.source_offset, copy.target_offset, copy.loops, copy.operations)
        made.setdefault(copy.target, []).append(key)
    owners = {tuple(made[t.name]): t.name for t in bound if not _only_ties(t, ties)}
    return {
        tensor.name: owners[tuple(made[tensor.name])]
        for tensor in bound
        if ties and _only_ties(tensor, ties) and tuple(made[tensor.name]) in owners
    }


def _ties_in_force(canonical: Canonical, hyperparameters: Mapping[str, Any]) -> dict[str, str]:
    if not hyperparameters.get("tie_embeddings"):
        return {}
    return {name: tensor.tied for name, tensor in canonical.tensors.items() if tensor.tied is not None}


def _only_ties(tensor: BoundTensor, ties: Mapping[str, str]) -> bool:
    return all(block.canonical in ties for block in tensor.blocks)


def _untie(
    hyperparameters: Mapping[str, Any], target: Dialect, ties: Mapping[str, str], options: Options
) -> tuple[dict[str, Any], bool]:
    """`--tied write` into a dialect that leaves tied tensors out makes the two independent."""
    found = dict(hyperparameters)
    if options.tied not in (None, "write", "omit"):
        raise UsageError(f"--tied must be write or omit, not {options.tied!r}")
    leaves_out = any(rule.when_tied == "omit" for rule in target.rules)
    if ties and options.tied == "write" and leaves_out:
        found["tie_embeddings"] = False
        return found, True
    if not ties and options.tied == "omit":
        raise UnsupportedError(
            "there is no tied tensor to leave out",
            cause="the source's config says that the head is not tied to the embedding",
        )
    return found, False


def _target_tensors(
    target: Dialect,
    canonical: Canonical,
    hyperparameters: Mapping[str, Any],
    ties: Mapping[str, str],
    options: Options,
) -> tuple[list[BoundTensor], list[BoundTensor]]:
    kept, omitted = [], []
    for tensor in bind_dialect(target, canonical, hyperparameters):
        tied = bool(ties) and _only_ties(tensor, ties)
        if tied and (options.tied or tensor.rule.when_tied) == "omit":
            omitted.append(tensor)
        else:
            kept.append(tensor)
    return kept, omitted


def _join(covered: Covered, sizes: Sizes, ties: Mapping[str, str], *, keep_own: bool) -> Join:
    """A tied tensor is read from what it is tied to; when untying, from its own copy where it has one."""
    present = [covered.bound[name] for name in covered.tensors]
    own = {block.canonical for tensor in present for block in tensor.blocks}
    alias = {name: other for name, other in ties.items() if not (keep_own and name in own)}
    return Join(
        index=BlockIndex(present),
        rules={tensor.name: tensor.rule for tensor in present},
        stored=covered.tensors,
        sizes=sizes,
        alias=alias,
    )


def _dtype(name: str, options: Options, sources: Sequence[StoredTensor]) -> Dtype:
    dtypes = sorted({tensor.dtype.name: tensor.dtype for tensor in sources}.values(), key=lambda d: d.name)
    if options.dtype is not None and all(dtype.kind in ("float", "quantised") for dtype in dtypes):
        return options.dtype
    quantised = next((tensor for tensor in sources if tensor.dtype.quantised), None)
    if quantised is not None:
        raise UnsupportedError(
            f"{quantised.name} is quantised ({quantised.dtype.name}) and cannot be kept as it is",
            cause=f"the target tensor {name} holds plain numbers",
            hint="dequantise with --dtype float32 (exact) or --dtype bfloat16 (half the size, rounded)",
        )
    if len(dtypes) > 1:
        raise UnsupportedError(
            f"{name} would be made of tensors of several dtypes",
            cause=", ".join(f"{tensor.name} is {tensor.dtype.name}" for tensor in sources),
            hint="choose one with --dtype bfloat16|float16|float32",
        )
    return dtypes[0]


def _check_filled(bound: BoundTensor, copies: Sequence[Copy]) -> None:
    """Blocks partition a tensor, so the copies fill it exactly when their elements add up to it."""
    moved = sum(elements(copy.loops) for copy in copies)
    wanted = StoredTensor(bound.name, _BYTE, bound.shape, "", 0).elements - bound.padding
    if moved != wanted:
        raise UnsupportedError(
            f"{bound.name} would not be filled exactly",
            cause=f"its sources hold {moved} elements, its shape {list(bound.shape)} has {wanted}",
        )


_BYTE = Dtype("U8", 1, 1, "int")


def _check_used(covered: Covered, copies: Sequence[Copy], alias: Mapping[str, str], target: Dialect) -> None:
    """Every element of every mapped source tensor goes to one place; ties go by what they are tied to."""
    moved = dict.fromkeys(covered.tensors, 0)
    by_stored_name = {tensor.name: name for name, tensor in covered.tensors.items()}
    for copy in copies:
        if copy.canonical not in alias:
            moved[by_stored_name[copy.source]] += elements(copy.loops)
    for name, tensor in covered.tensors.items():
        kept = not _only_ties(covered.bound[name], alias)
        if kept and moved[name] != tensor.elements - covered.bound[name].padding:
            raise UnsupportedError(
                f"{tensor.name} would not be carried over exactly once",
                cause=f"of its {tensor.elements} elements, {moved[name]} would be written as {target.title}",
                hint=f"the conditions (`when`) of {target.path.name} must hold once for each weight",
            )


def _tie_checks(
    covered: Covered, bound: Sequence[BoundTensor], ties: Mapping[str, str]
) -> tuple[EqualCheck, ...]:
    """Where both copies of a tie are stored, they must hold the same bytes before one may be dropped."""
    makers = {block.canonical: tensor.name for tensor in bound for block in tensor.blocks}
    checks = []
    for name, other in ties.items():
        # A table may store the tied tensor under a condition only.
        dropped, kept = makers.get(name, ""), makers.get(other, "")
        if dropped in covered.tensors and kept in covered.tensors:
            one, two = covered.tensors[kept], covered.tensors[dropped]
            if one.dtype != two.dtype:
                raise DifferenceError(
                    f"{two.name} is tied to {one.name}, but their dtypes differ",
                    cause=f"{one.name} is {one.dtype.name}, {two.name} is {two.dtype.name}",
                    hint="if the head was trained on its own, untie it: --to hf --tied write",
                )
            checks.append(EqualCheck(one.name, two.name, "tied embeddings"))
    return tuple(checks)


def _summary(
    checkpoint: Checkpoint,
    covered: Covered,
    copies: Sequence[Copy],
    tensors: Mapping[str, object],
    ties: Mapping[str, str],
    omitted: Sequence[BoundTensor],
    bound: Sequence[BoundTensor],
) -> Summary:
    by_target: dict[str, list[Copy]] = {}
    feeds: dict[str, set[str]] = {}
    for copy in copies:
        by_target.setdefault(copy.target, []).append(copy)
        feeds.setdefault(copy.source, set()).add(copy.target)
    tied = {tensor.name for tensor in bound if ties and _only_ties(tensor, ties)}
    fused = {name for name, made in by_target.items() if len({copy.source for copy in made}) > 1}
    whole = fused | tied
    split = {
        name
        for name, made in by_target.items()
        if name not in whole and len(feeds[made[0].source] - tied) > 1
    }
    stored_ties = [name for name in covered.tensors if ties and _only_ties(covered.bound[name], ties)]
    return Summary(
        source_tensors=len(checkpoint.tensors),
        target_tensors=len(tensors),
        renamed=len(set(by_target) - fused - split - tied),
        fused=len(fused),
        split=len(split),
        ties_written=len(tied),
        ties_dropped=len(omitted) if stored_ties else 0,
        dropped=len(covered.dropped) + len(covered.ignored) + len(covered.beyond),
        unmapped=len(covered.dropped),
    )


def _notes(identity: Identity, copies: Sequence[Copy], covered: Covered) -> list[str]:
    notes = []
    if identity.unknown_fields:
        notes.append(
            f"{identity.dialect.config.file}: unknown to porter and not ported: "
            + ", ".join(identity.unknown_fields)
        )
    if covered.beyond:
        notes.append(f"text only: left out are {parts(covered.beyond)}")
    if covered.dropped:
        notes.append(f"dropped on request: {', '.join(covered.dropped[:5])}")
    if any(operation.kind for copy in copies for operation in copy.operations):
        notes.append("the norms' +1, folded into the source's weights, is taken out again in float32")
    return notes


def with_notes(plan: Plan, notes: Sequence[str]) -> Plan:
    """The same plan with further notes."""
    return replace(plan, notes=(*plan.notes, *notes))


def grade(plan: Plan) -> str:
    """How faithful the conversion is: `exact`, `exact when checked`, or `lossy` (rounded, or operated on)."""
    wider = {("BF16", "F32"), ("F16", "F32"), ("BF16", "F64"), ("F16", "F64"), ("F32", "F64")}
    for copy in plan.copies:
        if copy.copy_class != COMPUTE:
            continue
        source = plan.source_by_name[copy.source].dtype
        target = plan.target_by_name[copy.target].dtype
        widened = (source.name, target.name) in wider or (source.quantised and target.name in ("F32", "F64"))
        if copy.operations or not (widened or source == target):
            return "lossy"
    return "exact when checked" if plan.checks or plan.cropped else "exact"
