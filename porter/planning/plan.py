"""The plan: what is proved, printed, hashed and run.

A plan is a frozen value made from headers, configs and tables alone. It names every byte that the
output will hold: strided copies from source tensors to target tensors, checks that need bytes, and
small files (config, tokenizer, index) whose content is already decided. Its hash leaves out paths, so
the same conversion of the same checkpoint has the same hash wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, overload

from porter.containers.base import OutputFile, StoredTensor
from porter.facts import Facts
from porter.layout.copies import Loop
from porter.tables.patterns import Pattern
from porter.values.operations import Operation

EXTENT, RUNS, TILE, COMPUTE = "extent", "runs", "tile", "compute"
COPY_CLASSES = (EXTENT, RUNS, TILE, COMPUTE)


class Copy(NamedTuple):
    """One strided copy: `loops` (coalesced, outermost first) from `source` to `target`.

    Offsets are in elements from the start of each tensor. `canonical` is the weight that is moved,
    `rule` where the target's table makes it. `copy_class` is one of COPY_CLASSES. `operations` are done in
    float32, in their order, before the cast to the target.
    """

    canonical: str
    source: str
    target: str
    source_offset: int
    target_offset: int
    loops: tuple[Loop, ...]
    copy_class: str
    operations: tuple[Operation, ...] = ()
    rule: str = ""


class Part(NamedTuple):
    """What the copies of a `CopyGroup` have in common, for one of the blocks that its targets are made of.

    `sources` go with the group's targets. `canonical` is a name pattern, whose variables have the values
    `points`; without any it is the name itself.
    """

    canonical: str
    points: tuple[tuple[int, ...], ...]
    sources: tuple[str, ...]
    source_offset: int
    target_offset: int
    loops: tuple[Loop, ...]
    copy_class: str
    operations: tuple[Operation, ...]

    def names(self) -> Iterable[str]:
        """The canonical tensor of each copy."""
        return map(Pattern(self.canonical).at, self.points) if self.points else (self.canonical,)


class CopyGroup(NamedTuple):
    """Copies into the tensors of one rule, each of which is made of the same parts."""

    targets: tuple[str, ...]
    parts: tuple[Part, ...]
    rule: str

    def copies(self) -> Iterator[Copy]:
        columns = [zip(part.names(), part.sources, self.targets, strict=True) for part in self.parts]
        tails = [(*part[3:], self.rule) for part in self.parts]
        for row in zip(*columns, strict=True):
            for names, tail in zip(row, tails, strict=True):
                yield Copy._make((*names, *tail))


@dataclass(frozen=True, eq=False)
class Copies(Sequence[Copy]):
    """The copies of a plan, target by target. They are expanded when they are asked for, and not kept."""

    groups: tuple[CopyGroup, ...]

    def __iter__(self) -> Iterator[Copy]:
        for group in self.groups:
            yield from group.copies()

    def __len__(self) -> int:
        return sum(len(group.targets) * len(group.parts) for group in self.groups)

    @overload
    def __getitem__(self, index: int) -> Copy: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Copy, ...]: ...
    def __getitem__(self, index: int | slice) -> Copy | tuple[Copy, ...]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


class Zeros(NamedTuple):
    """Elements of a target tensor that no copy writes and that are zeros in every dtype: `offset`, `loops`.

    Both strides of each loop are that of the tensor, in elements. A file that starts as zeros has them.
    """

    target: str
    offset: int
    loops: tuple[Loop, ...]
    rule: str = ""


@dataclass(frozen=True)
class EqualCheck:
    """Elements of two source tensors that must have the same values before those of one may be dropped.

    They are paired as a copy from `kept` to `dropped` would pair them: the source stride of `loops` is that
    of `kept`. Where there are operations, each side's bring what is stored to the canonical values, in
    float32; without any, values are compared as they are stored, exactly, whatever the two dtypes. `hint` is
    what the target offers where they differ.
    """

    kept: str
    dropped: str
    reason: str
    kept_offset: int = 0
    dropped_offset: int = 0
    loops: tuple[Loop, ...] = ()
    kept_operations: tuple[Operation, ...] = ()
    dropped_operations: tuple[Operation, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class ZeroCheck:
    """Elements of a source tensor that must be zeros before they are left out: `offset`, `loops`.

    Both strides of each loop are that of the tensor, in elements. `what` says which they are, in words.
    """

    tensor: str
    what: str
    offset: int
    loops: tuple[Loop, ...]


Check = EqualCheck | ZeroCheck


def checked(check: Check) -> tuple[str, ...]:
    """The source tensors that a check reads."""
    return (check.tensor,) if isinstance(check, ZeroCheck) else (check.kept, check.dropped)


@dataclass(frozen=True)
class SideFile:
    """A small output file: `content` already decided, or, where that is None, a copy of a source file."""

    name: str
    content: bytes | None = None
    copied_from: str | None = None


@dataclass(frozen=True)
class Summary:
    """Counts for the plan's one-line description."""

    source_tensors: int
    target_tensors: int
    renamed: int = 0
    fused: int = 0
    split: int = 0
    ties_written: int = 0
    ties_dropped: int = 0
    dropped: int = 0
    unmapped: int = 0


@dataclass(frozen=True)
class Plan(Facts):
    """A whole conversion. `sources` are only those tensors that are read.

    `copies` and `zeros` together make every element of every target tensor once. `checks` need bytes and
    come before anything is published. `rules` and `layouts` say for each target tensor which line of which
    table made it, and how.
    """

    family: str
    source_dialect: str
    target_dialect: str
    tables: Mapping[str, str]
    hyperparameters: Mapping[str, Any]
    sources: tuple[StoredTensor, ...]
    source_sizes: Mapping[str, int]
    files: tuple[OutputFile, ...]
    copies: Sequence[Copy]
    checks: tuple[Check, ...]
    side_files: tuple[SideFile, ...]
    summary: Summary
    notes: tuple[str, ...] = ()
    rules: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    zeros: tuple[Zeros, ...] = ()

    def __repr__(self) -> str:
        counts = self.summary
        return (
            f"<Plan {self.family}: {self.source_dialect} → {self.target_dialect}, "
            f"{counts.source_tensors} → {counts.target_tensors} tensors, {self.weight_bytes:,} bytes>"
        )

    def _facts(self) -> list[tuple[str, str]]:
        counts, computed = self.summary, self.classes[COMPUTE]
        done = [
            f"{number} {word}"
            for number, word in (
                (counts.renamed, "renamed"),
                (counts.fused, "fused"),
                (counts.split, "split"),
                (self.classes[TILE], "transposed"),
                (counts.ties_written, "tied and written"),
                (counts.ties_dropped, "tied and dropped"),
                (counts.dropped, "dropped"),
                (computed, "cast or computed"),
            )
            if number
        ]
        names = [file.name for file in self.files]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return [
            ("plan", f"{self.family}: {self.source_dialect} → {self.target_dialect}"),
            ("tensors", f"{counts.source_tensors} → {counts.target_tensors}: {', '.join(done)}"),
            ("values", "some are cast or computed" if computed else "every one is moved as it is"),
            ("checks", f"{len(self.checks)} before anything is published"),
            ("files", f"{', '.join(names[:3])}{more}: {self.weight_bytes:,} bytes of weights"),
            ("hash", self.hash),
        ]

    @cached_property
    def source_by_name(self) -> dict[str, StoredTensor]:
        return {tensor.name: tensor for tensor in self.sources}

    @cached_property
    def target_by_name(self) -> dict[str, StoredTensor]:
        return {tensor.name: tensor for file in self.files for tensor in file.tensors}

    def targets(self) -> Iterator[StoredTensor]:
        for file in self.files:
            yield from file.tensors

    @property
    def weight_bytes(self) -> int:
        """Bytes of tensor data that the output holds (headers not counted, shared storages once)."""
        places = {(tensor.file, tensor.offset): tensor.nbytes for tensor in self.targets() if tensor.nbytes}
        return sum(places.values())

    @property
    def classes(self) -> dict[str, int]:
        """How many copies there are of each class."""
        found: Counter[str] = Counter()
        for group in groups_of(self.copies):
            for part in group.parts:
                found[part.copy_class] += len(group.targets)
        return {name: found[name] for name in COPY_CLASSES}

    @cached_property
    def hash(self) -> str:
        """sha256 over all that the plan does, without paths and without its words: `sha256:<hex>`."""
        # Not where a table of the user's own lies; what it says is in its digest.
        told = plan_to_json(replace(self, sources=(), files=(), copies=(), notes=()))
        del told["classes"]
        for part in (*told["zeros"], *told["checks"]):
            for words in ("rule", "reason", "hint", "what"):
                part.pop(words, None)
        found = hashlib.sha256()
        for rows in (
            [told],
            [(file.name, file.container, file.size, len(file.tensors)) for file in self.files],
        ):
            found.update(json.dumps(rows, sort_keys=True, separators=(",", ":")).encode())
        # No name holds a zero byte: containers refuse control characters.
        for lines in (_rows(self.sources), _rows(self.targets()), _copy_rows(self.copies)):
            found.update("\n".join(lines).encode())
            found.update(b"\0\n")
        return f"sha256:{found.hexdigest()}"

    def __hash__(self) -> int:
        return hash(self.hash)


def groups_of(copies: Sequence[Copy]) -> Iterable[CopyGroup]:
    """The groups that copies were made by; of copies that were made one by one, each is a group."""
    if isinstance(copies, Copies):
        return copies.groups
    return (
        CopyGroup((copy.target,), (Part(copy.canonical, (), (copy.source,), *copy[3:8]),), copy.rule)
        for copy in copies
    )


def _rows(tensors: Iterable[StoredTensor]) -> Iterator[str]:
    """A line for each tensor. What many have in common is spelled once."""
    kinds: dict[tuple[str, tuple[int, ...], str], str] = {}
    for name, dtype, shape, file, offset, scales, strides in tensors:
        kind = dtype.name, shape, file
        if kind not in kinds:
            kinds[kind] = f"{dtype.name}\0{shape}\0{file}"
        row = f"{name}\0{kinds[kind]}\0{offset}\0{scales}"
        yield row if strides is None else f"{row}\0{strides}"


def _copy_rows(copies: Sequence[Copy]) -> Iterator[str]:
    """A line for each copy, without the rule; the same however the copies are grouped."""
    for group in groups_of(copies):
        tails = [json.dumps(part[3:], separators=(",", ":")) for part in group.parts]
        columns = [
            [f"{name}\0{source}\0" for name, source in zip(part.names(), part.sources, strict=True)]
            for part in group.parts
        ]
        for target, *heads in zip(group.targets, *columns, strict=True):
            for head, tail in zip(heads, tails, strict=True):
                yield f"{head}{target}\0{tail}"


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON values. Contents of side files appear as their sha256."""
    return {
        "schema": 1,
        "family": plan.family,
        "from": plan.source_dialect,
        "to": plan.target_dialect,
        "tables": dict(plan.tables),
        "hyperparameters": dict(plan.hyperparameters),
        "summary": vars(plan.summary),
        "classes": plan.classes,
        "sources": [_tensor_to_json(tensor) for tensor in plan.sources],
        "source_sizes": dict(plan.source_sizes),
        "files": [
            {
                "name": file.name,
                "container": file.container,
                "size": file.size,
                "tensors": [_tensor_to_json(tensor) for tensor in file.tensors],
            }
            for file in plan.files
        ],
        "copies": [
            {
                "canonical": copy.canonical,
                "source": copy.source,
                "target": copy.target,
                "source_offset": copy.source_offset,
                "target_offset": copy.target_offset,
                "loops": _loops(copy.loops),
                "class": copy.copy_class,
                "operations": [[operation.kind, operation.value] for operation in copy.operations],
                "rule": copy.rule,
            }
            for copy in plan.copies
        ],
        "zeros": [{**part._asdict(), "loops": _loops(part.loops)} for part in plan.zeros],
        "checks": [_check_to_json(check) for check in plan.checks],
        "side_files": [
            {
                "name": side.name,
                "sha256": None if side.content is None else hashlib.sha256(side.content).hexdigest(),
                "copied_from": side.copied_from,
            }
            for side in plan.side_files
        ],
        "notes": list(plan.notes),
    }


def _loops(loops: tuple[Loop, ...]) -> list[list[int]]:
    return [list(loop) for loop in loops]


def _check_to_json(check: Check) -> dict[str, Any]:
    found = {**vars(check), "loops": _loops(check.loops)}
    if isinstance(check, ZeroCheck):
        return {"check": "zeros", **found}
    for side in ("kept_operations", "dropped_operations"):
        found[side] = [list(operation) for operation in found[side]]
    return {"check": "equal", **found}


def _tensor_to_json(tensor: StoredTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype.name,
        "shape": list(tensor.shape),
        "file": tensor.file,
        "offset": tensor.offset,
        **({"scales": tensor.scales} if tensor.scales else {}),
        **({"strides": list(tensor.strides)} if tensor.strides is not None else {}),
    }
