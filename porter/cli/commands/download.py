"""`porter download`: a model from the Hub or from Kaggle, verified, into the cache that other tools share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from porter.cli import completion, output
from porter.cli.options import SOURCE, JsonOption, RevisionOption
from porter.errors import UsageError


def download(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A short name such as gemma-2b, org/name[@rev], the address of its page, or "
            "kaggle://owner/model/framework/variation.",
            autocompletion=completion.models,
        ),
    ] = None,
    source_dialect: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DIALECT",
            help="keras for KerasHub's preset. Default: hf.",
            rich_help_panel=SOURCE,
            autocompletion=completion.words("hf", "keras"),
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the short names.")] = False,
    revision: RevisionOption = None,
    include: Annotated[
        list[str], typer.Option("--include", metavar="GLOB", help="Only these files; may be repeated.")
    ] = [],  # noqa: B006
    exclude: Annotated[
        list[str], typer.Option("--exclude", metavar="GLOB", help="Not these files; may be repeated.")
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Where to. Default: the Hub's own cache.",
            autocompletion=completion.folders,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files and sizes; fetch nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Download a model from the Hugging Face Hub or from Kaggle, and verify it.

    Examples:
      porter download --list
      porter download gemma-2b
      porter download org/name --include '*.gguf' -o models/
    """
    from porter.reporting.text import plural, size
    from porter.sources.weight_files import some

    if list_ and source is not None:
        raise UsageError("--list lists the short names, and needs no model", hint=f"porter download {source}")
    if source_dialect not in (None, "hf", "keras"):
        raise UsageError(
            f"models are not downloaded from {source_dialect!r}",
            hint="--from hf (the default) or --from keras; `porter convert` makes other dialects",
        )
    if list_:
        if given := [
            name for name, said in (("--include", include), ("--exclude", exclude), ("-o", out)) if said
        ]:
            raise UsageError(f"--list downloads nothing, and takes no {given[0]}", hint="leave it out")
        _list(json, source_dialect)
        return
    if source is None:
        raise UsageError("no model was named", hint="porter download gemma-2b, or porter download --list")
    from porter.api.download import download as fetch
    from porter.cli.progress import transfer

    asked: dict[str, Any] = {
        "revision": revision,
        "include": include,
        "exclude": exclude,
        "out": out,
        "source_dialect": source_dialect,
        "offline": output.settings.offline,
        "bars": sys.stderr.isatty() and not output.settings.quiet,
    }
    if dry_run:
        found = fetch(source, dry_run=True, **asked)
    else:
        try:
            with transfer("download") as advance:
                found = fetch(source, progress=advance, expect=advance.expect, **asked)
        except KeyboardInterrupt:
            output.say("stopped; what has come is kept, and the same command goes on from there")
            raise
    if json:
        output.as_json(found)
        return
    if found.left:
        output.say(f"left     {some(found.left)}: other weights of the repository; --include takes them")
    rows = [["File", "Size", ""], *([file.name, size(file.size), file.status] for file in found.files)]
    if dry_run:
        if not found.files:
            output.say("the files are not known before they are fetched")
            output.data(f"to fetch {found.repo}, version {found.revision}")
            return
        output.table(rows, right=(1,), drop=(2,))
        output.data(f"{plural(len(found.files), 'file')}, {size(found.bytes_total)}")
        output.data(f"to fetch {size(found.bytes_to_fetch)} of {found.repo}@{found.commit}")
        return
    fetched = size(found.bytes_fetched) if found.bytes_fetched else "nothing, all was there"
    output.say(f"fetched  {fetched} · {found.repo}@{found.commit}")
    output.data(found.path)


def _list(json: bool, source_dialect: str | None) -> None:
    from porter.sources.kaggle.kaggle_models import KERAS_PRESETS
    from porter.sources.names import ALIASES

    if source_dialect == "keras":
        if json:
            output.as_json(
                {"models": [{"alias": a, "kaggle": ref.label} for a, ref in KERAS_PRESETS.items()]}
            )
        else:
            # What follows the scheme, so that the names fit beside it.
            rows = [[a, ref.label.removeprefix("kaggle://")] for a, ref in KERAS_PRESETS.items()]
            output.table([["Name", "Preset on Kaggle"], *rows])
        return
    if json:
        output.as_json({"models": [output.to_plain(alias) for alias in ALIASES.values()]})
        return
    rows = [["Name", "Repository", "Family", "Params"]]
    rows += [[alias.alias, alias.repo, alias.family, alias.parameters] for alias in ALIASES.values()]
    output.table(rows, right=(3,))
