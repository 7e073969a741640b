"""`publish_plan`: a plan's output as a directory that appears by one rename, or as a folder in a bucket."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from porter.containers.array_files import overlaid
from porter.containers.array_names import ARRAY
from porter.errors import PorterError, UnsupportedError, UsageError, refused
from porter.execution.driver import Driver
from porter.execution.executor import Result, execute
from porter.execution.leftovers import fresh_name
from porter.execution.preflight import preflight
from porter.execution.run_options import ALWAYS, RunOptions
from porter.execution.runnable import check_values
from porter.execution.sinks.bucket import BucketSink, check_address, check_bucket
from porter.execution.sinks.claim import in_use, read_claim
from porter.execution.sinks.directory import DirectorySink
from porter.execution.watch import Watch
from porter.planning.plan import Plan
from porter.sources.base import Source
from porter.sources.buckets.bucket_address import BucketAddress
from porter.sources.buckets.bucket_source import BucketSource
from porter.sources.local_files import LocalSource
from porter.wording import option

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
            out = preflight(
                plan,
                out,
                root,
                source_paths(source, plan),
                force=force,
                inside=inside,
                near=source.near,
                options=options,
            )
            source = stack.enter_context(overlaid(source, plan.sources, fresh_name(out, "arrays")))
            sink = DirectorySink(
                out, plan.hash, force=force, far=not source.near, options=options, watch=watch
            )
            result = execute(plan, source, sink, options, watch, receipt, driver)
            return replace(result, out=out)
    except OSError as error:
        raise refused(f"the conversion to {out} failed", error, _named(error, out)) from error
    except MemoryError as error:
        raise PorterError(
            f"the conversion to {out} failed",
            cause="the system gives no more memory",
            hint=f"{option('max-memory', '128MB')} takes less",
        ) from error
    except RuntimeError as error:
        # Python has no error of its own for it.
        if "start new thread" not in str(error):
            raise
        raise PorterError(
            f"the conversion to {out} failed",
            cause="the system starts no more threads",
            hint="close other programs, or raise the limit of processes (ulimit -u)",
        ) from error


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
    preflight_bucket(out, source, plan=plan, force=force, options=options)
    # Buffers of the kernels; the parts under way come on top.
    options = replace(options, max_memory=min(options.max_memory, BUCKET_MEMORY))
    sink = BucketSink(out, force=force, options=options, watch=watch)
    if driver is not None:
        _refuse_arrays(plan, source)
    with overlaid(source, plan.sources) as whole:
        return execute(plan, whole, sink, options, watch, receipt, driver)


def _refuse_arrays(plan: Plan, source: Source) -> None:
    """Raises UnsupportedError for a source of which only this machine could read all."""
    if any(tensor.file.startswith(ARRAY) for tensor in plan.sources):
        raise UnsupportedError(
            f"{source.label} cannot be read on other machines",
            cause="some of its arrays have to be written out first, on this machine",
            hint=f"convert it without {option('on')}, or into a directory that all machines share",
        )


def preflight_bucket(
    out: BucketAddress,
    source: Source,
    *,
    plan: Plan | None = None,
    force: bool = False,
    options: RunOptions | None = None,
) -> None:
    """Raises what would be refused without a byte of the source, as `preflight` does for a directory."""
    check_address(out)
    if plan is not None:
        check_values(plan)
    _refuse_own_source(out, source)
    if options is not None and options.reflink == ALWAYS:
        raise UsageError(f"{option('reflink', 'always')}: a bucket shares no blocks", hint="leave it out")
    before = read_claim(out)
    if before is not None and before.in_use:
        raise in_use(out)
    # What a run was killed over while it was published is settled by the run that comes next.
    if before is None:
        check_bucket(out, force=force)


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


def _named(error: OSError, out: Path) -> str | None:
    """The path that an error names; the output where that is a staging directory's or a lock's."""
    name = error.filename
    return str(out) if isinstance(name, str) and f".{out.name}.porter" in name else None


def source_paths(source: Source, plan: Plan) -> list[Path]:
    """The real paths of the source's files, where they are files here. Arrays may be in none of their own."""
    if not isinstance(source, LocalSource):
        return []
    copied = [side.copied_from for side in plan.side_files if side.copied_from is not None]
    return [source.path(name) for name in (*plan.source_sizes, *copied) if not name.startswith(ARRAY)]
