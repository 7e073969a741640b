"""`build_plan`: the whole proof and the plan, from a checkpoint's headers, its identity and a target dialect.

Nothing is read but headers and configs. When this returns, every source tensor is used or knowingly
dropped, every target name, shape and dtype is produced exactly once, and the config has been shown to
say the same in the target's words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from porter.containers.base import StoredTensor
from porter.containers.checkpoint import Checkpoint
from porter.containers.torch import torch_zip
from porter.dtypes import Dtype
from porter.errors import UnsupportedError
from porter.planning.coverage import BlockIndex, cover
from porter.planning.outputs import place_tensors, side_files
from porter.planning.plan import Check, Copies, CopyGroup, Plan, SideFile, Zeros, checked
from porter.planning.plan_options import PlanOptions
from porter.planning.proof import check_carried_once, check_filled, left_out
from porter.planning.sharing import residues
from porter.planning.summary import plan_notes, summarise
from porter.planning.ties import join_source, only_ties, shared_storage, tie_checks, ties_in_force, untie
from porter.recognition.identify import Identity
from porter.recognition.idle_weights import as_carried
from porter.tables.bind import BoundRule, Sizes, bind_rules
from porter.tables.model import Canonical, Dialect
from porter.wording import option


def build_plan(
    checkpoint: Checkpoint, identity: Identity, target: Dialect, options: PlanOptions | None = None
) -> Plan:
    """Prove and plan a conversion. Raises PorterError with the exit code of what is wrong."""
    options = options or PlanOptions()
    canonical = identity.family.canonical
    if not target.written:
        raise UnsupportedError(
            f"porter reads {target.title} and does not write it",
            hint=f"convert to {' or '.join(identity.family.written)}",
        )
    identity = as_carried(identity, target)
    source_bound = bind_rules(identity.dialect, canonical, identity.hyperparameters)
    ties = ties_in_force(canonical, identity.hyperparameters)
    covered = cover(
        checkpoint,
        identity,
        source_bound,
        ties=ties,
        allow_unmapped=options.allow_unmapped,
        text_only=options.text_only,
    )
    hyperparameters, untied = untie(identity.hyperparameters, target, ties, options)
    target_ties = {} if untied else ties
    target_bound, omitted = _target_tensors(target, canonical, hyperparameters, target_ties, options)
    join = join_source(covered, Sizes(canonical, hyperparameters), ties, keep_own=untied)

    tensors: dict[str, tuple[Dtype, tuple[int, ...]]] = {}
    groups: list[CopyGroup] = []
    for bound in target_bound:
        for group, dtype in join.copies(bound, partial(_dtype, options)):
            check_filled(bound, group)
            tensors.update(dict.fromkeys(group.targets, (dtype, bound.shape)))
            groups.append(group)
    checks = [] if untied else tie_checks(join, covered.held, identity.dialect, target)

    torch = options.container == "pth" or target.files.container == torch_zip.CONTAINER
    tied = {name for bound in target_bound if only_ties(bound, target_ties) for name in bound.names}
    shared = shared_storage(Copies(tuple(groups)), tied) if torch else {}
    copies = Copies(tuple(group for group in groups if group.targets[0] not in shared))
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
    check_carried_once(join.index, BlockIndex(target_bound), join.alias, join.sizes, target)
    zero_checks, loose = left_out(covered, options)
    every: tuple[Check, ...] = (*checks, *zero_checks)
    used = {name for check in every for name in checked(check)}
    used.update(*(part.sources for group in copies.groups for part in group.parts))
    scaled = {tensor.name: tensor for tensor in covered.tensors.values() if tensor.scales}
    used |= {tensor.scales for name, tensor in scaled.items() if tensor.scales and name in used}
    rules: dict[str, str] = {}
    layouts: dict[str, str] = {}
    for bound in target_bound:
        rules.update(dict.fromkeys(bound.names, str(bound.rule.where)))
        layouts.update(dict.fromkeys(bound.names, str(bound.rule.layout)))
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
            scaled.get(name, tensor) for name, tensor in checkpoint.tensors.items() if name in used
        ),
        source_sizes=checkpoint.sizes,
        files=files,
        copies=copies,
        checks=every,
        side_files=(*index, *sides),
        summary=summarise(
            checkpoint,
            covered,
            copies,
            len(tensors),
            tied,
            any(only_ties(bound, target_ties) for bound in covered.held),
            sum(len(bound.names) for bound in omitted),
        ),
        notes=(*identity.notes, *plan_notes(identity, target, copies, covered), *loose, *notes),
        rules=rules,
        layouts=layouts,
        zeros=tuple(
            Zeros(name, filler.offset, filler.loops, str(bound.rule.where))
            for bound in target_bound
            for name in bound.names
            for filler in bound.fillers
        ),
    )


def _target_tensors(
    target: Dialect,
    canonical: Canonical,
    hyperparameters: Mapping[str, Any],
    ties: Mapping[str, str],
    options: PlanOptions,
) -> tuple[list[BoundRule], list[BoundRule]]:
    kept, omitted = [], []
    for tensor in bind_rules(target, canonical, hyperparameters):
        if only_ties(tensor, ties) and (options.tied or tensor.rule.when_tied) == "omit":
            omitted.append(tensor)
        else:
            kept.append(tensor)
    return kept, omitted


def _dtype(options: PlanOptions, name: str, sources: Sequence[StoredTensor]) -> Dtype:
    if options.kept_dtype is None and len(sources) == 1 and not sources[0].dtype.quantised:
        return sources[0].dtype
    dtypes = sorted({tensor.dtype.name: tensor.dtype for tensor in sources}.values(), key=lambda d: d.name)
    if options.kept_dtype is not None and all(dtype.kind in ("float", "quantised") for dtype in dtypes):
        return options.kept_dtype
    quantised = next((tensor for tensor in sources if tensor.dtype.quantised), None)
    if quantised is not None:
        raise UnsupportedError(
            f"{quantised.name} is quantised ({quantised.dtype.name}) and cannot be kept as it is",
            cause=f"the target tensor {name} holds plain numbers",
            hint=f"dequantise with {option('dtype', 'float32')} (exact) or {option('dtype', 'bfloat16')} "
            "(half the size, rounded)",
        )
    if len(dtypes) > 1:
        raise UnsupportedError(
            f"{name} would be made of tensors of several dtypes",
            cause=", ".join(f"{tensor.name} is {tensor.dtype.name}" for tensor in sources),
            hint=f"choose one with {option('dtype', 'bfloat16', 'float16', 'float32')}",
        )
    return dtypes[0]
