"""Progress on stderr: a bar on a terminal, otherwise a line a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from porter.cli import output
from porter.planning.plan import Plan
from porter.reporting.text import size

Advance = Callable[[str, int], None]


@contextmanager
def progress(verb: str, plan: Plan) -> Iterator[Advance]:
    """A callback that takes a file's name and the bytes written since the last call."""
    if output.settings.quiet:
        yield lambda name, written: None
    elif sys.stderr.isatty():
        with _bar(verb, plan) as advance:
            yield advance
    else:
        yield _lines(verb, plan)


@contextmanager
def _bar(verb: str, plan: Plan) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, no_color=not output.colored(sys.stderr))
    columns = (TextColumn(f"{verb:<8}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(verb, total=plan.weight_bytes)
        yield lambda name, written: bars.advance(task, written)


def _lines(verb: str, plan: Plan) -> Advance:
    totals = {file.name: sum(tensor.nbytes for tensor in file.tensors) for file in plan.files}
    done: dict[str, int] = {}

    def advance(name: str, written: int) -> None:
        before = done.get(name, 0)
        done[name] = before + written
        total = totals.get(name)
        if total is not None and before < total <= done[name]:
            output.say(f"{verb:<8} {name} {size(total)}")

    return advance


@contextmanager
def transfer(verb: str) -> Iterator[Advance]:
    """A callback for transfers whose total is not known before: a file's name and the bytes that came."""
    if output.settings.quiet:
        yield lambda name, came: None
        return
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def line(name: str, came: int) -> None:
            if name not in seen:
                seen.add(name)
                output.say(f"{verb:<8} {name}")

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TotalFileSizeColumn, TransferSpeedColumn

    console = Console(stderr=True, no_color=not output.colored(sys.stderr))
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TotalFileSizeColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def advance(name: str, came: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(f"{verb} {name}", total=0)
            task = bars.tasks[bars.task_ids.index(tasks[name])]
            bars.update(tasks[name], advance=came, total=task.completed + came)

        yield advance
