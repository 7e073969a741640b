"""`porter diff`: how two models differ."""

from __future__ import annotations

from typing import Annotated

import typer

from porter.cli import completion, output, streams
from porter.cli.options import (
    FamilyOption,
    JsonOption,
    LeaveOutOption,
    MapOption,
    MappingsOption,
    TextOnlyOption,
)
from porter.cli.report_file import ReportOption, check_report, write_report
from porter.errors import DifferenceError


def diff(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="A checkpoint, as for convert.", autocompletion=completion.sources),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B",
            help="The other one, in any dialect and container.",
            autocompletion=completion.sources,
        ),
    ],
    atol: Annotated[
        float, typer.Option("--atol", help="How far apart values may be and still count as equal.")
    ] = 0.0,
    rtol: Annotated[
        float, typer.Option("--rtol", help="The same, as a share of the value in B; it is added.")
    ] = 0.0,
    dtype_agnostic: Annotated[
        bool, typer.Option("--dtype-agnostic", help="What values are stored in does not count.")
    ] = False,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Neither config nor tokenizer counts.")
    ] = False,
    text_only: TextOnlyOption = False,
    allow_unmapped: LeaveOutOption = [],  # noqa: B006
    a_dialect: Annotated[
        str | None,
        typer.Option(
            "--a-dialect", metavar="DIALECT", help="What A is in.", autocompletion=completion.dialects
        ),
    ] = None,
    b_dialect: Annotated[
        str | None,
        typer.Option(
            "--b-dialect", metavar="DIALECT", help="What B is in.", autocompletion=completion.dialects
        ),
    ] = None,
    a_key: Annotated[
        str | None, typer.Option("--a-key", metavar="NAME", help="Which state dict of A's torch file.")
    ] = None,
    b_key: Annotated[
        str | None, typer.Option("--b-key", metavar="NAME", help="Which state dict of B's torch file.")
    ] = None,
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    family: FamilyOption = None,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Show how two models differ: weights, dtypes, config, tokenizer; in any two dialects of a family.

    Of checkpoints that no table knows, tensors are paired by their names.

    Exit code 0: nothing that was compared differs. 3: something does.

    Examples:
      porter diff gemma-2b finetuned/
      porter diff hf/ litgpt/ --dtype-agnostic --atol 1e-3
      porter diff gemma-2b finetuned/ --report diff.html
    """
    from porter.api.diff import diff as compare
    from porter.cli.progress import transfer
    from porter.execution.watch import Watch
    from porter.reporting.differences import render

    check_report(report)
    with transfer("diff") as advance:
        found = compare(
            a,
            b,
            atol=atol,
            rtol=rtol,
            dtype_agnostic=dtype_agnostic,
            weights_only=weights_only,
            text_only=text_only,
            allow_unmapped=allow_unmapped,
            maps=[*mappings, *map],
            a_dialect=a_dialect,
            b_dialect=b_dialect,
            a_key=a_key,
            b_key=b_key,
            family=family,
            watch=Watch(progress=lambda name, count: advance(a, count), expect=advance.expect),
        )
    if json:
        output.as_json(found, same=found.same)
    else:
        output.findings(render(found, width=output.width(), heading=output.heading))
    if report is not None:
        from porter.reporting.html_diff import diff_report

        write_report(report, diff_report(found))
    for text in found.notes:
        output.note(text)
    if not found.same:
        streams.flush()
        raise SystemExit(DifferenceError.exit_code)
