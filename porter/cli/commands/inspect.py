"""`porter inspect`: the shape table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from porter.cli import output
from porter.cli.report_file import ReportOption, check_report, receipt_of, write_report
from porter.errors import UsageError

MapOption = Annotated[
    list[Path],
    typer.Option("--map", metavar="FILE.toml", help="A mapping table of your own; may be repeated."),
]
MappingsOption = Annotated[
    list[Path],
    typer.Option("--mappings", metavar="DIR", help="A folder with families of your own; may be repeated."),
]
FamilyOption = Annotated[
    str | None,
    typer.Option("--family", metavar="NAME", help="The source's family, for those who know better."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="A config to use in place of the checkpoint's own."),
]
SourceDialectOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="DIALECT",
        help="The source's dialect, if it could be two, or if the folder holds several checkpoints.",
    ),
]

KeyOption = Annotated[
    str | None,
    typer.Option("--key", metavar="NAME", help="Which state dict of a torch file that holds several."),
]


def inspect(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SRC]",
            help="A directory, a weight file, a short name such as gemma-2b, or hf://org/name[@rev]. "
            "Default: here, or the last model downloaded.",
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="A row per tensor, layers not collapsed.")] = False,
    filter: Annotated[
        str | None, typer.Option("--filter", metavar="GLOB", help="Only tensors whose name fits.")
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="DIALECT", help="Show names and shapes in another dialect, with the rules."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    report: ReportOption = None,
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    family: FamilyOption = None,
    config: ConfigOption = None,
    source_dialect: SourceDialectOption = None,
    key: KeyOption = None,
) -> None:
    """Show what a checkpoint holds: a shape table from headers alone."""
    if json + csv + markdown > 1:
        raise UsageError("choose one of --json, --csv and --markdown")
    check_report(report)
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
        output.data(render(found, full=full))
    if report is not None:
        from porter.reporting.html_reports import inspection_report

        write_report(report, inspection_report(found, receipt_of(found.source)))
    for text in found.notes:
        output.note(text)
    if found.reason is not None:
        output.note(found.reason + (f"; {found.hint}" if found.hint else ""))


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
    from porter.reporting.plans import RIGHT, cells, sources_by_target
    from porter.reporting.text import table

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
        sources = sources_by_target(plan)
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
                        "from": sources[tensor.name],
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
        output.data(table(cells(plan, full=full), right=RIGHT))


def _print(rows: list[list[str]], right: tuple[int, ...], csv: bool) -> None:
    from porter.reporting.text import csv_lines, markdown_lines

    output.data(csv_lines(rows) if csv else markdown_lines(rows, right=right))
