"""`porter convert`: plan, proof, then bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from porter.cli import output
from porter.cli.commands.inspect import ConfigOption, MapOption


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
        typer.Option("--tied", help="write or omit tied weights. Default: as the target's framework does."),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option("--max-shard-size", metavar="SIZE", help="Largest file, for hf. Default: 5GB."),
    ] = None,
    container: Annotated[
        str | None,
        typer.Option("--container", help="safetensors, or pth for a lit_model.pth that stock LitGPT loads."),
    ] = None,
    target_model: Annotated[
        str | None,
        typer.Option(
            "--target-model",
            metavar="SPEC",
            help="Ask a live module first: litgpt, porter, transformers, package.module:callable.",
        ),
    ] = None,
    source_dialect: Annotated[
        str | None,
        typer.Option("--from", metavar="DIALECT", help="The source's dialect, if it could be two."),
    ] = None,
    map: MapOption = [],  # noqa: B006
    config: ConfigOption = None,
    allow_unmapped: Annotated[
        list[str],
        typer.Option("--allow-unmapped", metavar="GLOB", help="Drop these tensors; may be repeated."),
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a directory that porter wrote.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert a checkpoint into another dialect."""
    from porter.api import convert as api
    from porter.planning.build import grade
    from porter.planning.plan import plan_to_json
    from porter.reporting.plans import render, summary

    prepared = api.prepare(
        source,
        to=to,
        dtype=dtype,
        tied=tied,
        max_shard_size=max_shard_size,
        allow_unmapped=allow_unmapped,
        maps=map,
        config=config,
        source_dialect=source_dialect,
        container=container,
    )
    plan = prepared.plan
    if source is None:
        output.note(f"no source named: took {prepared.opened.checkpoint.label}, at {prepared.opened.source}")
    for text in plan.notes:
        output.note(text)
    if target_model is not None:
        accepted = api.check_target_model(prepared, target_model)
        output.say(f"checked  {target_model} accepts all {accepted} tensors")
    if dry_run:
        if json:
            output.as_json({**plan_to_json(plan), "hash": plan.hash, "grade": grade(plan)})
        else:
            output.data(render(plan))
        return
    output.say(f"plan     {summary(plan)}")
    from porter.cli.progress import progress

    with progress("convert", plan) as advance:
        done = api.run(prepared, out, force=force, progress=advance)
    if json:
        output.as_json(
            {
                "out": str(done.out),
                "hash": plan.hash,
                "grade": grade(plan),
                "files": {
                    name: {"size": size, "sha256": done.digests.get(name)}
                    for name, size in done.sizes.items()
                },
            }
        )
        return
    output.data(f"wrote    {done.out}/: {', '.join(done.sizes)}")
    if container == "pth":
        output.data(f"load     litgpt generate {done.out}")
    elif "porter" in prepared.target.targets:
        output.data(f"load     porter.models.GPT.from_checkpoint({str(done.out)!r})")
