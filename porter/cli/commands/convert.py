"""`porter convert`: plan, proof, then bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from porter.cli import output
from porter.cli.commands.inspect import (
    ConfigOption,
    FamilyOption,
    KeyOption,
    MapOption,
    MappingsOption,
    SourceDialectOption,
)
from porter.cli.report_file import ReportOption, check_report, write_report
from porter.errors import UsageError


def convert(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SRC]",
            help="A directory, a .safetensors or a .gguf file. Default: here, or the last model downloaded.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DIALECT", help="litgpt, hf, or the dialect of your own table."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The directory to make. Default: MODEL-DIALECT, here.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="keep, bfloat16, float16 or float32.")] = "keep",
    tied: Annotated[
        str | None,
        typer.Option("--tied", help="Tied weights: write, omit or untie. Default: as the target does."),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option("--max-shard-size", metavar="SIZE", help="Largest file, for hf. Default: 5GB."),
    ] = None,
    container: Annotated[
        str | None,
        typer.Option("--container", help="safetensors, or pth for a lit_model.pth that stock LitGPT loads."),
    ] = None,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Take the language model out of a multimodal checkpoint.")
    ] = False,
    target_model: Annotated[
        str | None,
        typer.Option(
            "--target-model",
            metavar="SPEC",
            help="Ask a live module first: litgpt, porter, transformers, package.module:callable.",
        ),
    ] = None,
    source_dialect: SourceDialectOption = None,
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    family: FamilyOption = None,
    config: ConfigOption = None,
    key: KeyOption = None,
    allow_unmapped: Annotated[
        list[str],
        typer.Option("--allow-unmapped", metavar="GLOB", help="Drop these tensors; may be repeated."),
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="With --dry-run: how each class of copy is run, and why.")
    ] = False,
    report: ReportOption = None,
    reflink: Annotated[
        str,
        typer.Option("--reflink", metavar="WHEN", help="Share blocks with the source: auto, always, never."),
    ] = "auto",
    digest: Annotated[
        str,
        typer.Option(
            "--digest",
            metavar="WHEN",
            help="Hash weight files on the way: auto (where it does not limit), always, never.",
        ),
    ] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where the same command was stopped.")
    ] = True,
    max_memory: Annotated[
        str, typer.Option("--max-memory", metavar="SIZE", help="For all buffers together.")
    ] = "512MiB",
    keep_source: Annotated[
        bool, typer.Option("--keep-source", help="Download a model from the Hub first, and keep it.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a directory that porter wrote.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert a checkpoint into another dialect."""
    from porter.api import convert as api
    from porter.execution.run_options import RunOptions, memory_spoken
    from porter.planning.plan import plan_to_json
    from porter.planning.plan_options import PlanOptions
    from porter.planning.summary import grade
    from porter.reporting.plans import render, summary
    from porter.reporting.text import size

    if explain and not dry_run:
        raise UsageError("--explain tells about a plan that is not run", hint="--dry-run --explain")
    if report is not None and not dry_run:
        raise UsageError("--report shows a plan that is not run", hint="--dry-run --report FILE.html")
    check_report(report)
    options = RunOptions(reflink, digest, resume, memory_spoken(max_memory))
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
    for text in plan.notes:
        output.note(text)
    if target_model is not None:
        accepted = api.check_target_model(prepared, target_model)
        output.say(f"checked  {target_model} accepts all {accepted} tensors")
    if dry_run:
        from porter.reporting.executors import explanation, explanation_to_json

        if json:
            found = {"executors": explanation_to_json(plan)} if explain else {}
            output.as_json({**plan_to_json(plan), "hash": plan.hash, "grade": grade(plan), **found})
        else:
            output.data(render(plan))
            if explain:
                output.data(["", *explanation(plan)])
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
                watch=Watch(watch, watch.moving, output.note),
            )
    except KeyboardInterrupt as stopped:
        if kept := getattr(stopped, "kept", 0):
            output.say(f"stopped; {size(kept)} are done. The same command goes on, --no-resume starts anew.")
        raise
    if shared := sum(done.shared.values()):
        output.say(f"shared   {size(shared)} of {size(sum(done.sizes.values()))} with the source, as blocks")
    if json:
        output.as_json(
            {
                "out": str(done.out),
                "hash": plan.hash,
                "grade": grade(plan),
                "files": {
                    name: {"size": nbytes, "sha256": done.digests.get(name)}
                    for name, nbytes in done.sizes.items()
                },
                "shared": dict(done.shared),
            }
        )
        return
    output.report(f"wrote    {done.out}/: {', '.join(done.sizes)}")
    if container == "pth":
        output.report(f"load     litgpt generate {done.out}")
    elif "porter" in prepared.target.targets:
        output.report(f"load     porter.models.GPT.from_checkpoint({str(done.out)!r})")


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
        download(source, offline=output.settings.offline, progress=advance)
