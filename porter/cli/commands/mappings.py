"""`porter mappings ls | show | check | new`: the tables themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from porter.cli import completion, output
from porter.cli.common import command
from porter.cli.options import JsonOption, MapOption, MappingsOption
from porter.cli.parsing import App, show_help

_HELP = """The mapping tables: what there is, one read aloud, a family of your own begun, tables checked.

    Examples:
      porter mappings ls
      porter mappings show gemma --to keras
      porter mappings new llama --name mine             # a family of your own, like Llama
      porter mappings check mappings/mine/hf.toml
    """

mappings = App(name="mappings", help=_HELP)
mappings.callback()(show_help)


def ls(
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    json: JsonOption = False,
) -> None:
    """List the tables there are.

    Examples:
      porter mappings ls
    """
    from porter.api.mappings import broken_families, list_tables

    found = list_tables([*mappings, *map])
    if json:
        output.as_json({"tables": output.to_plain(found)})
        return
    rows = [["Family", "Dialect", "", "Framework", "Rules", "Version"]]
    rows += [
        [info.family, info.dialect, info.directions, info.title, str(info.rules), str(info.version)]
        for info in found
    ]
    output.table(rows, right=(4, 5), drop=(3, 5, 4))
    for name, reason in broken_families([*mappings, *map]).items():
        output.note(f"the family {name} is left out: {reason}")


def new(
    base: Annotated[
        str, typer.Argument(help="The family that it is most like.", autocompletion=completion.families)
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Its own name.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="The folder of your families.",
            autocompletion=completion.folders,
        ),
    ] = Path("mappings"),
) -> None:
    """Write the skeleton of a family of your own, to be used with --mappings DIR.

    Examples:
      porter mappings new llama --name mine
    """
    from porter.api.mappings import new_family

    path = new_family(base, name, out)
    output.say(f"wrote    {path}")
    output.data(f"check    porter mappings check {path}")
    output.data(f"use      porter convert SRC --mappings {out} --to litgpt")


def show(
    family: Annotated[
        str,
        typer.Argument(
            help="The family, as `porter mappings ls` lists it.", autocompletion=completion.families
        ),
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="DIALECT", help="The left side.", autocompletion=completion.dialects_of
        ),
    ] = "hf",
    target: Annotated[
        str,
        typer.Option(
            "--to", metavar="DIALECT", help="The right side.", autocompletion=completion.dialects_of
        ),
    ] = "litgpt",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="A config of the left side's dialect, for sizes.",
            autocompletion=completion.files(".json", ".yaml"),
        ),
    ] = None,
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    json: JsonOption = False,
) -> None:
    """Print one table: source name, layout, canonical tensor, layout, target name.

    Examples:
      porter mappings show gemma
      porter mappings show gemma --to keras --config gemma-2b/config.json
    """
    from porter.api.mappings import hyperparameters_of
    from porter.api.mappings import show as rules

    maps = [*mappings, *map]
    sizes = hyperparameters_of(config, family, source, maps) if config is not None else None
    found = rules(family, source, target, maps=maps, hyperparameters=sizes)
    if json:
        output.as_json({"rules": output.to_plain(found)})
        return
    rows = [[source, "layout", "canonical", "layout", target]]
    for row in found:
        rows.append(
            [
                row.source,
                row.source_layout + _shape(row.source_shape),
                row.canonical,
                row.target_layout + _shape(row.target_shape),
                row.target,
            ]
        )
    output.table(rows, under=(3, 2, 0, 1))


def check(
    tables: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE.toml",
            help="Tables of your own to validate.",
            autocompletion=completion.files(".toml"),
        ),
    ] = None,
    against: Annotated[
        list[str],
        typer.Option(
            "--against",
            metavar="PEER",
            help="litgpt, transformers or porter; may be repeated.",
            autocompletion=completion.words("litgpt", "transformers", "porter"),
        ),
    ] = [],  # noqa: B006
    every: Annotated[
        bool,
        typer.Option("--all", help="Every configuration that the installed peer knows by name."),
    ] = False,
    require: Annotated[
        int | None,
        typer.Option("--require", metavar="N", help="Fail if fewer of them than this are ok."),
    ] = None,
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    json: JsonOption = False,
) -> None:
    """Validate a table, and compare tables with the live modules of installed frameworks.

    Examples:
      porter mappings check mappings/mine/hf.toml
      porter mappings check --against litgpt --all
    """
    from porter.api.mappings import check as validate
    from porter.errors import UsageError

    if not tables and not against:
        raise UsageError("nothing to check", hint="name a table, or --against litgpt|transformers")
    for path in tables or []:
        dialect = validate(path)
        output.say(f"ok       {path}: {dialect.family}/{dialect.name}, {len(dialect.rules)} rules")
    if against:
        _drift(against, [*mappings, *map, *(tables or [])], every, require, json)


def _drift(peers: list[str], maps: list[Path], every: bool, require: int | None, json: bool) -> None:
    from porter.api.mappings import drift
    from porter.errors import DifferenceError

    found = [report for peer in peers for report in drift(peer, every=every, maps=maps)]
    if json:
        output.as_json({"configurations": output.to_plain(found)})
    else:
        rows = [["Peer", "Family", "Configuration", "Tensors", ""]]
        rows += [
            [
                r.peer,
                r.family,
                r.configuration,
                str(r.tensors),
                f"{len(r.problems)} differ" if r.result == "differs" else r.result,
            ]
            for r in found
        ]
        output.table(rows, right=(3,))
    bad = [report for report in found if report.result not in ("ok", "not implemented")]
    # The families' own examples are none of the peer's configurations.
    named = [report for report in found if not report.configuration.startswith("(")]
    passed = sum(report.result == "ok" for report in named)
    if every:
        output.say(f"{passed} of {len(named)} configurations are ok")
    if require is not None and passed < require:
        raise DifferenceError(
            f"{passed} configurations are ok, and {require} are required",
            cause="\n".join(f"{r.peer} {r.configuration}: {r.result}" for r in bad) or None,
            hint="the peer has changed, or a family has no table",
        )
    if bad:
        raise DifferenceError(
            f"{len(bad)} of {len(found)} configurations differ from the tables",
            cause="\n".join(f"{r.peer} {r.configuration}: {line}" for r in bad for line in r.problems[:4]),
            hint="the peer's names or shapes have changed, or the table is wrong",
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else f" = {list(shape)}"


mappings.command()(command(ls))
mappings.command()(command(show))
mappings.command()(command(new))
mappings.command()(command(check))
