"""`porter completion`: TAB in bash, zsh and fish."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from porter.cli import completion as offered
from porter.cli import output
from porter.errors import UsageError


def completion(
    shell: Annotated[
        str | None,
        typer.Argument(
            metavar="SHELL",
            help="bash, zsh or fish. Default: yours, as SHELL in the environment says.",
            autocompletion=offered.words("bash", "zsh", "fish"),
        ),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Write it where the shell looks for it, for good.")
    ] = False,
) -> None:
    """Let TAB complete commands, options, dialects, dtypes, families, models' short names and paths.

    Prints what the shell has to be told, which --install writes into a file of the shell's.

    Examples:
      porter completion --install
      porter completion zsh --install
      porter completion bash > porter.bash    # to be read with: source porter.bash
    """
    from porter.cli.shells import SHELLS
    from porter.cli.shells import install as write

    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UsageError(
            f"porter completes nothing in the shell {name}" if name else "the environment names no SHELL",
            hint=f"name one of {', '.join(SHELLS)}",
        )
    if not install:
        output.data(SHELLS[name].script.rstrip("\n"))
        return
    for path in write(name):
        output.say(f"wrote    {path}")
    output.say(f"next     a {name} that is started anew completes what follows porter")
