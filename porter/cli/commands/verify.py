"""`porter verify`: is OUT a right port of SRC, and where not, what was done wrong?"""

from __future__ import annotations

from typing import Annotated

import typer

from porter.cli import output, streams
from porter.cli.options import (
    ConfigOption,
    FamilyOption,
    KeyOption,
    MapOption,
    MappingsOption,
    SourceDialectOption,
)
from porter.errors import DifferenceError


def verify(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="The original: a directory, a file, or a model's name."),
    ],
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="Its port, whoever made it, in any dialect and container.")
    ],
    out_dialect: Annotated[
        str | None,
        typer.Option("--as", metavar="DIALECT", help="OUT's dialect, where its names could be of two."),
    ] = None,
    source_dialect: SourceDialectOption = None,
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    family: FamilyOption = None,
    config: ConfigOption = None,
    key: KeyOption = None,
    out_key: Annotated[
        str | None, typer.Option("--out-key", metavar="NAME", help="As --key, of OUT's torch file.")
    ] = None,
    allow_unmapped: Annotated[
        list[str],
        typer.Option(
            "--allow-unmapped", metavar="GLOB", help="Tensors of SRC that are not compared; may be repeated."
        ),
    ] = [],  # noqa: B006
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at a thousand elements of each weight and not at every one.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether OUT is a right port of SRC: weights, config and tokenizer. Exit code 3 if not."""
    from porter.api.verify import verify as compare
    from porter.cli.progress import transfer
    from porter.execution.watch import Watch
    from porter.reporting.verdicts import render

    with transfer("verify") as advance:
        verdict = compare(
            source,
            out,
            maps=[*mappings, *map],
            config=config,
            source_dialect=source_dialect,
            out_dialect=out_dialect,
            family=family,
            key=key,
            out_key=out_key,
            allow_unmapped=allow_unmapped,
            quick=quick,
            watch=Watch(lambda name, count: advance(out, count)),
        )
    if json:
        output.as_json(verdict, right=verdict.right)
    else:
        output.data(render(verdict))
    for text in verdict.notes:
        output.note(text)
    if not verdict.right:
        streams.flush()
        raise SystemExit(DifferenceError.exit_code)
