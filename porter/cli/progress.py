"""Progress on stderr: a bar on a terminal, otherwise a line a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from porter.cli import output
from porter.planning.plan import Plan
from porter.reporting.text import printable, size

Advance = Callable[[str, int], None]


class Watch:
    """What a conversion is told to call: with a file's name and the bytes written since the last call, and
    with the name of each tensor that it begins with. Silent by itself.
    """

    def __call__(self, name: str, written: int) -> None:
        pass

    def moving(self, tensor: str) -> None:
        pass


@contextmanager
def progress(verb: str, plan: Plan) -> Iterator[Watch]:
    """A watch over the files of a plan."""
    if output.settings.quiet:
        yield Watch()
    elif sys.stderr.isatty():
        with _bar(verb, plan) as watch:
            yield watch
    else:
        yield _Lines(verb, plan)


@contextmanager
def _bar(verb: str, plan: Plan) -> Iterator[Watch]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

    console = Console(stderr=True, no_color=not output.colored(sys.stderr))
    columns = (
        TextColumn(f"{verb:<8}"),
        BarColumn(bar_width=12),
        TextColumn("{task.percentage:>3.0f}%"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        # What is left of the line, so that a long name never squeezes the numbers.
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True)),
    )
    with Progress(*columns, console=console, expand=True) as bars:
        task = bars.add_task("", total=sum(file.size for file in plan.files))

        class Bar(Watch):
            def __call__(self, name: str, written: int) -> None:
                bars.advance(task, written)

            def moving(self, tensor: str) -> None:
                bars.update(task, description=escape(printable(tensor)))

        yield Bar()
        bars.update(task, description="")


class _Lines(Watch):
    """A line a file, when it is written."""

    def __init__(self, verb: str, plan: Plan) -> None:
        self._verb = verb
        self._left = {file.name: file.size for file in plan.files}
        self._sizes = dict(self._left)
        self._begun = time.monotonic()

    def __call__(self, name: str, written: int) -> None:
        if self._left.get(name, 0) <= 0:
            return
        self._left[name] -= written
        if self._left[name] > 0:
            return
        now = time.monotonic()
        seconds, self._begun = max(now - self._begun, 1e-3), now
        total = self._sizes[name]
        output.say(f"{self._verb:<8} {name} {size(total)} in {seconds:.1f} s, {size(total / seconds)}/s")


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
    from rich.markup import escape
    from rich.progress import FileSizeColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn
    from rich.table import Column

    console = Console(stderr=True, no_color=not output.colored(sys.stderr))
    columns = (
        SpinnerColumn(),
        TextColumn(f"{verb:<8}"),
        FileSizeColumn(),
        TransferSpeedColumn(),
        # What is left of the line, so that it never breaks.
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True)),
    )
    with Progress(*columns, console=console, expand=True) as bars:
        task = bars.add_task("", total=None)

        def advance(name: str, came: int) -> None:
            bars.update(task, advance=came, description=escape(printable(name)))

        yield advance
