"""`execute`: a plan from a source into a sink, whatever the two are.

Checks come first, then every file, then the small files, and the sink's commit last, after the source has
been looked at once more. Sources are only read. Memory stays bounded whatever the size of a tensor. torch is
never imported.

Before the units are run, passes may finish some of them: shared blocks (`shared`), and, where the source is
far away and the sink takes bytes at any place, a stream (`streaming`), in which every byte passes by once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from porter.containers.array_names import ARRAY, HDF5
from porter.errors import PorterError
from porter.execution.checks import run_checks
from porter.execution.driver import Driver, PartSum, Written
from porter.execution.file_run import FileRun
from porter.execution.leftovers import RECEIPT
from porter.execution.open_files import OpenFiles
from porter.execution.run_options import RunOptions
from porter.execution.runnable import check_far
from porter.execution.sinks.base import PartSink, Range, Ranges, Sink
from porter.execution.streaming import StreamSink, stream
from porter.execution.units import copies_by_target, file_units
from porter.execution.watch import Watch
from porter.execution.writers import Tally
from porter.planning.plan import Plan, SideFile
from porter.sources.base import Source
from porter.sources.paths import unsafe_path

# Bytes of a side file read at a time.
_SIDE_BUFFER = 1 << 20


@dataclass(frozen=True)
class Result:
    """What a run has made: each file's bytes, its `sha256:<hex>` where known, and how many bytes of each
    weight file share their blocks with a source. `verified` are source files whose published digest was
    found to be right, `out` the directory that was published, if there is one. `crcs` are the CRC-32 of
    weight files that were made in parts, `parts` those parts where machines have made them.
    """

    sizes: Mapping[str, int]
    digests: Mapping[str, str | None]
    shared: Mapping[str, int] = field(default_factory=dict)
    verified: tuple[str, ...] = ()
    out: Path | None = None
    crcs: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, tuple[PartSum, ...]] = field(default_factory=dict)

    @property
    def bytes_written(self) -> int:
        return sum(self.sizes.values())


def execute(
    plan: Plan,
    source: Source,
    sink: Sink,
    options: RunOptions | None = None,
    watch: Watch | None = None,
    receipt: Callable[[Result], bytes] | None = None,
    driver: Driver | None = None,
) -> Result:
    """Runs `plan` on the files of `source` into `sink`, all or nothing; a `driver` runs it on a cluster.

    `receipt` is given what was made and returns the bytes of one file more. Raises MalformedError for
    sources that are not as planned and ChangedError for those that changed on the way, DifferenceError for a
    failed check, UnsupportedError for what cannot be computed, PorterError when the system refuses to read
    or write. After an error the sink has published nothing.
    """
    options, watch = options or RunOptions(), watch or Watch()
    _check_names(plan)
    check_far(source.near, options)
    sizes = {name: size for name, size in plan.source_sizes.items() if _read(plan, name)}
    with ExitStack() as stack:
        files = stack.enter_context(OpenFiles(source, sizes))
        if source.near:
            # What is missing, or another one by now, ends the run before it has begun.
            for name in sizes:
                files[name]
            if driver is None:
                run_checks(plan, files)
        stack.enter_context(sink)
        key = {"plan": plan.hash, "sources": _versions(source, sizes), **(driver.key if driver else {})}
        kept = sink.begin(key)
        written: Mapping[str, Written]
        verified: tuple[str, ...] = ()
        if driver is not None:
            driver.check(plan, source, watch)
            written = driver.run(plan, source, sink, kept, options, watch)
        else:
            written, verified = _run_files(plan, files, sink, kept, options, watch)
        made = Result(
            {file.name: file.size for file in plan.files},
            {name: file.digest for name, file in written.items()},
            {name: file.shared for name, file in written.items()},
            verified,
            crcs={name: file.crc for name, file in written.items() if file.crc is not None},
            parts={name: file.parts for name, file in written.items() if file.parts},
        )
        for side in plan.side_files:
            made = _added(made, side.name, *sink.put(side.name, _content(side, source)))
        if receipt is not None:
            made = _added(made, RECEIPT, *sink.put(RECEIPT, [receipt(made)]))
        source.check(touched(plan, source))
        sink.commit()
    return made


def _added(made: Result, name: str, digest: str, size: int) -> Result:
    """With one small file more."""
    return replace(made, sizes={**made.sizes, name: size}, digests={**made.digests, name: digest})


def _run_files(
    plan: Plan,
    files: OpenFiles,
    sink: Sink,
    kept: Mapping[str, Ranges],
    options: RunOptions,
    watch: Watch,
) -> tuple[dict[str, Written], tuple[str, ...]]:
    """Makes every output file, in this process; the source files whose digest was verified on the way."""
    near = files.source.near
    copies = copies_by_target(plan)
    units = {file.name: list(file_units(plan, file, copies, sink.unit_bytes)) for file in plan.files}
    watch.expect(sum(file.size for file in plan.files))
    tallies = {file.name: Tally(file.name, file.size, watch.progress) for file in plan.files}
    finished: dict[str, dict[Range, int | None]] = {file.name: {} for file in plan.files}
    if isinstance(sink, PartSink):
        finished = {name: sink.finished(name, own) for name, own in units.items()}
    verified: tuple[str, ...] = ()
    made: dict[str, Written] = {}
    with ExitStack() as passes:
        if not near and isinstance(sink, StreamSink):
            passed = passes.enter_context(
                stream(plan, files, sink, units, tallies, kept, options=options, watch=watch)
            )
            files, finished, verified = passed.files, passed.finished, passed.verified
        if not near:
            run_checks(plan, files)
        for file in plan.files:
            writer = sink.create(file)
            parts = (file, units[file.name], files, sink, writer, tallies[file.name], options, watch)
            try:
                made[file.name] = FileRun(*parts, finished[file.name]).run(kept.get(file.name, {}))
            finally:
                # The journal's thread must not touch a file that is closed.
                sink.close(writer)
    return made, verified


def _read(plan: Plan, name: str) -> bool:
    """Whether a file is opened. Arrays that the plan does not read have not been written out."""
    return not name.startswith(ARRAY) or any(tensor.file == name for tensor in plan.sources)


def touched(plan: Plan, source: Source) -> list[str]:
    """The files whose content went into the output. An array that was written out first stands for the file
    that it lies in or, where it lies in many, for all that the source holds.
    """
    copied = [side.copied_from for side in plan.side_files if side.copied_from is not None]
    found = [name for name in (*plan.source_sizes, *copied) if not name.startswith(ARRAY)]
    arrays = {tensor.file for tensor in plan.sources if tensor.file.startswith(ARRAY)}
    found += [name.removeprefix(HDF5).partition("//")[0] for name in arrays if name.startswith(HDF5)]
    if any(not name.startswith(HDF5) for name in arrays):
        found += [name for name in source.files() if not name.startswith(ARRAY)]
    return list(dict.fromkeys(found))


def _versions(source: Source, names: Mapping[str, int]) -> dict[str, Any]:
    files = source.files()
    return {name: files[name].version if name in files else source.version for name in names}


def _content(side: SideFile, source: Source) -> Iterator[bytes]:
    """A small file's content, piece by piece."""
    if side.copied_from is None:
        yield side.content or b""
        return
    file = source.open(side.copied_from)
    try:
        for start in range(0, file.size, _SIDE_BUFFER):
            piece = bytearray(min(_SIDE_BUFFER, file.size - start))
            file.read([memoryview(piece)], start)
            yield bytes(piece)
    finally:
        file.close()


def _check_names(plan: Plan) -> None:
    """Raises PorterError if two files of the output have one name, or one has an unsafe name."""
    seen = {RECEIPT}
    for name in (*(file.name for file in plan.files), *(side.name for side in plan.side_files)):
        if reason := unsafe_path(name):
            raise PorterError(f"the plan names an unsafe output file {name!r}", cause=f"it {reason}")
        if name in seen:
            raise PorterError(f"the plan writes {name} twice")
        seen.add(name)
