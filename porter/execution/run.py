"""Running a plan: checks first, then every file in a staging directory, then one rename.

Sources are only read. Memory stays bounded whatever the size of a tensor. torch is imported only when
the plan has values to compute. A run that is killed or interrupted leaves what the same run can
go on with; any other failure leaves nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from porter.containers.orbax.orbax_arrays import exported
from porter.containers.orbax.orbax_tree import ARRAY
from porter.containers.paths import locate, unsafe_path
from porter.errors import PorterError
from porter.execution.checks import run_checks
from porter.execution.journal import NAME as JOURNAL
from porter.execution.journal import Journal, Range, read_journal
from porter.execution.open_files import SourceFile
from porter.execution.run_options import ExecutionOptions
from porter.execution.staging import RECEIPT, Stage, check_output, publish, staging
from porter.execution.weights import Callbacks, write_weights
from porter.planning.plan import Plan, SideFile

Progress = Callable[[str, int], None]
Digests = Mapping[str, str | None]

# Bytes of a side file read at a time.
_SIDE_BUFFER = 1 << 20


@dataclass(frozen=True)
class ExecutionResult:
    """What was published: the directory, each file's size in bytes, its `sha256:<hex>` where known, and how
    many bytes of each weight file share their blocks with a source.
    """

    out: Path
    sizes: Mapping[str, int]
    digests: Digests
    shared: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes_written(self) -> int:
        return sum(self.sizes.values())


class Interrupted(KeyboardInterrupt):
    """The user interrupted a run; the same run will not have to move `kept` bytes again."""

    def __init__(self, kept: int) -> None:
        super().__init__(kept)
        self.kept = kept


def execute(
    plan: Plan,
    source_root: Path,
    out: Path,
    *,
    force: bool = False,
    inside: bool = False,
    options: ExecutionOptions | None = None,
    progress: Progress | None = None,
    moving: Callable[[str], None] | None = None,
    notice: Callable[[str], None] | None = None,
    receipt: Callable[[Digests], bytes] | None = None,
) -> ExecutionResult:
    """Runs `plan` on the files under `source_root` and publishes the directory `out`, all or nothing.

    `progress` is told of bytes written to weight files: (file, bytes since the last call); they add up to
    the files' sizes. `moving` is told of each target tensor that is begun, `notice` of what a user should
    know; both may be called from other threads. `receipt` is given the digests of all other files and
    returns the receipt's bytes. `force` replaces a directory that holds a receipt. `inside` allows an
    `out` within `source_root`.

    Raises UsageError for an `out` that is in the way, MalformedError for sources that are not as planned,
    DifferenceError for a failed check, UnsupportedError for what cannot be computed, PorterError when
    the system refuses to read or write, Interrupted when the user has interrupted and the work can be
    resumed. After an error `out` is as it was before.
    """
    options = options or ExecutionOptions()
    callbacks = Callbacks(progress, moving or _ignore, notice or _ignore)
    try:
        check_names(plan)
        copied = [side.copied_from for side in plan.side_files if side.copied_from is not None]
        plain = {name for name in plan.source_sizes if not name.startswith(ARRAY)}
        paths = {name: locate(source_root, name) for name in {*plain, *copied}}
        out = check_output(out, source_root, paths.values(), force=force, inside=inside)
        with (
            exported(source_root, plan.sources, out.parent) as arrays,
            _opened({**paths, **arrays}, _read(plan)) as sources,
        ):
            run_checks(plan, sources)
            with staging(out, plan.hash, callbacks.notice, force=force) as stage:
                key = {
                    "plan": plan.hash,
                    "sources": {name: [file.size, file.modified] for name, file in sources.items()},
                }
                kept = _kept(stage, key, options, callbacks)
                with _journal(stage, key, kept, options) as journal:
                    digests, sizes, shared = _build(
                        plan, stage.path, paths, sources, options, callbacks, journal, kept
                    )
                    if receipt is not None:
                        content = receipt(dict(digests))
                        digests[RECEIPT], sizes[RECEIPT] = write_side(stage.path, RECEIPT, [content])
                    publish(stage, out, force=force, files=sizes)
    except OSError as error:
        raise PorterError(f"the conversion to {out} failed", cause=str(error)) from error
    return ExecutionResult(out, sizes, digests, shared)


def _ignore(text: str) -> None:
    pass


def _kept(
    stage: Stage, key: Mapping[str, object], options: ExecutionOptions, callbacks: Callbacks
) -> dict[str, dict[Range, int]]:
    """What an earlier run has left and noted; where that cannot be used, the directory is emptied."""
    kept = read_journal(stage.journal, key) if options.resume else None
    if kept is None:
        if stage.journal.exists():
            why = "a source file has changed since" if options.resume else "as asked for"
            callbacks.notice(f"an unfinished conversion is started anew: {why}")
        stage.clear()
        return {}
    return kept


@contextmanager
def _journal(
    stage: Stage,
    key: Mapping[str, object],
    kept: Mapping[str, Mapping[Range, int]],
    options: ExecutionOptions,
) -> Iterator[Journal | None]:
    """A journal, if the run is to be resumable; the staging directory is kept if there is cause to."""
    if not options.resume:
        yield None
        return
    with Journal(stage.journal, key, kept) as journal:
        try:
            yield journal
        except KeyboardInterrupt:
            stage.keep = journal.noted > 0 and stage.journal.exists()
            if stage.keep:
                raise Interrupted(journal.noted) from None
            raise
        except PorterError as error:
            # A network that broke is no reason to fetch again what has come.
            stage.keep = bool(getattr(error, "resumable", False)) and journal.noted > 0
            raise


def _build(
    plan: Plan,
    stage: Path,
    paths: Mapping[str, Path],
    sources: Mapping[str, SourceFile],
    options: ExecutionOptions,
    callbacks: Callbacks,
    journal: Journal | None,
    kept: Mapping[str, Mapping[Range, int]],
) -> tuple[dict[str, str | None], dict[str, int], dict[str, int]]:
    digests: dict[str, str | None] = {}
    sizes: dict[str, int] = {}
    shared: dict[str, int] = {}
    if kept:
        done = sum(end - start for ranges in kept.values() for start, end in ranges)
        callbacks.notice(f"going on where an earlier run was stopped, {done / 1e9:.2f} GB into the work")
    for file in plan.files:
        ranges = kept.get(file.name, {})
        path = _staged(stage, file.name)
        written = write_weights(plan, file, path, sources, options, callbacks, journal, ranges)
        digests[file.name], shared[file.name] = written.digest, written.shared
        sizes[file.name] = file.size
    for side in plan.side_files:
        digests[side.name], sizes[side.name] = write_side(stage, side.name, side_content(side, paths))
    return digests, sizes, shared


def side_content(side: SideFile, paths: Mapping[str, Path]) -> Iterator[bytes]:
    """A small file's content, piece by piece; `paths` are those of the files that are copied."""
    if side.copied_from is None:
        yield side.content or b""
        return
    with paths[side.copied_from].open("rb") as stream:
        while piece := stream.read(_SIDE_BUFFER):
            yield piece


def write_side(stage: Path, name: str, pieces: Iterable[bytes]) -> tuple[str, int]:
    """Writes a small file durably; its `sha256:<hex>` and size in bytes."""
    digest, size = hashlib.sha256(), 0
    with _fresh(stage, name).open("xb") as stream:
        for piece in pieces:
            stream.write(piece)
            digest.update(piece)
            size += len(piece)
        stream.flush()
        os.fsync(stream.fileno())
    return f"sha256:{digest.hexdigest()}", size


def _fresh(stage: Path, name: str) -> Path:
    path = _staged(stage, name)
    path.unlink(missing_ok=True)
    return path


def _staged(stage: Path, name: str) -> Path:
    path = stage / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def check_names(plan: Plan) -> None:
    """Raises PorterError if two files of the output have one name, or one has an unsafe name."""
    seen = {RECEIPT, JOURNAL}
    for name in (*(file.name for file in plan.files), *(side.name for side in plan.side_files)):
        if reason := unsafe_path(name):
            raise PorterError(f"the plan names an unsafe output file {name!r}", cause=f"it {reason}")
        if name in seen:
            raise PorterError(f"the plan writes {name} twice")
        seen.add(name)


def _read(plan: Plan) -> dict[str, int]:
    """Sizes of the files to open. Arrays that the plan does not read have not been written out."""
    needed = {tensor.file for tensor in plan.sources}
    return {
        name: size for name, size in plan.source_sizes.items() if name in needed or not name.startswith(ARRAY)
    }


@contextmanager
def _opened(paths: Mapping[str, Path], sizes: Mapping[str, int]) -> Iterator[dict[str, SourceFile]]:
    with ExitStack() as stack:
        sources = {}
        for name, size in sizes.items():
            sources[name] = SourceFile(paths[name], name, size)
            stack.callback(sources[name].close)
        yield sources
