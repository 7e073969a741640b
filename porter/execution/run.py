"""Running a plan: checks first, then every file in a staging directory, then one rename.

Sources are only read. Memory stays bounded whatever the size of a tensor. torch is imported only when
the plan has tiles or values to compute.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from porter.containers import (
    hdf5,
    hdf5_writer,
    safetensors,
    safetensors_writer,
    torch_zip,
    torch_zip_writer,
)
from porter.containers.base import OutputFile
from porter.containers.safetensors import locate, unsafe_path
from porter.errors import PorterError, UnsupportedError
from porter.execution.checks import run_checks
from porter.execution.extents import move_extent
from porter.execution.files import SourceFile, WeightFile
from porter.execution.move import Move
from porter.execution.runs import move_runs
from porter.execution.staging import RECEIPT, check_output, publish, staging
from porter.planning.plan import COMPUTE, EXTENT, RUNS, TILE, Copy, Plan, SideFile

Progress = Callable[[str, int], None]
Digests = Mapping[str, str | None]

# What surrounds the data, by container.
_LITERALS: dict[str, Callable[[OutputFile], list[tuple[int, bytes]]]] = {
    safetensors.CONTAINER: safetensors_writer.literals,
    torch_zip.CONTAINER: torch_zip_writer.literals,
    hdf5.CONTAINER: hdf5_writer.literals,
}

# Bytes of a side file read at a time.
_SIDE_BUFFER = 1 << 20


@dataclass(frozen=True)
class ExecutionResult:
    """What was published: the directory, each file's size in bytes, and its `sha256:<hex>` where known."""

    out: Path
    sizes: Mapping[str, int]
    digests: Digests

    @property
    def bytes_written(self) -> int:
        return sum(self.sizes.values())


def execute(
    plan: Plan,
    source_root: Path,
    out: Path,
    *,
    force: bool = False,
    inside: bool = False,
    progress: Progress | None = None,
    receipt: Callable[[Digests], bytes] | None = None,
) -> ExecutionResult:
    """Runs `plan` on the files under `source_root` and publishes the directory `out`, all or nothing.

    `progress` is told of bytes written to weight files: (file, bytes since the last call); they add up to
    the files' sizes. `receipt` is given the digests of all other files and returns the receipt's bytes.
    `force` replaces a directory that holds a receipt. `inside` allows an `out` within `source_root`.

    Raises UsageError for an `out` that is in the way, MalformedError for sources that are not as planned,
    DifferenceError for a failed check, UnsupportedError for what cannot be computed, PorterError when
    the system refuses to read or write. After an error `out` is as it was before.
    """
    try:
        _check_names(plan)
        copied = [side.copied_from for side in plan.side_files if side.copied_from is not None]
        paths = {name: locate(source_root, name) for name in {*plan.source_sizes, *copied}}
        out = check_output(out, source_root, paths.values(), force=force, inside=inside)
        with _opened(paths, plan.source_sizes) as sources:
            run_checks(plan, sources)
            with staging(out) as stage:
                digests, sizes = _build(plan, stage, paths, sources, progress)
                if receipt is not None:
                    content = receipt(dict(digests))
                    digests[RECEIPT], sizes[RECEIPT] = _write_side(stage, RECEIPT, [content])
                publish(stage, out, force=force)
    except OSError as error:
        raise PorterError(f"the conversion to {out} failed", cause=str(error)) from error
    return ExecutionResult(out, sizes, digests)


def _build(
    plan: Plan,
    stage: Path,
    paths: Mapping[str, Path],
    sources: Mapping[str, SourceFile],
    progress: Progress | None,
) -> tuple[dict[str, str | None], dict[str, int]]:
    digests: dict[str, str | None] = {}
    sizes: dict[str, int] = {}
    copies = _copies_by_file(plan)
    for file in plan.files:
        digests[file.name] = _write_weights(plan, file, copies[file.name], stage, sources, progress)
        sizes[file.name] = file.size
    for side in plan.side_files:
        digests[side.name], sizes[side.name] = _write_side(stage, side.name, _content(side, paths))
    return digests, sizes


def _copies_by_file(plan: Plan) -> dict[str, list[Copy]]:
    """The copies into each file, in the order of their first byte there."""
    copies: dict[str, list[Copy]] = {file.name: [] for file in plan.files}
    for copy in plan.copies:
        copies[plan.target_by_name[copy.target].file].append(copy)
    for into in copies.values():
        into.sort(key=lambda copy: (plan.target_by_name[copy.target].offset, copy.target_offset))
    return copies


def _write_weights(
    plan: Plan,
    file: OutputFile,
    copies: Iterable[Copy],
    stage: Path,
    sources: Mapping[str, SourceFile],
    progress: Progress | None,
) -> str | None:
    literals = _LITERALS.get(file.container)
    if literals is None:
        raise UnsupportedError(f"{file.name}: cannot write the container {file.container}")
    path = _staged(stage, file.name)
    with WeightFile(path, file.name, file.size, progress) as writer:
        pending = sorted(literals(file))
        for copy in copies:
            source, target = plan.source_by_name[copy.source], plan.target_by_name[copy.target]
            # Headers come before data, trailers after them, so that the file is written in order.
            while pending and pending[0][0] < target.offset:
                writer.write(*pending.pop(0))
            _run(Move(copy, source, target, sources[source.file], writer))
        for offset, data in pending:
            writer.write(offset, data)
        writer.finish()
        return writer.digest


def _run(move: Move) -> None:
    move.check()
    if move.copy.copy_class == EXTENT:
        move_extent(move)
    elif move.copy.copy_class == RUNS:
        move_runs(move)
    elif move.copy.copy_class == TILE:
        from porter.execution.tiles import move_tiles

        move_tiles(move)
    elif move.copy.copy_class == COMPUTE:
        from porter.execution.compute import move_values

        move_values(move)
    else:
        raise PorterError(f"{move.label}: unknown class {move.copy.copy_class!r}")


def _content(side: SideFile, paths: Mapping[str, Path]) -> Iterator[bytes]:
    if side.copied_from is None:
        yield side.content or b""
        return
    with paths[side.copied_from].open("rb") as stream:
        while piece := stream.read(_SIDE_BUFFER):
            yield piece


def _write_side(stage: Path, name: str, pieces: Iterable[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with _staged(stage, name).open("xb") as stream:
        for piece in pieces:
            stream.write(piece)
            digest.update(piece)
            size += len(piece)
        stream.flush()
        os.fsync(stream.fileno())
    return f"sha256:{digest.hexdigest()}", size


def _staged(stage: Path, name: str) -> Path:
    path = stage / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _check_names(plan: Plan) -> None:
    seen = {RECEIPT}
    for name in (*(file.name for file in plan.files), *(side.name for side in plan.side_files)):
        if reason := unsafe_path(name):
            raise PorterError(f"the plan names an unsafe output file {name!r}", cause=f"it {reason}")
        if name in seen:
            raise PorterError(f"the plan writes {name} twice")
        seen.add(name)


@contextmanager
def _opened(paths: Mapping[str, Path], sizes: Mapping[str, int]) -> Iterator[dict[str, SourceFile]]:
    with ExitStack() as stack:
        sources = {}
        for name, size in sizes.items():
            sources[name] = SourceFile(paths[name], name, size)
            stack.callback(sources[name].close)
        yield sources
