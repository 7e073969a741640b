"""The plan of what a port of a checkpoint should hold, for comparison with the port that is there.

Names, shapes, dtypes and the order of tensors are the port's; what they should hold comes from the original
by the same tables and copies as a conversion. What cannot be compared is listed, and stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import compress

from porter.containers.base import OutputFile, StoredTensor
from porter.containers.checkpoint import Checkpoint
from porter.containers.orbax import orbax_tree
from porter.dtypes import DTYPES, Dtype
from porter.errors import PorterError
from porter.layout.copies import elements
from porter.planning.coverage import BlockIndex, Covered, as_counted, count, cover, parts, scale_rows
from porter.planning.join import Join
from porter.planning.plan import Copies, CopyGroup, Plan, Zeros
from porter.planning.proof import check_carried_once, check_filled
from porter.planning.summary import summarise
from porter.planning.ties import join_source, only_ties, ties_in_force
from porter.recognition.identify import Identity
from porter.recognition.idle_weights import idle_names
from porter.recognition.port_dialect import Port
from porter.recognition.stored_names import NameMatcher
from porter.tables.bind import BoundRule, Filler, Sizes, bind_rules
from porter.tables.model import UNUSED, ZEROS, Canonical
from porter.untrusted import quoted
from porter.wording import command

# The one file of the plan; its tensors follow one another in the order of the port's files.
FILE = "port"


@dataclass(frozen=True)
class Absent:
    """A tensor that a port should hold: its name and shape, and the canonical tensors that it is made of."""

    name: str
    shape: tuple[int, ...]
    holds: tuple[str, ...]


@dataclass(frozen=True)
class Misfit:
    """A tensor of a port that has another shape than it should, or is no tensor of floats.

    `name` is the port's, `table_name` the table's.
    """

    name: str
    table_name: str
    expected: tuple[int, ...]
    found: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class PortPlan:
    """`plan` makes what each tensor of the port should hold; its names are the table's.

    `there` are the port's own tensors by those names, `stored` what each is called in the port. `bound` are
    the rules with those tensors that can be compared, `expected` all, `join` what they are made from.
    `omitted` are tied tensors that the port leaves out and its dialect mostly does not, `lost` says what of
    the original has no place in the port's dialect, and `unused` which elements may hold anything.
    """

    plan: Plan
    join: Join
    covered: Covered
    bound: tuple[BoundRule, ...]
    expected: tuple[BoundRule, ...]
    sizes: Sizes
    there: Mapping[str, StoredTensor]
    stored: Mapping[str, str]
    missing: tuple[Absent, ...]
    extra: tuple[str, ...]
    misfits: tuple[Misfit, ...]
    omitted: tuple[str, ...]
    lost: str | None
    unused: Mapping[str, tuple[Filler, ...]]
    notes: tuple[str, ...]


def plan_port(
    original: Checkpoint,
    identity: Identity,
    out: Checkpoint,
    port: Port,
    allow_unmapped: Sequence[str] = (),
) -> PortPlan:
    """Plan what `out` should hold. Raises PorterError where the original itself cannot be read."""
    canonical = identity.family.canonical
    ties = ties_in_force(canonical, identity.hyperparameters)
    covered = cover(
        original,
        identity,
        bind_rules(identity.dialect, canonical, identity.hyperparameters),
        ties=ties,
        allow_unmapped=allow_unmapped,
        text_only=True,
    )
    sizes = Sizes(canonical, port.hyperparameters, port.dialect.axes)
    join = join_source(covered, Sizes(canonical, identity.hyperparameters), ties, keep_own=False)
    expected = bind_rules(port.dialect, canonical, port.hyperparameters)
    there, extra, beside = _of_the_port(out, port, canonical, expected)
    missing, misfits, omitted = [], [], []
    comparable: list[BoundRule] = []
    for rule in expected:
        fits = []
        for name in rule.names:
            tensor = there.get(name)
            fits.append(tensor is not None and tensor.shape == rule.shape and _numbers(tensor.dtype))
            if tensor is None and only_ties(rule, ties):
                omitted += [name] if rule.rule.when_tied == "write" else []
            elif tensor is None:
                missing.append(Absent(name, rule.shape, tuple(block.canonical for block in rule.blocks)))
            elif not fits[-1]:
                misfits.append(Misfit(tensor.name, name, rule.shape, tensor.shape, tensor.dtype.name))
        comparable.extend(_by_dtype(rule, fits, there))
    groups: list[CopyGroup] = []
    for rule in comparable:
        for group, _ in join.copies(rule, lambda name, sources: compared_dtype(there[name])):
            check_filled(rule, group)
            groups.append(group)
    held = {name: there[name] for rule in comparable for name in rule.names}
    copies = Copies(tuple(groups))
    return PortPlan(
        plan=_plan(original, identity, port, covered, held, comparable, copies),
        join=join,
        covered=covered,
        bound=tuple(comparable),
        expected=tuple(expected),
        sizes=sizes,
        there=held,
        stored={spelled: name for name, spelled in port.names.items()},
        missing=tuple(missing),
        extra=tuple(extra),
        misfits=tuple(misfits),
        omitted=tuple(omitted),
        lost=_lost(join, expected, sizes, port),
        unused={
            name: found
            for rule in comparable
            if (found := tuple(filler for filler in rule.fillers if filler.kind == UNUSED))
            for name in rule.names
        },
        notes=(*_left_aside(covered), *beside),
    )


def compared_dtype(tensor: StoredTensor) -> Dtype:
    """What a port's tensor is compared as: its own dtype, or float32 where it is quantised."""
    return DTYPES["F32"] if tensor.dtype.quantised else tensor.dtype


def _numbers(dtype: Dtype) -> bool:
    return dtype.kind in ("float", "quantised")


def _of_the_port(
    out: Checkpoint, port: Port, canonical: Canonical, expected: Sequence[BoundRule]
) -> tuple[dict[str, StoredTensor], list[str], list[str]]:
    """The port's tensors by the table's names, those that the table has no name for, and notes."""
    shapes = {name: rule.shape for rule in expected for name in rule.names}
    counted = out.container == "gguf"
    scaled = [rule for rule in expected if rule.rule.scale_by is not None]
    factors = {t.scales: t.name for rule in scaled for t in rule.tensors() if t.scales is not None}
    matcher = NameMatcher(port.dialect, port.wrapper)
    there: dict[str, StoredTensor] = {}
    scales: dict[str, StoredTensor] = {}
    extra, beyond, idle = [], [], []
    aside = idle_names(port.dialect, canonical, port.hyperparameters)
    for name, tensor in out.tensors.items():
        spelled = port.names.get(name)
        if spelled in shapes:
            there[spelled] = as_counted(tensor, shapes[spelled]) if counted else tensor
        elif spelled in factors:
            scales[factors[spelled]] = tensor
        elif spelled in aside:
            idle.append(name)
        elif any(fnmatchcase(matcher.bare(name), glob) for glob in port.dialect.beyond):
            beyond.append(name)
        elif any(fnmatchcase(matcher.bare(name), glob) for glob in port.dialect.passed_over):
            idle.append(name)
        elif not matcher.ignored(name) and not (
            out.container == orbax_tree.CONTAINER and orbax_tree.is_state(tensor)
        ):
            extra.append(name)
    there |= {name: scale_rows(there.get(name), tensor) for name, tensor in scales.items() if name in there}
    notes = [f"not compared: {parts(beyond)} of the port"] if beyond else []
    stored = out.unwrapped
    if stored is None and port.wrapper:
        stored = next(iter(out.tensors), None)
    if stored is not None:
        notes.append(
            f"{port.dialect.title} does not look for names such as {quoted(stored)}: {command('convert')} "
            "writes those that it loads"
        )
    return there, extra, [*notes, *idle_notes("the port", idle)]


def _by_dtype(
    rule: BoundRule, fits: Sequence[bool], there: Mapping[str, StoredTensor]
) -> Iterator[BoundRule]:
    """The tensors of a rule that can be compared, apart by what they are stored as."""
    dtypes = {compared_dtype(there[name]).name for name in compress(rule.names, fits)}
    for dtype in sorted(dtypes):
        chosen = [
            fit and compared_dtype(there[name]).name == dtype
            for name, fit in zip(rule.names, fits, strict=True)
        ]
        yield rule._replace(
            points=tuple(compress(rule.points, chosen)), names=tuple(compress(rule.names, chosen))
        )


def _plan(
    original: Checkpoint,
    identity: Identity,
    port: Port,
    covered: Covered,
    held: Mapping[str, StoredTensor],
    rules: Sequence[BoundRule],
    copies: Copies,
) -> Plan:
    placed, end = [], 0
    for name in sorted(held, key=lambda name: (held[name].file, held[name].offset, name)):
        dtype = compared_dtype(held[name])
        placed.append(StoredTensor(name, dtype, held[name].shape, FILE, end))
        end += placed[-1].nbytes
    used = {name for group in copies.groups for part in group.parts for name in part.sources}
    scaled = {tensor.name: tensor for tensor in covered.tensors.values() if tensor.scales}
    used |= {tensor.scales for name, tensor in scaled.items() if tensor.scales and name in used}
    return Plan(
        family=identity.family.name,
        source_dialect=identity.dialect.name,
        target_dialect=port.dialect.name,
        tables={
            identity.dialect.name: f"sha256:{identity.dialect.digest}",
            port.dialect.name: f"sha256:{port.dialect.digest}",
        },
        hyperparameters=port.hyperparameters,
        sources=tuple(scaled.get(name, t) for name, t in original.tensors.items() if name in used),
        source_sizes=original.sizes,
        files=(OutputFile(FILE, "", end, tuple(placed)),),
        copies=copies,
        checks=(),
        side_files=(),
        summary=summarise(original, covered, copies, len(placed), set(), False, 0),
        zeros=tuple(
            Zeros(name, filler.offset, filler.loops, str(rule.rule.where))
            for rule in rules
            for name in rule.names
            for filler in rule.fillers
            if filler.kind in (ZEROS, UNUSED) and elements(filler.loops)
        ),
    )


def _lost(join: Join, expected: Sequence[BoundRule], sizes: Sizes, port: Port) -> str | None:
    """What of the original the port's dialect has no tensor for, in words."""
    try:
        check_carried_once(join.index, BlockIndex(expected), join.alias, sizes, port.dialect)
    except PorterError as error:
        return error.message + (f" ({error.cause})" if error.cause else "")
    return None


def _left_aside(covered: Covered) -> list[str]:
    notes = []
    if covered.beyond:
        notes.append(f"text only: not compared are {parts(covered.beyond)}")
    if covered.dropped:
        notes.append(f"not compared, as asked: {', '.join(covered.dropped[:5])}")
    return notes + idle_notes("the original", covered.idle)


def idle_notes(side: str, names: Sequence[str]) -> list[str]:
    """That tensors are left aside, since nothing computes with them."""
    if not names:
        return []
    what = f"{count(len(names), 'tensor')} of {side}"
    return [f"not compared: {what} that no framework computes with, such as {names[0]}"]
