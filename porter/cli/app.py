"""The application: every command is registered here, under the heading of its kind, and written in
`porter.cli.commands`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from porter.cli.commands.check import check
from porter.cli.commands.completion import completion
from porter.cli.commands.convert import convert
from porter.cli.commands.diff import diff
from porter.cli.commands.doctor import doctor
from porter.cli.commands.download import download
from porter.cli.commands.fingerprint import fingerprint
from porter.cli.commands.inspect import inspect
from porter.cli.commands.mappings import mappings
from porter.cli.commands.models import models
from porter.cli.commands.sign import sign
from porter.cli.commands.verify import verify
from porter.cli.common import Color, ColorOption, DebugOption, OfflineOption, QuietOption, command, set_before
from porter.cli.parsing import App, show_help

app = App(name="porter")


def _version(wanted: bool) -> None:
    if wanted:
        from porter import __version__

        typer.echo(f"porter {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
    quiet: QuietOption = False,
    color: ColorOption = Color.auto,
    offline: OfflineOption = False,
    debug: DebugOption = False,
) -> None:
    """Port model weights between frameworks: proved from headers, moved as bytes, all or nothing.

    Examples:
      porter inspect gemma-2b                       # what it holds: kilobytes
      porter convert gemma-2b --to litgpt -o out/   # plan, proof, bytes
    """
    set_before(quiet=quiet, color=color, offline=offline, debug=debug)
    show_help(context)


PORT = "Port a model"
PROVE = "Prove a port"
KNOW = "Find out more"

_HEADINGS: tuple[tuple[str, tuple[Callable[..., None], ...]], ...] = (
    (PORT, (download, inspect, convert)),
    (PROVE, (verify, diff, check, sign, fingerprint)),
    (KNOW, (models, doctor, completion)),
)
for heading, functions in _HEADINGS:
    for function in functions:
        app.command(rich_help_panel=heading)(command(function))
app.add_typer(mappings, name="mappings", rich_help_panel=KNOW)
