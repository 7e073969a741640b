"""Running a plan from far away: as `porter.execution.run`, with the sources streamed and never stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from porter.containers.paths import locate
from porter.containers.torch import torch_zip
from porter.errors import PorterError
from porter.execution.open_files import WeightFile
from porter.execution.run import (
    Digests,
    ExecutionResult,
    Interrupted,
    Progress,
    check_names,
    side_content,
    write_side,
)
from porter.execution.run_options import ALWAYS, ExecutionOptions
from porter.execution.staging import RECEIPT, Stage, check_output, publish, staging
from porter.execution.streaming import RemoteSource, Stream
from porter.execution.weights import literals_of
from porter.planning.plan import Plan


def execute_remote(
    plan: Plan,
    source: RemoteSource,
    small_files: Path,
    out: Path,
    *,
    force: bool = False,
    options: ExecutionOptions | None = None,
    progress: Progress | None = None,
    moving: Callable[[str], None] | None = None,
    notice: Callable[[str], None] | None = None,
    receipt: Callable[[Digests, list[str]], bytes] | None = None,
) -> ExecutionResult:
    """Runs `plan` on files that are read by ranges, and publishes the directory `out`, all or nothing.

    `small_files` is the directory of the config and tokenizer files that are copied. `receipt` is given
    the digests of the output's files and the source files whose sha256 was verified on the way. Raises as
    `porter.execution.run.execute`; after a network that broke the work can be resumed.
    """
    notice = notice or (lambda text: None)
    moving = moving or (lambda text: None)
    options = options or ExecutionOptions()
    try:
        check_names(plan)
        copied = [side.copied_from for side in plan.side_files if side.copied_from is not None]
        paths = {name: locate(small_files, name) for name in copied}
        out = check_output(out, small_files, paths.values(), force=force)
        with staging(out, plan.hash, notice, force=force) as stage:
            if not options.resume:
                stage.clear()
            verified = _stream(plan, source, stage, options, progress, moving, notice)
            digests: dict[str, str | None] = {
                file.name: _digest(stage.path / file.name) if options.digest == ALWAYS else None
                for file in plan.files
            }
            sizes = {file.name: file.size for file in plan.files}
            for side in plan.side_files:
                content = side_content(side, paths)
                digests[side.name], sizes[side.name] = write_side(stage.path, side.name, content)
            if receipt is not None:
                text = receipt(dict(digests), verified)
                digests[RECEIPT], sizes[RECEIPT] = write_side(stage.path, RECEIPT, [text])
            stage.journal.unlink(missing_ok=True)
            publish(stage, out, force=force, files=sizes)
    except OSError as error:
        raise PorterError(f"the conversion to {out} failed", cause=str(error)) from error
    return ExecutionResult(out, sizes, digests)


def _stream(
    plan: Plan,
    source: RemoteSource,
    stage: Stage,
    options: ExecutionOptions,
    progress: Progress | None,
    moving: Callable[[str], None],
    notice: Callable[[str], None],
) -> list[str]:
    with ExitStack() as stack:
        writers = {
            file.name: stack.enter_context(
                WeightFile(_made(stage, file.name), file.name, file.size, progress)
            )
            for file in plan.files
        }
        for writer in writers.values():
            writer.reserve()
        stream = Stream(plan, source, writers, stage.path, stage.journal, notice, moving, options)
        try:
            verified = stream.run()
        except KeyboardInterrupt:
            stage.keep = stream.noted > 0
            if stage.keep:
                raise Interrupted(stream.noted) from None
            raise
        except PorterError as error:
            # What has arrived is right, or the digest at the end will say so; bad bytes are not kept.
            stage.keep = stream.noted > 0 and error.exit_code == PorterError.exit_code
            if stage.keep:
                error.hint = (
                    f"{error.hint}; the same command goes on" if error.hint else "run it again to go on"
                )
            raise
        for file in plan.files:
            writer = writers[file.name]
            crcs = stream.tensor_crcs(file) if file.container == torch_zip.CONTAINER else None
            for offset, content in literals_of(file, crcs):
                writer.write(offset, content)
            writer.finish()
    return verified


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _made(stage: Stage, name: str) -> Path:
    path = stage.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
