"""The driver of a cluster: hands out tasks, gathers records, and brings the finished files to the sink.

It knows nothing of what carries the tasks: a `Pool` does. Plan and proof are made once, here; so are frames,
the progress that is shown, side files and the commit.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from porter.containers.base import OutputFile
from porter.errors import UnsupportedError, UsageError
from porter.execution.cluster.divide import Division, divide, framed
from porter.execution.cluster.tasks import Job, Place, Record, Task, run_check, run_task
from porter.execution.crc import joined
from porter.execution.driver import PartSum, Written
from porter.execution.frames import wants_sums
from porter.execution.run_options import ALWAYS, RunOptions
from porter.execution.sinks.base import Ranges, Sink
from porter.execution.watch import Watch
from porter.execution.writers import Tally
from porter.planning.plan import Plan, checked
from porter.sources.base import Source
from porter.wording import at_command_line

# Bytes. What all tasks share is sent to every worker; a model's weights do not belong in it.
_MOST_SHARED = 64 << 20


class Pool(Protocol):
    """Carries calls to workers and brings back what they return, as it comes, in any order."""

    def map(
        self, function: Callable[..., Any], shared: Any, items: Iterable[tuple[Any, ...]], watch: Watch
    ) -> Iterator[Any]:
        """`function(shared, *item)` for each item. A call whose worker is lost is made again; what a call
        raises is raised here, and no call is under way any more when it is."""
        ...


@runtime_checkable
class SharedSink(Sink, Protocol):
    """A sink whose files several machines write."""

    def place(self, file: OutputFile) -> Place:
        """Where the parts of a file go; it is made ready."""
        ...

    def sent(self, file: OutputFile) -> Mapping[int, Record]:
        """Parts that an earlier run has sent and that need no second look, by number."""
        ...

    def add(self, file: OutputFile, record: Record) -> None:
        """A part is finished."""
        ...

    def end(self, file: OutputFile, *, hashed: bool) -> str | None:
        """All parts of a file are there; its `sha256:<hex>` where that is asked for and can be read again."""
        ...


@dataclass
class ClusterDriver:
    """See `porter.execution.driver.Driver`."""

    pool: Pool
    division: Division = field(default_factory=Division)

    @property
    def key(self) -> Mapping[str, Any]:
        return {"parts": [self.division.part, self.division.unit, self.division.transposed]}

    def check(self, plan: Plan, source: Source, watch: Watch) -> None:
        tensors = plan.source_by_name
        items = [(check, {name: tensors[name] for name in _needed(plan, check)}) for check in plan.checks]
        if items:
            for _ in self.pool.map(run_check, _job(plan, source), items, watch):
                pass

    def run(
        self,
        plan: Plan,
        source: Source,
        sink: Sink,
        kept: Mapping[str, Ranges],
        options: RunOptions,
        watch: Watch,
    ) -> Mapping[str, Written]:
        if not isinstance(sink, SharedSink):
            raise UnsupportedError("this kind of output cannot be written by several machines")
        job, tasks = _job(plan, source), divide(plan, self.division)
        own = {file.name: [task for task in tasks if task.file == file.name] for file in plan.files}
        sums = self._sums(plan, own, job, watch)
        records: dict[str, dict[int, Record]] = {}
        ready: list[tuple[Task]] = []
        tallies: dict[str, Tally] = {}
        for file in plan.files:
            place, noted = sink.place(file), kept.get(file.name, {})
            records[file.name] = dict(sink.sent(file))
            tallies[file.name] = Tally(file.name, file.size, watch.progress)
            for task in framed(file, own[file.name], sums.get(file.name)):
                if task.number in records[file.name]:
                    tallies[file.name].add(task.nbytes)
                    continue
                crc = noted.get((task.start, task.end))
                ready.append((replace(task, place=place, kept=crc),))
        files = {file.name: file for file in plan.files}
        for record in self.pool.map(run_task, job, ready, watch):
            records[record.file][record.number] = record
            tallies[record.file].add(record.end - record.start)
            sink.add(files[record.file], record)
            watch.moving(f"{record.file}, part {record.number}")
        made = {}
        for file in plan.files:
            tallies[file.name].finish()
            parts = [records[file.name][task.number] for task in own[file.name]]
            made[file.name] = self._end(file, parts, sink, options)
        return made

    def _end(
        self, file: OutputFile, parts: Sequence[Record], sink: SharedSink, options: RunOptions
    ) -> Written:
        digest = sink.end(file, hashed=options.digest == ALWAYS and len(parts) > 1)
        if len(parts) == 1 and parts[0].digest:
            digest = f"sha256:{parts[0].digest}"
        crc = 0
        for part in parts:
            crc = joined(crc, part.crc, part.end - part.start)
        return Written(digest, 0, crc, tuple(PartSum(p.start, p.end, p.crc, p.digest) for p in parts))

    def _sums(
        self, plan: Plan, own: Mapping[str, Sequence[Task]], job: Job, watch: Watch
    ) -> dict[str, dict[str, int]]:
        """The CRC-32 of each tensor of files whose frames hold them: tasks that write nothing come first."""
        wanting = [file for file in plan.files if wants_sums(file)]
        items = [
            (replace(task, units=tuple(unit for unit in task.units if unit.tensor is not None)),)
            for file in wanting
            for task in own[file.name]
        ]
        crcs = {
            (record.file, start, end): crc
            for record in (self.pool.map(run_task, job, items, watch) if items else ())
            for start, end, crc in record.sums
        }
        found: dict[str, dict[str, int]] = {}
        for file in wanting:
            sums = found[file.name] = {}
            for unit in (unit for task in own[file.name] for unit in task.units if unit.tensor):
                crc = crcs[file.name, unit.start, unit.end]
                sums[unit.tensor or ""] = joined(sums.get(unit.tensor or "", 0), crc, unit.nbytes)
        return found


def _needed(plan: Plan, check: Any) -> Iterator[str]:
    for name in checked(check):
        yield name
        if scales := plan.source_by_name[name].scales:
            yield scales


def _job(plan: Plan, source: Source) -> Job:
    """Raises UsageError for a source that cannot be sent to other machines."""
    from porter import __version__

    job = Job(secrets.token_hex(8), __version__, source, dict(plan.source_sizes), at_command_line())
    try:
        size = len(pickle.dumps(job))
    except Exception as error:
        raise UsageError(
            f"{source.label} cannot be read on other machines", cause=f"it cannot be pickled: {error}"
        ) from error
    if size > _MOST_SHARED:
        raise UsageError(
            f"{source.label} cannot be read on other machines",
            cause=f"it holds {size} bytes itself",
            hint="put it where all machines can read it: a bucket, the Hub, a shared file system",
        )
    return job
