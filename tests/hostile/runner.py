"""One input, one process: porter's commands under an audit hook, with what they took and what they did.

The parent has imported everything and read the shipped tables, and forks for each command, so that what is
measured is the reading of the input: processor time, and the process's whole memory. The child may open files
of Python and of porter itself, the checkpoint, and what is in the folder that the output goes to; no socket,
no program, no code that was not there before.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Seconds of processor time and bytes after which a child is stopped: far beyond what is wanted.
_MOST_SECONDS = 20
_MOST_WALL = 300
_MOST_BYTES = 6 << 30
_MOST_OUTPUT = 16 << 20

REPOSITORY = Path(__file__).parents[2]

# Where Python's own modules lie, porter's, and what the system says of itself.
_OWN = tuple(
    {
        *(os.path.realpath(place) for place in (sys.prefix, sys.base_prefix, REPOSITORY / "porter")),
        os.path.realpath(REPOSITORY / "mappings"),
        str(REPOSITORY / ".venv"),
        "/usr/lib",
        "/usr/share/zoneinfo",
        "/etc/localtime",
        "/etc/ld.so.cache",
        "/lib",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/sys",
        "/dev/null",
        "/dev/urandom",
    }
)

_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.spawn",
    "os.startfile",
    "pty.spawn",
    "pickle.find_class",
    "ctypes.dlopen",
    "webbrowser.",
    "urllib.",
    "ftplib.",
    "http.",
    "smtplib.",
)

# The modules that make code of their own out of nothing that was read.
_MAKERS = ("dataclasses", "collections", "typing", "enum", "namedtuple", "functools", "importlib")


@dataclass
class Outcome:
    """How a command ended. `code` is None where it was stopped; `seconds` are of processor time."""

    code: int | None = None
    signal: int = 0
    seconds: float = 0.0
    wall: float = 0.0
    peak: int = 0
    unforeseen: str = ""
    traceback: str = ""
    said: str = ""
    printed: int = 0
    read: int = 0
    acting: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        return self.code not in (0, None)

    def faults(
        self, seconds: float = 1.0, peak: int = 200_000_000, right: Sequence[int] = (2, 3, 5, 6)
    ) -> list[str]:
        """What should not have happened."""
        found = []
        if self.signal:
            found.append(f"ended by signal {self.signal}")
        if self.code is None and not self.signal:
            found.append("stopped: it did not end")
        if self.unforeseen:
            found.append(f"unforeseen: {self.unforeseen}")
        if self.traceback:
            found.append(f"traceback: {self.traceback}")
        if self.refused and self.code not in right and not self.traceback:
            found.append(f"exit code {self.code}: {self.said[:200]}")
        if self.refused and self.seconds > seconds:
            found.append(f"refused after {self.seconds:.1f} s")
        if self.refused and self.peak > peak:
            found.append(f"refused with {self.peak // 10**6} MB")
        if self.printed > 1_000_000 + self.read:
            found.append(f"printed {self.printed} bytes")
        if self.acting:
            found.append(f"printed {self.acting}")
        return found + [f"did {event}" for event in self.events]


def run_command(arguments: Sequence[str], allowed: Sequence[Path], cwd: Path) -> Outcome:
    """`porter` with these arguments in a child; it may open what lies in `allowed`."""

    def act(outcome: dict[str, Any]) -> None:
        from porter.cli import output
        from porter.cli.app import app
        from porter.errors import UnforeseenError

        real = output.error

        def error(problem: Any) -> None:
            if isinstance(problem, UnforeseenError):
                outcome["unforeseen"] = str(problem)[:1_000]
            real(problem)

        output.error = error
        app(list(arguments), prog_name="porter")

    return in_child(act, allowed, cwd)


def in_child(
    act: Callable[[dict[str, Any]], None],
    allowed: Sequence[Path],
    cwd: Path,
    hooked: bool = True,
    wall: int = _MOST_WALL,
) -> Outcome:
    """What `act` does in a process of its own, for as many seconds as `wall` says."""
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(act, writer, [os.path.realpath(place) for place in allowed], cwd, hooked, wall)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        told = stream.read()
    status, usage = _waited(child)
    outcome = Outcome(
        seconds=usage.ru_utime + usage.ru_stime,
        wall=time.monotonic() - began,
        peak=usage.ru_maxrss * 1024,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
    )
    if outcome.signal in (signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM):
        outcome.signal = 0
    elif told:
        for name, value in json.loads(told).items():
            setattr(outcome, name, value)
    return outcome


def _waited(child: int) -> tuple[int, resource.struct_rusage]:
    _, status, usage = os.wait4(child, 0)
    return status, usage


def _child(act: Any, writer: int, allowed: list[str], cwd: Path, hooked: bool, wall: int) -> None:
    """Never returns."""
    outcome: dict[str, Any] = {"code": 0}
    out, err = io.StringIO(), io.StringIO()
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (_MOST_SECONDS, _MOST_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(wall)
        os.chdir(cwd)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        events: list[str] = []
        if hooked:
            sys.addaudithook(_hook(events, [*allowed, *_OWN, f"/proc/{os.getpid()}"]))
            # What is too large for memory is laid out beside the output.
            os.environ["TMPDIR"] = str(cwd)
            tempfile.tempdir = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                act(outcome)
            except SystemExit as done:
                outcome["code"] = done.code if isinstance(done.code, int) else int(bool(done.code))
        outcome["events"] = sorted(set(events))[:10]
    except BaseException as error:
        outcome["code"] = 1
        outcome["traceback"] = f"{type(error).__name__}: {str(error)[:300]}{_place(error)}"
    try:
        printed, said = out.getvalue(), err.getvalue()
        outcome["printed"] = len(printed) + len(said)
        outcome["said"] = said[:2_000]
        outcome["acting"] = sorted(
            {ascii(c) for c in set(printed[:_MOST_OUTPUT] + said) if not c.isprintable() and c != "\n"}
        )
        os.write(writer, json.dumps(outcome).encode())
    finally:
        os._exit(0)


def _place(error: BaseException) -> str:
    trace, lines = error.__traceback__, []
    while trace is not None:
        lines.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " at " + " ".join(lines[-3:])


def _hook(events: list[str], allowed: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    inside = tuple(allowed)

    def permitted(path: str) -> bool:
        real = os.path.realpath(path)
        return any(real == place or real.startswith(place.rstrip("/") + "/") for place in inside)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike) and not permitted(os.fsdecode(path)):
                events.append(f"open {os.fsdecode(path)!r:.200}")
        elif event == "exec":
            file = arguments[0].co_filename
            caller = sys._getframe(1).f_globals.get("__name__", "")
            made = file.startswith("<") and caller.split(".")[0] in _MAKERS
            if not made and not file.startswith("<frozen") and not permitted(file):
                events.append(f"exec {file!r:.200}")
        elif event == "ctypes.dlopen" and permitted(str(arguments[0])):
            return
        elif event.startswith(_FORBIDDEN):
            events.append(f"{event} {str(arguments)[:200]}")

    return hook
