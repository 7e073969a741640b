"""`porter convert`: plan, proof, then bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from porter.cli import completion, output
from porter.cli.options import (
    HOW,
    SAFETY,
    SOURCE,
    WHAT,
    ConfigOption,
    FamilyOption,
    JsonOption,
    KeyOption,
    LeaveOutOption,
    MapOption,
    MappingsOption,
    RevisionOption,
    SourceArgument,
    SourceDialectOption,
    TextOnlyOption,
)
from porter.cli.report_file import ReportOption, check_report, write_report
from porter.errors import UsageError
from porter.sources.names import at_revision

if TYPE_CHECKING:
    from porter.planning.plan import Plan

_WHEN = completion.words("auto", "always", "never")


def convert(
    source: SourceArgument = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="DIALECT",
            help="litgpt, hf, keras, flax and others (`porter models`), or the dialect of your own table. "
            "Left out: says where this source can go.",
            rich_help_panel=WHAT,
            autocompletion=completion.targets,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="The directory to make, or s3://bucket/folder. Default: MODEL-DIALECT, here.",
            rich_help_panel=WHAT,
            autocompletion=completion.folders,
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            metavar="DTYPE",
            help="keep, bfloat16, float16 or float32.",
            rich_help_panel=WHAT,
            autocompletion=completion.words("keep", "bfloat16", "float16", "float32"),
        ),
    ] = "keep",
    tied: Annotated[
        str | None,
        typer.Option(
            "--tied",
            metavar="HOW",
            help="Tied weights: write, omit or untie. Default: as the target does.",
            rich_help_panel=WHAT,
            autocompletion=completion.words("write", "omit", "untie"),
        ),
    ] = None,
    container: Annotated[
        str | None,
        typer.Option(
            "--container",
            metavar="KIND",
            help="safetensors, or pth for the lit_model.pth that LitGPT's own commands read.",
            rich_help_panel=WHAT,
            autocompletion=completion.words("safetensors", "pth"),
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            "--max-shard-size",
            metavar="SIZE",
            help="Largest file, for hf. Default: 5GB.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    text_only: TextOnlyOption = False,
    allow_unmapped: LeaveOutOption = [],  # noqa: B006
    source_dialect: SourceDialectOption = None,
    revision: RevisionOption = None,
    family: FamilyOption = None,
    config: ConfigOption = None,
    key: KeyOption = None,
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    keep_source: Annotated[
        bool,
        typer.Option(
            "--keep-source",
            help="Download a model from the Hub first, and keep it.",
            rich_help_panel=SOURCE,
        ),
    ] = False,
    reflink: Annotated[
        str,
        typer.Option(
            "--reflink",
            metavar="WHEN",
            help="Share blocks with the source: auto, always, never.",
            rich_help_panel=HOW,
            autocompletion=_WHEN,
        ),
    ] = "auto",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Go on where the same command was stopped, or start anew.",
            rich_help_panel=HOW,
        ),
    ] = True,
    max_memory: Annotated[
        str,
        typer.Option("--max-memory", metavar="SIZE", help="For all buffers together.", rich_help_panel=HOW),
    ] = "512MiB",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan; write nothing.", rich_help_panel=SAFETY)
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="With --dry-run: how each class of copy is run, and why.",
            rich_help_panel=SAFETY,
        ),
    ] = False,
    target_model: Annotated[
        str | None,
        typer.Option(
            "--target-model",
            metavar="SPEC",
            help="Ask a live module first: litgpt, porter, transformers, package.module:callable.",
            rich_help_panel=SAFETY,
            autocompletion=completion.words("litgpt", "porter", "transformers"),
        ),
    ] = None,
    digest: Annotated[
        str,
        typer.Option(
            "--digest",
            metavar="WHEN",
            help="Hash weight files on the way: auto (where it does not limit), always, never.",
            rich_help_panel=SAFETY,
            autocompletion=_WHEN,
        ),
    ] = "auto",
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="CLUSTER",
            help="Run it on a cluster: ray, or ray=ADDRESS for one that runs.",
            rich_help_panel=HOW,
            autocompletion=completion.words("ray"),
        ),
    ] = None,
    assume: Annotated[
        str,
        typer.Option(
            "--assume",
            metavar="MODEL",
            help="With --dry-run --on: workers=8,read=200MB,write=100MB,task=0.5, each worker's, a second.",
            rich_help_panel=HOW,
        ),
    ] = "",
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace a directory that porter wrote.", rich_help_panel=SAFETY),
    ] = False,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Convert a checkpoint into another dialect.

    The plan is proved from headers first. The output appears when it is whole, or not at all.

    Examples:
      porter convert gemma-2b --to litgpt -o out/
      porter convert gemma-2b --to litgpt --container pth   # for litgpt's commands
      porter convert out/ --to hf -o back/
      porter convert model.gguf --to hf --dtype bfloat16
      porter convert gemma-2b --to keras --dry-run          # the plan alone
    """
    from porter.api import convert as api
    from porter.execution.run_options import RunOptions, memory_spoken
    from porter.planning.plan import plan_to_json
    from porter.planning.plan_options import PlanOptions
    from porter.reporting.plans import render, summary
    from porter.reporting.text import printable, size

    if explain and not dry_run:
        raise UsageError("--explain tells about a plan that is not run", hint="--dry-run --explain")
    if assume and not (dry_run and on):
        raise UsageError("--assume is for the time that is predicted", hint="--dry-run --on ray --assume …")
    if report is not None and not dry_run:
        raise UsageError("--report shows a plan that is not run", hint="--dry-run --report FILE.html")
    check_report(report)
    source = at_revision(source, revision)
    options = RunOptions(reflink, digest, resume, memory_spoken(max_memory), on)
    if keep_source:
        _keep(source, dry_run)
    wanted = PlanOptions(
        to=to,
        dtype=dtype,
        tied=tied,  # type: ignore[arg-type]  # its words are checked there
        max_shard_size=max_shard_size,
        allow_unmapped=allow_unmapped,
        maps=[*mappings, *map],
        config=config,
        source_dialect=source_dialect,
        family=family,
        container=container,  # type: ignore[arg-type]
        text_only=text_only,
        key=key,
    )
    prepared = api.prepare(source, wanted)
    plan = prepared.plan
    if source is None:
        output.note(f"no source named: took {prepared.opened.checkpoint.label}, at {prepared.opened.source}")
    if not dry_run:
        api.check_before(prepared, out, force=force, options=options)
    for text in plan.notes:
        output.note(text)
    if target_model is not None:
        accepted = api.check_target_model(prepared, target_model)
        output.say(f"checked  {target_model} accepts all {accepted} tensors")
    if dry_run:
        from porter.reporting.cluster import prediction_lines, prediction_to_json
        from porter.reporting.executors import explanation, explanation_to_json

        predicted = api.predict(prepared, assume) if on else None

        if json:
            found = {"executors": explanation_to_json(plan)} if explain else {}
            if predicted is not None:
                found["cluster"] = prediction_to_json(predicted)
            output.as_json({**plan_to_json(plan), "hash": plan.hash, **_graded(plan), **found})
        else:
            from porter.reporting.config_rows import config_rows

            rows = config_rows(prepared.opened.identified(), prepared.target, plan)
            output.data(render(plan, rows, width=output.width(), heading=output.heading))
            if explain:
                output.data(["", *explanation(plan, output.width())])
            if predicted is not None:
                output.data(["", *prediction_lines(predicted, every=explain)])
        if report is not None:
            from porter.reporting.html_reports import plan_report
            from porter.verification.live import target_config

            identity = prepared.opened.identified()
            words = identity.words or identity.dialect
            written = target_config(plan, prepared.target), prepared.target
            label = prepared.opened.checkpoint.label
            write_report(report, plan_report(plan, label, (identity.raw, words), written))
        return
    output.say(f"plan     {summary(plan)}")
    from porter.cli.progress import progress
    from porter.execution.watch import Watch

    try:
        with progress("convert", plan) as watch:
            done = api.run(
                prepared,
                out,
                force=force,
                options=options,
                watch=Watch(watch, watch.moving, output.note, watch.arriving),
            )
    except KeyboardInterrupt as stopped:
        if kept := getattr(stopped, "kept", 0):
            place = printable(str(getattr(stopped, "place", ".")))
            output.say(
                f"stopped; {size(kept)} are done. The same command goes on, --no-resume starts anew, "
                f"`porter doctor --clean {place}` drops them."
            )
        raise
    if shared := sum(done.shared.values()):
        output.say(f"shared   {size(shared)} of {size(sum(done.sizes.values()))} with the source, as blocks")
    if json:
        output.as_json(
            {
                "out": str(done.out),
                "hash": plan.hash,
                **_graded(plan),
                "files": {
                    name: {"size": nbytes, "sha256": done.digests.get(name)}
                    for name, nbytes in done.sizes.items()
                },
                "shared": dict(done.shared),
            }
        )
        return
    from porter.reporting.next_steps import LITGPT_COMMANDS, next_steps
    from porter.sources.weight_files import at_top, some

    output.report(f"wrote    {done.out}/: {some(list(dict.fromkeys(at_top(name) for name in done.sizes)))}")
    if isinstance(done.out, str):
        return
    for number, line in enumerate(next_steps(plan, done.out)):
        output.report(f"{'' if number else 'load':<8} {line}", pasted=True)
    if plan.target_dialect == "litgpt" and container != "pth":
        output.note(LITGPT_COMMANDS)


def _graded(plan: Plan) -> dict[str, str]:
    from porter.planning.fidelity import fidelity

    found = fidelity(plan)
    return {"grade": found.grade, "cause": found.sentence}


def _keep(source: str | None, dry_run: bool) -> None:
    """Download the source. Raises UsageError where there is nothing to download."""
    from porter.api.download import download
    from porter.cli.progress import transfer
    from porter.sources.names import HubReference, find_source

    if source is None:
        raise UsageError("--keep-source downloads a model that is named, and none was", hint="name it")
    if dry_run:
        raise UsageError("--keep-source downloads, and --dry-run fetches no weights", hint="leave out one")
    if not source.startswith("kaggle://") and not isinstance(find_source(source), HubReference):
        output.note(f"{source} is on this machine already; --keep-source has nothing to do")
        return
    with transfer("download") as advance:
        download(source, offline=output.settings.offline, progress=advance, expect=advance.expect)
