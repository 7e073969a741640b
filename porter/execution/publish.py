"""`publish_plan`: a plan's output as a directory that appears by one rename, or as a folder in a bucket."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from porter.containers.array_files import exported
from porter.containers.array_names import ARRAY
from porter.errors import PorterError, UnsupportedError, UsageError
from porter.execution.driver import Driver
from porter.execution.executor import Result, execute
from porter.execution.run_options import ALWAYS, RunOptions
from porter.execution.sinks.bucket import BucketSink
from porter.execution.sinks.directory import DirectorySink
from porter.execution.staging import check_output
from porter.execution.watch import Watch
from porter.planning.plan import Plan
from porter.sources.base import Source
from porter.sources.buckets.bucket_address import BucketAddress
from porter.sources.buckets.bucket_source import BucketSource
from porter.sources.local_files import LocalSource
from porter.sources.overlay import OverlaySource

# Bytes. With the parts under way and what is read ahead, a run stays below 200 MB.
BUCKET_MEMORY = 32 << 20


def publish_plan(
    plan: Plan,
    source: Source,
    out: Path | BucketAddress,
    *,
    force: bool = False,
    inside: bool = False,
    options: RunOptions | None = None,
    watch: Watch | None = None,
    receipt: Callable[[Result], bytes] | None = None,
    driver: Driver | None = None,
) -> Result:
    """Runs `plan` on `source` and publishes the directory or folder `out`, all or nothing.

    `force` replaces a directory that holds a receipt. `inside` allows an `out` within the source's
    directory. Raises UsageError for an `out` that is in the way, and as `execute` does; Interrupted when the
    user has interrupted and the work can be resumed. After an error `out` is as it was before.
    """
    options, watch = options or RunOptions(), watch or Watch()
    if isinstance(out, BucketAddress):
        return _publish_bucket(plan, source, out, force, options, watch, receipt, driver)
    try:
        with ExitStack() as stack:
            root: Path | None = getattr(source, "root", None)
            out = check_output(out, root, _paths(source, plan), force=force, inside=inside)
            if isinstance(source, LocalSource):
                arrays = stack.enter_context(exported(source.root, plan.sources, out.parent))
                source = OverlaySource(source, arrays) if arrays else source
            sink = DirectorySink(
                out, plan.hash, force=force, far=not source.near, options=options, watch=watch
            )
            result = execute(plan, source, sink, options, watch, receipt, driver)
            return replace(result, out=out)
    except OSError as error:
        raise PorterError(f"the conversion to {out} failed", cause=str(error)) from error


def _publish_bucket(
    plan: Plan,
    source: Source,
    out: BucketAddress,
    force: bool,
    options: RunOptions,
    watch: Watch,
    receipt: Callable[[Result], bytes] | None,
    driver: Driver | None,
) -> Result:
    _refuse_own_source(out, source)
    if options.reflink == ALWAYS:
        raise UsageError("--reflink always: a bucket shares no blocks", hint="leave it out")
    # Buffers of the kernels; the parts under way come on top.
    options = replace(options, max_memory=min(options.max_memory, BUCKET_MEMORY))
    sink = BucketSink(out, force=force, options=options, watch=watch)
    with ExitStack() as stack:
        if isinstance(source, LocalSource):
            arrays = stack.enter_context(exported(source.root, plan.sources, Path(tempfile.gettempdir())))
            if arrays and driver is not None:
                raise UnsupportedError(
                    f"{source.label} cannot be read on other machines",
                    cause=f"{len(arrays)} of its arrays have to be written out first, on this machine",
                    hint="convert it without --on, or into a directory that all machines share",
                )
            source = OverlaySource(source, arrays) if arrays else source
        return execute(plan, source, sink, options, watch, receipt, driver)


def _refuse_own_source(out: BucketAddress, source: Source) -> None:
    """Raises UsageError where the source and the output lie in one another."""
    there = source.address if isinstance(source, BucketSource) else None
    if there is None or there.store_url != out.store_url:
        return
    one, two = f"{there.folder}/" if there.folder else "", f"{out.folder}/"
    if one.startswith(two) or two.startswith(one):
        raise UsageError(
            f"{out.url} and the source lie in one another",
            cause=f"the source is {there.url}",
            hint="choose an output elsewhere",
        )


def _paths(source: Source, plan: Plan) -> list[Path]:
    """The real paths of the source's files, where they are files here. Arrays may be in none of their own."""
    if not isinstance(source, LocalSource):
        return []
    copied = [side.copied_from for side in plan.side_files if side.copied_from is not None]
    return [source.path(name) for name in (*plan.source_sizes, *copied) if not name.startswith(ARRAY)]
