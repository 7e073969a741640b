"""`porter.plan` and `porter.convert`: from a source to a proved plan, and from the plan to bytes."""

from __future__ import annotations

import gc
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from porter.api.arguments import as_dtype, as_list, as_paths, unused_patterns
from porter.api.opening import Opened, open_source
from porter.errors import UnsupportedError, UsageError
from porter.execution.run_options import ALWAYS, ExecutionOptions
from porter.planning.build import build_plan
from porter.planning.plan import Plan
from porter.planning.plan_options import Options
from porter.planning.summary import grade
from porter.sources.weight_files import DOCUMENTS, fits, some
from porter.tables.catalogue import load_user_table
from porter.tables.model import Dialect

if TYPE_CHECKING:
    import torch

    from porter.sources.hub.hub_source import HubSource

RECEIPT = "porter-receipt.json"


@dataclass(frozen=True)
class Conversion:
    """A finished conversion: its plan, the published directory, each file's bytes and sha256 (or None).

    `shared` is how many bytes of each weight file share their blocks with the source's.
    """

    plan: Plan
    source: str
    out: Path
    sizes: Mapping[str, int]
    digests: Mapping[str, str | None]
    shared: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A plan with what is needed to check and run it."""

    opened: Opened
    target: Dialect
    plan: Plan


def plan(
    source: str | Path | None = None,
    *,
    to: str | None = None,
    dtype: str | torch.dtype = "keep",
    tied: str | None = None,
    max_shard_size: str | int | None = None,
    allow_unmapped: str | Sequence[str] = (),
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    source_dialect: str | None = None,
    container: str | None = None,
    text_only: bool = False,
) -> Plan:
    """Prove and plan a conversion from headers and configs alone; nothing is written.

    `to` is a dialect (`litgpt`, `hf`, or one of your own tables in `maps`). `dtype` is keep, bfloat16,
    float16 or float32, or torch's own. `tied` is write or omit (default: as the target's table says).
    `text_only` takes the language model out of a checkpoint that holds other parts as well. `container` is
    pth for a torch zip, where the target reads one. Raises PorterError.
    """
    return prepare(
        source,
        to=to,
        dtype=dtype,
        tied=tied,
        max_shard_size=max_shard_size,
        allow_unmapped=allow_unmapped,
        maps=maps,
        config=config,
        source_dialect=source_dialect,
        container=container,
        text_only=text_only,
    ).plan


def prepare(
    source: str | Path | None,
    *,
    to: str | None,
    dtype: str | torch.dtype = "keep",
    tied: str | None = None,
    max_shard_size: str | int | None = None,
    allow_unmapped: str | Sequence[str] = (),
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    source_dialect: str | None = None,
    weights_only: bool = False,
    container: str | None = None,
    text_only: bool = False,
) -> Prepared:
    """As `plan`, with the opened source and the target's table."""
    tables = as_paths(maps, "maps")
    options = Options(
        as_dtype(dtype),
        tied,
        max_shard_size,
        as_list(allow_unmapped, "allow_unmapped"),
        weights_only,
        container,
        text_only,
    )
    with _no_collection():
        return _prepare(source, _target_name(to, tables), options, tables, config, source_dialect)


def _prepare(
    source: str | Path | None,
    name: str,
    options: Options,
    maps: Sequence[Path],
    config: str | Path | None,
    source_dialect: str | None,
) -> Prepared:
    # A state dict needs the files themselves; all else can be planned, and moved, from afar.
    remote = None if options.weights_only else "bytes"
    opened = open_source(source, maps=maps, config=config, dialect=source_dialect, remote=remote)
    identity = opened.identified()
    target = identity.family.dialect(name)
    _check_container(options.container, target)
    made = build_plan(opened.checkpoint, identity, target, options)
    if unused := unused_patterns(options.allow_unmapped, opened.checkpoint.tensors):
        note = f"--allow-unmapped fits no tensor: {', '.join(map(repr, unused))}"
        made = replace(made, notes=(*made.notes, note))
    if options.text_only and not any(
        fits(name, identity.dialect.beyond) for name in opened.checkpoint.tensors
    ):
        made = replace(made, notes=(*made.notes, "--text-only: the checkpoint holds no other part"))
    if not options.weights_only and (left := _left_behind(opened, made)):
        made = replace(made, notes=(*made.notes, f"not carried over: {some(left)}"))
    return Prepared(opened, target, made)


# Files beside the weights that say how the weights are stored, or what was done to make them; a target has
# its own, or none.
_OWN = (
    "*.index.json",
    RECEIPT,
    "metadata.json",
    "model.weights.json",
    "*_METADATA",
    "manifest.ocdbt",
    "*.md",
)


def _left_behind(opened: Opened, made: Plan) -> list[str]:
    """Files of the source that are neither copied nor written anew under their name, nor its config."""
    words = opened.identified().words or opened.identified().dialect
    kept = {side.copied_from for side in made.side_files} | {side.name for side in made.side_files}
    found = (*opened.checkpoint.files, *opened.checkpoint.others)
    return sorted(
        name
        for name in found
        if name not in kept and name != words.config.file and not fits(name, (*_OWN, *DOCUMENTS))
    )


def _check_container(container: str | None, target: Dialect) -> None:
    """Raises UnsupportedError where the target's framework reads another container than the one asked for."""
    own = target.files.container
    if container == "safetensors" and own != "safetensors":
        raise UnsupportedError(
            f"{target.title} reads no safetensors", cause=f"it reads {own}", hint="leave out --container"
        )


def convert(
    source: str | Path | None = None,
    out: str | Path | None = None,
    *,
    to: str | None = None,
    dtype: str | torch.dtype = "keep",
    tied: str | None = None,
    max_shard_size: str | int | None = None,
    allow_unmapped: str | Sequence[str] = (),
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    source_dialect: str | None = None,
    container: str | None = None,
    text_only: bool = False,
    target_model: str | None = None,
    force: bool = False,
    options: ExecutionOptions | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> Conversion:
    """Convert a checkpoint into the directory `out`, all or nothing.

    With `target_model` the live PyTorch module is asked first (see `porter.verification.live`). An
    existing `out` is replaced only with `force`, and only if porter wrote it. Raises PorterError.
    """
    prepared = prepare(
        source,
        to=to,
        dtype=dtype,
        tied=tied,
        max_shard_size=max_shard_size,
        allow_unmapped=allow_unmapped,
        maps=maps,
        config=config,
        source_dialect=source_dialect,
        container=container,
        text_only=text_only,
    )
    if target_model is not None:
        check_target_model(prepared, target_model)
    return run(prepared, out, force=force, options=options, progress=progress)


def check_target_model(prepared: Prepared, spec: str) -> int:
    """Ask a live module whether it accepts the plan: how many tensors it takes, or UnsupportedError."""
    from porter.verification.live import check_plan

    return check_plan(prepared.plan, prepared.target, spec)


def run(
    prepared: Prepared,
    out: str | Path | None = None,
    *,
    force: bool = False,
    options: ExecutionOptions | None = None,
    progress: Callable[[str, int], None] | None = None,
    moving: Callable[[str], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Conversion:
    """Run a prepared plan and publish its directory.

    `options` say how: sharing blocks, digests, resuming, memory. What `progress`, `moving` and `notice`
    are told is described at `porter.execution.run.execute`.
    """
    from porter.execution.run import execute

    if options is not None and options.reflink == ALWAYS and prepared.opened.stream is not None:
        raise UsageError(
            "--reflink always cannot share blocks with a source that is not on this machine",
            hint="porter download it first, or --keep-source, or leave out --reflink",
        )
    destination = Path(out).expanduser() if out is not None else default_out(prepared)
    if prepared.opened.stream is not None:
        return _run_remote(
            prepared, prepared.opened.stream, destination, force, options, progress, moving, notice
        )
    result = execute(
        prepared.plan,
        prepared.opened.checkpoint.root,
        destination,
        force=force,
        inside=prepared.opened.checkpoint.single,
        options=options,
        progress=progress,
        moving=moving,
        notice=notice,
        receipt=lambda digests: receipt(prepared, digests),
    )
    return Conversion(
        prepared.plan,
        prepared.opened.source,
        destination,
        dict(result.sizes),
        dict(result.digests),
        dict(result.shared),
    )


def _run_remote(
    prepared: Prepared,
    stream: HubSource,
    destination: Path,
    force: bool,
    options: ExecutionOptions | None,
    progress: Callable[[str, int], None] | None,
    moving: Callable[[str], None] | None,
    notice: Callable[[str], None] | None,
) -> Conversion:
    from porter.execution.remote import execute_remote

    result = execute_remote(
        prepared.plan,
        stream,
        prepared.opened.checkpoint.root,
        destination,
        force=force,
        options=options,
        progress=progress,
        moving=moving,
        notice=notice,
        receipt=lambda digests, verified: receipt(
            prepared, digests, {name: stream.sha256(name) for name in verified}
        ),
    )
    return Conversion(
        prepared.plan, prepared.opened.source, destination, dict(result.sizes), dict(result.digests)
    )


def default_out(prepared: Prepared) -> Path:
    """A directory beside you, named after the model and the dialect: `gemma-2b-litgpt`.

    Where you stand in the source itself, it is made beside that.
    """
    checkpoint, here = prepared.opened.checkpoint, Path.cwd()
    if not checkpoint.single and here.resolve() == checkpoint.root.resolve():
        here = here.parent
    return here / f"{checkpoint.label.rsplit('/', 1)[-1]}-{prepared.target.name}"


def receipt(
    prepared: Prepared, digests: Mapping[str, str | None], verified: Mapping[str, str | None] | None = None
) -> bytes:
    """What was converted from what, by which plan and tables; digests where the bytes passed by.

    `verified` are the source files whose published sha256 was found to be right.
    """
    from porter import __version__

    made, known = prepared.plan, verified or {}
    content: dict[str, Any] = {
        "schema": 1,
        "plan": made.hash,
        "grade": grade(made),
        "family": made.family,
        "from": made.source_dialect,
        "to": made.target_dialect,
        "tables": dict(made.tables),
        "tools": {"porter": __version__, "python": platform.python_version()},
        "source": {
            "label": prepared.opened.checkpoint.label,
            "files": {
                name: {"size": size, "sha256": f"sha256:{known[name]}" if known.get(name) else None}
                for name, size in made.source_sizes.items()
            },
        },
        "files": {name: {"sha256": digest} for name, digest in digests.items()},
        "notes": list(made.notes),
    }
    return (json.dumps(content, indent=2) + "\n").encode()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Planning makes millions of small values and no cycles: the collector would only walk them, again and
    again (two thirds of the time for 100,000 tensors)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _target_name(to: str | None, maps: Sequence[Path]) -> str:
    if to is not None:
        return to
    if maps:
        return load_user_table(maps[-1]).name
    raise UsageError("no target was named", hint="--to litgpt or --to hf")
