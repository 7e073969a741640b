"""What every command shares: its options, and the one place where errors become exit codes."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from porter.cli import output, streams
from porter.errors import PorterError, UnsupportedError, stopped
from porter.wording import typed

# 128 + SIGINT, as shells report it.
_INTERRUPTED = 130


class Color(StrEnum):
    """When to use colours."""

    auto = "auto"
    always = "always"
    never = "never"


_PANEL = "Everywhere"
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no notes.", rich_help_panel=_PANEL)
]
ColorOption = Annotated[
    Color,
    typer.Option("--color", metavar="WHEN", help="Colours: auto, always, never.", rich_help_panel=_PANEL),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Never use the network.", rich_help_panel=_PANEL)
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=_PANEL)]

_SHARED: dict[str, tuple[Any, Any]] = {
    "quiet": (QuietOption, False),
    "color": (ColorOption, Color.auto),
    "offline": (OfflineOption, False),
    "debug": (DebugOption, False),
}
# What of them stood before the command's name: `porter --quiet convert …`.
_before: dict[str, Any] = {}


def set_before(**given: Any) -> None:
    """Note the shared options that stand before the command's name; those behind it go before them."""
    _before.clear()
    _before.update(given)


def _unforeseen(problem: Exception) -> PorterError:
    if isinstance(problem, MemoryError):
        return UnsupportedError("there is not enough memory", hint="close what else runs")
    return PorterError(
        "porter has failed in a way that it does not know",
        cause=f"{type(problem).__name__}: {problem}",
        hint="please report it, with what --debug shows",
    )


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the shared options, and turn errors into messages and exit codes."""

    @functools.wraps(function)
    @typed()
    def run(**arguments: Any) -> None:
        for name, (_, default) in _SHARED.items():
            said = arguments.pop(name)
            setattr(output.settings, name, said if said != default else _before.get(name, default))
        output.settings.color = str(output.settings.color)
        if output.settings.offline:
            os.environ["HF_HUB_OFFLINE"] = "1"
        try:
            function(**arguments)
            streams.flush()
        except PorterError as problem:
            if output.settings.debug:
                traceback.print_exc()
            output.error(problem)
            raise SystemExit(problem.exit_code) from None
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            raise SystemExit(_INTERRUPTED) from None
        except streams.ReaderGone:
            raise SystemExit(0) from None
        except OSError as problem:
            told = stopped(problem)
            if output.settings.debug:
                traceback.print_exc()
            output.error(told)
            raise SystemExit(told.exit_code) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as problem:
            # A fault of porter's, and the last net; nothing is published after it.
            if output.settings.debug:
                traceback.print_exc()
            told = _unforeseen(problem)
            output.error(told)
            raise SystemExit(told.exit_code) from None

    signature = inspect.signature(function, eval_str=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _SHARED.items()
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {
        **{name: parameter.annotation for name, parameter in signature.parameters.items()},
        **{name: annotation for name, (annotation, _) in _SHARED.items()},
    }
    return run
