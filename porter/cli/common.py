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
from porter.errors import PorterError

# 128 + SIGINT, as shells report it.
_INTERRUPTED = 130


class Color(StrEnum):
    """When to use colours."""

    auto = "auto"
    always = "always"
    never = "never"


_SHARED: dict[str, tuple[Any, Any]] = {
    "quiet": (
        Annotated[
            bool,
            typer.Option("--quiet", "-q", help="No progress and no notes.", rich_help_panel="Everywhere"),
        ],
        False,
    ),
    "color": (
        Annotated[
            Color, typer.Option("--color", help="Colours: auto, always, never.", rich_help_panel="Everywhere")
        ],
        Color.auto,
    ),
    "offline": (
        Annotated[
            bool, typer.Option("--offline", help="Never use the network.", rich_help_panel="Everywhere")
        ],
        False,
    ),
    "debug": (
        Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel="Everywhere")],
        False,
    ),
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the shared options, and turn errors into messages and exit codes."""

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        for name in _SHARED:
            setattr(output.settings, name, arguments.pop(name))
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
            if output.settings.debug:
                raise
            output.error(PorterError("the operating system refused", cause=str(problem)))
            raise SystemExit(1) from None

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
