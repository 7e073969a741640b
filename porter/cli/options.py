"""Options and arguments that several commands have, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from porter.cli import completion

WHAT, SOURCE, HOW, SAFETY, OUTPUT = "What", "Source", "How", "Safety", "Output"

SourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="SRC",
        help="A directory, a weight file, a short name such as gemma-2b, org/name[@rev], the address of a "
        "model's page on the Hub, or a folder at s3://, gs://, az://, https://. Default: here, or the last "
        "model downloaded.",
        autocompletion=completion.sources,
    ),
]
SourceDialectOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="DIALECT",
        help="The source's dialect, if it could be two, or if the folder holds several checkpoints.",
        rich_help_panel=SOURCE,
        autocompletion=completion.dialects,
    ),
]
RevisionOption = Annotated[
    str | None,
    typer.Option(
        "--revision",
        metavar="REV",
        help="Of a model on the Hub: a branch, a tag or a commit. Default: main.",
        rich_help_panel=SOURCE,
    ),
]
FamilyOption = Annotated[
    str | None,
    typer.Option(
        "--family",
        metavar="NAME",
        help="The source's family, for those who know better.",
        rich_help_panel=SOURCE,
        autocompletion=completion.families,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="A config to use in place of the checkpoint's own.",
        rich_help_panel=SOURCE,
        autocompletion=completion.files(".json", ".yaml"),
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="NAME",
        help="Which state dict of a torch file that holds several.",
        rich_help_panel=SOURCE,
    ),
]
MapOption = Annotated[
    list[Path],
    typer.Option(
        "--map",
        metavar="FILE.toml",
        help="A mapping table of your own; may be repeated.",
        rich_help_panel=SOURCE,
        autocompletion=completion.files(".toml"),
    ),
]
MappingsOption = Annotated[
    list[Path],
    typer.Option(
        "--mappings",
        metavar="DIR",
        help="A folder with families of your own; may be repeated.",
        rich_help_panel=SOURCE,
        autocompletion=completion.folders,
    ),
]
TextOnlyOption = Annotated[
    bool,
    typer.Option("--text-only", help="The language model of a multimodal checkpoint.", rich_help_panel=WHAT),
]
LeaveOutOption = Annotated[
    list[str],
    typer.Option(
        "--allow-unmapped",
        metavar="GLOB",
        help="Leave these tensors out; may be repeated.",
        rich_help_panel=WHAT,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=OUTPUT)]
