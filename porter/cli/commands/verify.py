"""`porter verify`: is OUT a right port of SRC, and where not, what was done wrong?"""

from __future__ import annotations

from typing import Annotated

import typer

from porter.cli import completion, output, streams
from porter.cli.options import (
    ConfigOption,
    FamilyOption,
    JsonOption,
    KeyOption,
    LeaveOutOption,
    MapOption,
    MappingsOption,
    SourceDialectOption,
)
from porter.cli.report_file import ReportOption, check_report, receipt_of, write_report
from porter.errors import DifferenceError, UsageError


def verify(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="The original: a directory, a file, or a model's name.",
            autocompletion=completion.sources,
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="Its port, whoever made it, in any dialect and container.",
            autocompletion=completion.sources,
        ),
    ],
    out_dialect: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="DIALECT",
            help="OUT's dialect, where its names could be of two.",
            autocompletion=completion.dialects,
        ),
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
    allow_unmapped: LeaveOutOption = [],  # noqa: B006
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at a thousand elements of each weight and not at every one.")
    ] = False,
    logits: Annotated[
        bool,
        typer.Option(
            "--logits", help="Run both as well, each in its own framework, and say at which layer they part."
        ),
    ] = False,
    logits_dtype: Annotated[
        str,
        typer.Option(
            "--logits-dtype",
            metavar="DTYPE",
            help="With --logits: float32 or bfloat16.",
            autocompletion=completion.words("float32", "bfloat16"),
        ),
    ] = "float32",
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether OUT is a right port of SRC: weights, config and tokenizer. Exit code 3 if not.

    Examples:
      porter verify gemma-2b out/
      porter verify gemma-2b out/ --quick    # a thousand elements of each weight
    """
    from porter.api.verify import verify as compare
    from porter.cli.progress import transfer
    from porter.execution.watch import Watch
    from porter.reporting.verdicts import render

    check_report(report)
    if logits_dtype not in ("float32", "bfloat16"):
        raise UsageError(f"--logits-dtype is float32 or bfloat16, not {logits_dtype!r}")
    if logits_dtype != "float32" and not logits:
        raise UsageError("--logits-dtype says how --logits computes", hint="--logits --logits-dtype bfloat16")
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
            logits=logits_dtype if logits else None,  # type: ignore[arg-type]  # checked above
            watch=Watch(lambda name, count: advance(out, count), expect=advance.expect),
        )
    if json:
        output.as_json(verdict, right=verdict.right)
    else:
        output.findings(render(verdict, width=output.width(), heading=output.heading))
        if verdict.logits is not None:
            from porter.reporting.logits_table import render as render_logits

            output.findings(["", *render_logits(verdict.logits)])
    if report is not None:
        from porter.reporting.html_verdict import verdict_report

        write_report(report, verdict_report(verdict, receipt_of(verdict.out)))
    for text in (*verdict.notes, *(verdict.logits.notes if verdict.logits else ())):
        output.note(text)
    if not verdict.right:
        streams.flush()
        raise SystemExit(DifferenceError.exit_code)
