"""`porter fingerprint`: one digest of a model's canonical content."""

from __future__ import annotations

from typing import Annotated

import typer

from porter.cli import completion, output
from porter.cli.options import (
    ConfigOption,
    FamilyOption,
    JsonOption,
    KeyOption,
    LeaveOutOption,
    MapOption,
    MappingsOption,
    SourceDialectOption,
    TextOnlyOption,
)


def fingerprint(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SRC",
            help="A checkpoint, as for convert. Default: here, or the last model downloaded.",
            autocompletion=completion.sources,
        ),
    ] = None,
    tensors: Annotated[
        bool,
        typer.Option("--tensors", help="A line for each canonical tensor: digest, dtype, axes."),
    ] = False,
    dtype_agnostic: Annotated[
        bool,
        typer.Option(
            "--dtype-agnostic", help="Of the values in float32, so that dtypes and quantisation do not count."
        ),
    ] = False,
    text_only: TextOnlyOption = False,
    allow_unmapped: LeaveOutOption = [],  # noqa: B006
    json: JsonOption = False,
    source_dialect: SourceDialectOption = None,
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    family: FamilyOption = None,
    config: ConfigOption = None,
    key: KeyOption = None,
) -> None:
    """Print one digest of a model's weights: equal in every dialect, container and sharding.

    Weights alone count, not the config or the tokenizer. docs/fingerprint.md says how it is computed.

    Examples:
      porter fingerprint gemma-2b
      porter fingerprint out/                  # a port: the same digest
      porter fingerprint model.gguf --dtype-agnostic
    """
    from porter.api.fingerprint import fingerprint as take
    from porter.cli.progress import transfer
    from porter.execution.watch import Watch

    with transfer("hash") as advance:
        found = take(
            source,
            dtype_agnostic=dtype_agnostic,
            text_only=text_only,
            allow_unmapped=allow_unmapped,
            maps=[*mappings, *map],
            config=config,
            source_dialect=source_dialect,
            family=family,
            key=key,
            watch=Watch(progress=advance, expect=advance.expect),
        )
    if json:
        output.as_json(found)
        return
    if tensors:
        from porter.reporting.weight_digests import render

        output.data(render(found, width=output.width(), heading=output.heading))
    output.data(found.fingerprint)
