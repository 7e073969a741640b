"""`execute`: a plan from a source into a sink, whatever the two are.

Checks come first, then every file, then the small files, and the sink's commit last, after the source has
been looked at once more. Sources are only read. Memory stays bounded whatever the size of a tensor. torch is
imported only when the plan has values to compute.

Before the units are run, passes may finish some of them: shared blocks (`shared`), and, where the source is
far away and the sink takes bytes at any place, a stream (`streaming`), in which every byte passes by once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from porter.containers.array_names import ARRAY, HDF5
from porter.errors import PorterError, UsageError
from porter.execution.checks import run_checks
from porter.execution.file_run import FileRun
from porter.execution.open_files import OpenFiles
from porter.execution.run_options import ALWAYS, RunOptions
from porter.execution.sinks.base import Sink
from porter.execution.streaming import StreamSink, stream
from porter.execution.units import copies_by_target, file_units
from porter.execution.watch import Watch
from porter.execution.writers import Tally
from porter.planning.plan import Plan, SideFile
from porter.sources.base import Source
from porter.sources.paths import unsafe_path

RECEIPT = "porter-receipt.json"

# Bytes of a side file read at a time.
_SIDE_BUFFER = 1 << 20


@dataclass(frozen=True)
class Result:
    """What a run has made: each file's bytes, its `sha256:<hex>` where known, and how many bytes of each
    weight file share their blocks with a source. `verified` are source files whose published digest was
    found to be right, `out` the directory that was published, if there is one.
    """

    sizes: Mapping[str, int]
    digests: Mapping[str, str | None]
    shared: Mapping[str, int] = field(default_factory=dict)
    verified: tuple[str, ...] = ()
    out: Path | None = None

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
    unit_bytes: int | None = None,
) -> Result:
    """Runs `plan` on the files of `source` into `sink`, all or nothing.

    `receipt` is given what was made and returns the bytes of one file more. `unit_bytes` bounds what a sink
    that cannot be read again has gathered for it, a unit a thread. Raises MalformedError for
    sources that are not as planned and ChangedError for those that changed on the way, DifferenceError for a
    failed check, UnsupportedError for what cannot be computed, PorterError when the system refuses to read
    or write. After an error the sink has published nothing.
    """
    options, watch = options or RunOptions(), watch or Watch()
    _check_names(plan)
    if not source.near and options.reflink == ALWAYS:
        raise UsageError(
            "--reflink always cannot share blocks with a source that is not on this machine",
            hint="porter download it first, or --keep-source, or leave out --reflink",
        )
    sizes = {name: size for name, size in plan.source_sizes.items() if _read(plan, name)}
    with ExitStack() as stack:
        files = stack.enter_context(OpenFiles(source, sizes))
        if source.near:
            # What is missing, or another one by now, ends the run before it has begun.
            for name in sizes:
                files[name]
            run_checks(plan, files)
        stack.enter_context(sink)
        kept = sink.begin({"plan": plan.hash, "sources": _versions(source, sizes)})
        copies = copies_by_target(plan)
        units = {file.name: list(file_units(plan, file, copies, unit_bytes)) for file in plan.files}
        tallies = {file.name: Tally(file.name, file.size, watch.progress) for file in plan.files}
        finished: dict[str, dict[tuple[int, int], int | None]] = {file.name: {} for file in plan.files}
        verified: tuple[str, ...] = ()
        digests: dict[str, str | None] = {}
        sizes_made: dict[str, int] = {}
        shared: dict[str, int] = {}
        with ExitStack() as passes:
            if not source.near and isinstance(sink, StreamSink):
                passed = passes.enter_context(
                    stream(plan, files, sink, units, tallies, kept, options=options, watch=watch)
                )
                files, finished, verified = passed.files, passed.finished, passed.verified
            if not source.near:
                run_checks(plan, files)
            for file in plan.files:
                writer = sink.create(file)
                parts = (file, units[file.name], files, sink, writer, tallies[file.name], options, watch)
                try:
                    written = FileRun(*parts, finished[file.name]).run(kept.get(file.name, {}))
                finally:
                    # The journal's thread must not touch a file that is closed.
                    sink.close(writer)
                digests[file.name], shared[file.name] = written.digest, written.shared
                sizes_made[file.name] = file.size
        for side in plan.side_files:
            digests[side.name], sizes_made[side.name] = sink.put(side.name, _content(side, source))
        if receipt is not None:
            made = Result(dict(sizes_made), dict(digests), shared, verified)
            digests[RECEIPT], sizes_made[RECEIPT] = sink.put(RECEIPT, [receipt(made)])
        source.check(touched(plan, source))
        sink.commit()
    return Result(sizes_made, digests, shared, verified)


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
