"""`porter inspect`: the shape table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from porter.cli import output

MapOption = Annotated[
    list[Path],
    typer.Option("--map", metavar="FILE.toml", help="A mapping table of your own; may be repeated."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="A config to use in place of the checkpoint's own."),
]


def inspect(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SRC]",
            help="A directory, a .safetensors or a .gguf file. Default: here, or the last model downloaded.",
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="A row per tensor, layers not collapsed.")] = False,
    filter: Annotated[
        str | None, typer.Option("--filter", metavar="GLOB", help="Only tensors whose name fits.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    map: MapOption = [],  # noqa: B006
    config: ConfigOption = None,
) -> None:
    """Show what a checkpoint holds: a shape table from headers alone."""
    from porter.api.inspect import inspect as look
    from porter.reporting.inspection import render

    found = look(source, filter=filter, maps=map, config=config)
    if source is None:
        output.note(f"no source named: {found.source}")
    if json:
        output.as_json(found)
        return
    output.data(render(found, full=full))
    if found.reason is not None:
        output.note(found.reason)
