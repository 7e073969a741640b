"""`publish_plan`: a plan's output as a directory that appears by one rename."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from porter.containers.array_files import exported
from porter.containers.array_names import ARRAY
from porter.errors import PorterError
from porter.execution.executor import Result, execute
from porter.execution.leftovers import fresh_name
from porter.execution.run_options import RunOptions
from porter.execution.sinks.directory import DirectorySink
from porter.execution.staging import check_output
from porter.execution.watch import Watch
from porter.planning.plan import Plan
from porter.sources.base import Source
from porter.sources.local_files import LocalSource
from porter.sources.overlay import OverlaySource


def publish_plan(
    plan: Plan,
    source: Source,
    out: Path,
    *,
    force: bool = False,
    inside: bool = False,
    options: RunOptions | None = None,
    watch: Watch | None = None,
    receipt: Callable[[Result], bytes] | None = None,
) -> Result:
    """Runs `plan` on `source` and publishes the directory `out`, all or nothing.

    `force` replaces a directory that holds a receipt. `inside` allows an `out` within the source's
    directory. Raises UsageError for an `out` that is in the way, and as `execute` does; Interrupted when the
    user has interrupted and the work can be resumed. After an error `out` is as it was before.
    """
    options, watch = options or RunOptions(), watch or Watch()
    try:
        with ExitStack() as stack:
            root: Path | None = getattr(source, "root", None)
            out = check_output(out, root, _paths(source, plan), force=force, inside=inside)
            if isinstance(source, LocalSource):
                arrays = stack.enter_context(exported(source.root, plan.sources, fresh_name(out, "arrays")))
                source = OverlaySource(source, arrays) if arrays else source
            sink = DirectorySink(
                out, plan.hash, force=force, far=not source.near, options=options, watch=watch
            )
            result = execute(plan, source, sink, options, watch, receipt)
            return replace(result, out=out)
    except OSError as error:
        raise PorterError(f"the conversion to {out} failed", cause=str(error)) from error
    except MemoryError as error:
        raise PorterError(
            f"the conversion to {out} failed",
            cause="the system gives no more memory",
            hint="--max-memory 128MB takes less",
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


def _paths(source: Source, plan: Plan) -> list[Path]:
    """The real paths of the source's files, where they are files here. Arrays may be in none of their own."""
    if not isinstance(source, LocalSource):
        return []
    copied = [side.copied_from for side in plan.side_files if side.copied_from is not None]
    return [source.path(name) for name in (*plan.source_sizes, *copied) if not name.startswith(ARRAY)]
