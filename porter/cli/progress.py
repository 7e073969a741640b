"""Progress on stderr: a bar on a terminal, otherwise a line a file."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from porter.cli import output
from porter.planning.plan import Plan
from porter.reporting.text import printable, size
from porter.sources.weight_files import at_top

if TYPE_CHECKING:
    from rich.progress import Progress


class Watch:
    """What a conversion is told to call: with a file's name and the bytes written since the last call, with
    the name of each tensor that it begins with, and with bytes of a source file as they come from afar.
    Silent by itself.
    """

    def __call__(self, name: str, written: int) -> None:
        pass

    def moving(self, tensor: str) -> None:
        pass

    def arriving(self, name: str, come: int) -> None:
        pass


class Advance:
    """What a transfer is told to call: with a file's name and the bytes that came, and before with how many
    there will be, where that is known. Silent by itself.
    """

    def __call__(self, name: str, came: int) -> None:
        pass

    def expect(self, total: int) -> None:
        pass


@contextmanager
def progress(verb: str, plan: Plan) -> Iterator[Watch]:
    """A watch over the files of a plan."""
    if output.settings.quiet:
        yield Watch()
    elif sys.stderr.isatty():
        with _stopped(_bars(verb)) as bars:
            yield (watch := _Bar(bars, plan))
            watch.end()
    else:
        yield _Lines(verb, plan)


@contextmanager
def transfer(verb: str) -> Iterator[Advance]:
    """A callback for transfers whose total is not known before, or is told later."""
    if output.settings.quiet:
        yield Advance()
    elif sys.stderr.isatty():
        with _stopped(_bars(verb)) as bars:
            yield (advance := _TransferBar(bars))
            advance.end()
    else:
        yield _Names(verb)


@contextmanager
def _stopped(bars: Progress) -> Iterator[Progress]:
    """Bars that are shown from their first news on: what fails before that leaves none behind."""
    try:
        yield bars
    finally:
        bars.stop()
        # Threads may have news after the end.
        bars.disable = True


def _bars(verb: str) -> Progress:
    """One line that fits: how much of how much, how fast of late, how long still, and what is under way."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        Task,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Percent(TextColumn):
        def render(self, task: Task) -> Text:
            return super().render(task) if task.total else Text("")

    class Amount(DownloadColumn):
        def render(self, task: Task) -> Text:
            return super().render(task) if task.total else Text(size(task.completed))

    class Speed(TransferSpeedColumn):
        def render(self, task: Task) -> Text:
            return super().render(task) if task.finished_speed or task.speed else Text("")

    return Progress(
        TextColumn(f"{verb:<8}"),
        # Where no total is known it only shows that something goes on.
        BarColumn(bar_width=12),
        Percent("{task.percentage:>3.0f}%"),
        Amount(),
        Speed(),
        TimeRemainingColumn(),
        # What is left of the line, so that a long name never squeezes the numbers.
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True)),
        console=Console(stderr=True, no_color=not output.colored(sys.stderr)),
        expand=True,
        speed_estimate_period=_SMOOTHED,
    )


# Seconds over which a rate is taken: long enough that it can be read, short enough to show a link that slows.
_SMOOTHED = 10.0


class _Bar(Watch):
    """A conversion's. What comes from afar counts when it comes, and not again when it is written: a range of
    a file is written only when all of it is there, which on a slow link takes minutes.
    """

    def __init__(self, bars: Progress, plan: Plan) -> None:
        self._bars = bars
        total = sum(file.size for file in plan.files)
        self._task = bars.add_task("", total=total)
        # Bytes of the output for one that comes, where it is to be smaller.
        self._share = min(1.0, total / max(1, sum(plan.source_sizes.values())))
        self._ahead = 0.0
        self._lock = threading.Lock()

    def __call__(self, name: str, written: int) -> None:
        with self._lock:
            self._bars.start()
            counted = min(self._ahead, written)
            self._ahead -= counted
            self._bars.advance(self._task, written - counted)

    def arriving(self, name: str, come: int) -> None:
        with self._lock:
            self._bars.start()
            self._ahead += come * self._share
            self._bars.advance(self._task, come * self._share)

    def moving(self, tensor: str) -> None:
        from rich.markup import escape

        with self._lock:
            self._bars.start()
        self._bars.update(self._task, description=escape(printable(tensor)))

    def end(self) -> None:
        self._bars.update(self._task, description="", completed=self._bars.tasks[0].total)


class _Lines(Watch):
    """A line a file, when it is written; one for a folder, which may hold an array in each of its files."""

    def __init__(self, verb: str, plan: Plan) -> None:
        self._verb = verb
        self._sizes = Counter[str]()
        for file in plan.files:
            self._sizes[at_top(file.name)] += file.size
        self._left = dict(self._sizes)
        self._begun = time.monotonic()

    def __call__(self, name: str, written: int) -> None:
        name = at_top(name)
        if self._left.get(name, 0) <= 0:
            return
        self._left[name] -= written
        if self._left[name] > 0:
            return
        now = time.monotonic()
        seconds, self._begun = max(now - self._begun, 1e-3), now
        total = self._sizes[name]
        output.say(f"{self._verb:<8} {name} {size(total)} in {seconds:.1f} s, {size(total / seconds)}/s")


class _TransferBar(Advance):
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None)
        self._came = 0
        self._lock = threading.Lock()

    def __call__(self, name: str, came: int) -> None:
        from rich.markup import escape

        with self._lock:
            self._bars.start()
            self._came += came
        self._bars.update(self._task, advance=came, description=escape(printable(name)))

    def expect(self, total: int) -> None:
        with self._lock:
            self._bars.start()
        # What is read twice is expected twice.
        self._bars.update(self._task, total=self._came + total if total else None)

    def end(self) -> None:
        self._bars.update(self._task, description="")


class _Names(Advance):
    """A line a file, when its first bytes come."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._seen: set[str] = set()

    def __call__(self, name: str, came: int) -> None:
        if name not in self._seen:
            self._seen.add(name)
            output.say(f"{self._verb:<8} {name}")
