"""How long a plan takes on so many workers, from a stated model: `docs/scale.md` explains it and holds it
against runs.

A worker does one task after the other. A task takes a fixed time, the time to read its bytes and the time to
write them, and nothing else: no worker waits for another, no store or network is shared. So it is a lower
bound that comes true while the store keeps up.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from porter.errors import UsageError
from porter.execution.cluster.divide import Division, bytes_read, divide
from porter.execution.cluster.tasks import Task
from porter.execution.frames import wants_sums
from porter.execution.run_options import memory_spoken
from porter.planning.plan import Plan, ZeroCheck
from porter.wording import option


@dataclass(frozen=True)
class Assumed:
    """Workers; bytes a second that each reads and writes; seconds that a task takes besides."""

    workers: int | None = None
    read: int = 200_000_000
    write: int = 100_000_000
    task: float = 0.5


# Shown where the number of workers is not assumed.
WORKERS = (1, 8, 64)


@dataclass(frozen=True)
class FileTasks:
    """The tasks of one output file; `largest` is in bytes written."""

    name: str
    tasks: int
    read: int
    written: int
    largest: int


@dataclass(frozen=True)
class Load:
    """A run on `workers`: predicted seconds, the share of them that workers are busy, and the bytes read and
    written by the worker that has most of them.
    """

    workers: int
    seconds: float
    busy: float
    most: int


@dataclass(frozen=True)
class Prediction:
    """`first` are tasks that come before all others, and the bytes that they read: checks and sums."""

    assumed: Assumed
    files: tuple[FileTasks, ...]
    first: int
    first_read: int
    loads: tuple[Load, ...]
    tasks: tuple[Task, ...]

    @property
    def read(self) -> int:
        return self.first_read + sum(file.read for file in self.files)

    @property
    def written(self) -> int:
        return sum(file.written for file in self.files)


def assumed_spoken(text: str) -> Assumed:
    """What a user says: `workers=8,read=200MB,write=100MB,task=0.5`, or some of it. Raises UsageError."""
    found = Assumed()
    for part in filter(None, text.replace(" ", "").split(",")):
        name, _, value = part.partition("=")
        if name not in {field.name for field in fields(Assumed)}:
            raise UsageError(
                f"{option('assume')} knows no {name!r}",
                hint="for example workers=8,read=200MB,write=100MB,task=0.5",
            )
        try:
            if name == "read":
                found = replace(found, read=memory_spoken(value.removesuffix("/s")))
            elif name == "write":
                found = replace(found, write=memory_spoken(value.removesuffix("/s")))
            elif name == "workers":
                found = replace(found, workers=int(value))
            else:
                found = replace(found, task=float(value))
        except ValueError:
            raise UsageError(f"{option('assume')} {name} is no number: {value!r}") from None
    if (
        (found.workers is not None and found.workers < 1)
        or min(found.read, found.write) < 1
        or found.task < 0
    ):
        raise UsageError(
            f"{option('assume', text)} is no cluster", hint="at least one worker that reads and writes"
        )
    return found


def predict(plan: Plan, assumed: Assumed | None = None, division: Division | None = None) -> Prediction:
    """From headers alone, as a plan is."""
    assumed, tasks = assumed or Assumed(), divide(plan, division)
    reads = [bytes_read(task) for task in tasks]
    own = {file.name: [i for i, task in enumerate(tasks) if task.file == file.name] for file in plan.files}
    files = tuple(
        FileTasks(
            name,
            len(numbers),
            sum(reads[i] for i in numbers),
            sum(tasks[i].nbytes for i in numbers),
            max(tasks[i].nbytes for i in numbers),
        )
        for name, numbers in own.items()
        if numbers
    )
    first = _checks(plan) + [reads[i] for file in plan.files if wants_sums(file) for i in own[file.name]]
    counts = WORKERS if assumed.workers is None else (assumed.workers,)
    costs = [(read, task.nbytes) for read, task in zip(reads, tasks, strict=True)]
    loads = tuple(_load(count, [(read, 0) for read in first], costs, assumed) for count in counts)
    return Prediction(assumed, files, len(first), sum(first), loads, tasks)


def _checks(plan: Plan) -> list[int]:
    """Bytes that each check reads."""
    found = []
    for check in plan.checks:
        names = (check.tensor,) if isinstance(check, ZeroCheck) else (check.kept, check.dropped)
        found.append(sum(plan.source_by_name[name].nbytes for name in names))
    return found


def _load(
    workers: int, first: Sequence[tuple[int, int]], costs: Sequence[tuple[int, int]], assumed: Assumed
) -> Load:
    """Tasks go, in their order, to whoever is free; all of `first` are over before the others begin."""
    seconds = busy = 0.0
    moved = [0] * workers
    for lot in (first, costs):
        free = [(seconds, worker) for worker in range(workers)]
        for read, written in lot:
            begin, worker = heapq.heappop(free)
            takes = assumed.task + read / assumed.read + written / assumed.write
            busy += takes
            moved[worker] += read + written
            heapq.heappush(free, (begin + takes, worker))
        seconds = max(_ends(free), default=seconds)
    return Load(workers, seconds, busy / (seconds * workers) if seconds else 1.0, max(moved))


def _ends(free: Iterable[tuple[float, int]]) -> list[float]:
    return [end for end, _ in free]
