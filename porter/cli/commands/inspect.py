"""`porter inspect`: the shape table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from porter.cli import completion, output
from porter.cli.options import (
    OUTPUT,
    WHAT,
    ConfigOption,
    FamilyOption,
    JsonOption,
    KeyOption,
    MapOption,
    MappingsOption,
    RevisionOption,
    SourceArgument,
    SourceDialectOption,
)
from porter.cli.report_file import ReportOption, check_report, receipt_of, write_report
from porter.errors import UsageError
from porter.sources.names import at_revision


def inspect(
    source: SourceArgument = None,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="DIALECT",
            help="Show names and shapes in another dialect, with the rules.",
            rich_help_panel=WHAT,
            autocompletion=completion.targets,
        ),
    ] = None,
    filter: Annotated[
        str | None,
        typer.Option(
            "--filter", metavar="GLOB", help="Only tensors whose whole name fits.", rich_help_panel=WHAT
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="A row per tensor, layers not collapsed.", rich_help_panel=WHAT),
    ] = False,
    json: JsonOption = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print the table as CSV.", rich_help_panel=OUTPUT)
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown.", rich_help_panel=OUTPUT)
    ] = False,
    report: ReportOption = None,
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    family: FamilyOption = None,
    config: ConfigOption = None,
    source_dialect: SourceDialectOption = None,
    key: KeyOption = None,
    revision: RevisionOption = None,
) -> None:
    """Show what a checkpoint holds: a shape table from headers alone.

    Of a model on the Hub a few kilobytes are read, and no weight.

    Examples:
      porter inspect gemma-2b
      porter inspect out/ --filter '*attn*' --full
      porter inspect gemma-2b --as litgpt
      porter inspect model.gguf --json
    """
    if json + csv + markdown > 1:
        raise UsageError("choose one of --json, --csv and --markdown")
    check_report(report)
    source = at_revision(source, revision)
    if as_ is not None:
        if report is not None:
            raise UsageError("--report shows a checkpoint as it is", hint="leave out --as")
        maps = [*mappings, *map]
        _as(source, as_, full, filter, json, csv, markdown, maps, config, source_dialect, key, family)
        return
    from porter.api.inspect import inspect as look
    from porter.reporting.shape_table import RIGHT, cells, render

    found = look(
        source,
        filter=filter,
        maps=[*mappings, *map],
        config=config,
        source_dialect=source_dialect,
        key=key,
        family=family,
    )
    if source is None:
        output.note(f"no source named: took {found.label}, at {found.source}")
    if json:
        output.as_json(found)
    elif csv or markdown:
        _print(cells(found, full=full, exact=csv), RIGHT, csv)
    else:
        output.data(render(found, full=full, width=output.width(), heading=output.heading))
    if report is not None:
        from porter.reporting.html_reports import inspection_report

        write_report(report, inspection_report(found, receipt_of(found.source)))
    for text in found.notes:
        output.note(text)
    if found.reason is not None:
        # A table to begin with has lines of its own.
        hint, *lines = (found.hint or "").split("\n")
        output.note(found.reason + (f"; {hint}" if hint else ""))
        for line in lines:
            output.say(line)


def _as(
    source: str | None,
    dialect: str,
    full: bool,
    filter: str | None,
    json: bool,
    csv: bool,
    markdown: bool,
    maps: list[Path],
    config: Path | None,
    source_dialect: str | None,
    key: str | None,
    family: str | None,
) -> None:
    from porter.api.inspect import inspect_as
    from porter.reporting.plans import RIGHT, UNDER, Origins, cells

    plan = inspect_as(
        source,
        dialect,
        filter=filter,
        maps=maps,
        config=config,
        source_dialect=source_dialect,
        key=key,
        family=family,
    )
    if json:
        origins = Origins(plan)
        output.as_json(
            {
                "family": plan.family,
                "from": plan.source_dialect,
                "as": plan.target_dialect,
                "tensors": [
                    {
                        "name": tensor.name,
                        "shape": list(tensor.shape),
                        "dtype": tensor.dtype.name,
                        "from": origins.of(tensor.name),
                        "layout": plan.layouts.get(tensor.name),
                        "rule": plan.rules.get(tensor.name),
                    }
                    for tensor in plan.targets()
                ],
            }
        )
    elif csv or markdown:
        _print(cells(plan, full=full), RIGHT, csv)
    else:
        output.table(cells(plan, full=full), right=RIGHT, under=UNDER)


def _print(rows: list[list[str]], right: tuple[int, ...], csv: bool) -> None:
    from porter.reporting.text import csv_lines, markdown_lines

    output.data(csv_lines(rows) if csv else markdown_lines(rows, right=right))
