"""The Typer application: commands are registered here and written in `porter.cli.commands`."""

from __future__ import annotations

from typing import Annotated

import typer

from porter.cli.commands.convert import convert
from porter.cli.commands.doctor import doctor
from porter.cli.commands.download import download
from porter.cli.commands.inspect import inspect
from porter.cli.commands.mappings import mappings
from porter.cli.commands.verify import verify
from porter.cli.common import command

app = typer.Typer(
    name="porter",
    help="Port model weights between frameworks: proved from headers, moved as bytes, all or nothing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from porter import __version__

        typer.echo(f"porter {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command()(command(download))
app.command()(command(inspect))
app.command()(command(convert))
app.command()(command(verify))
app.add_typer(mappings, name="mappings")
app.command()(command(doctor))
