"""`porter.plan` and `porter.convert`: from a source to a proved plan, and from the plan to bytes."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from porter.api.opening import Opened, open_source
from porter.api.targets import no_target
from porter.containers.array_names import ARRAY
from porter.errors import DifferenceError, PorterError, UnsupportedError, UsageError
from porter.execution.leftovers import RECEIPT
from porter.execution.receipts import seal, tensors_digest
from porter.execution.run_options import ALWAYS, RunOptions
from porter.execution.watch import Watch
from porter.facts import Facts
from porter.planning.arguments import unused_patterns
from porter.planning.build import build_plan
from porter.planning.fidelity import fidelity
from porter.planning.plan import COMPUTE, Plan
from porter.planning.plan_options import PlanOptions
from porter.reading.unforeseen import reading
from porter.recognition.identify import Identity
from porter.sources.base import Source
from porter.sources.buckets.bucket_address import BucketAddress, parse_address
from porter.sources.weight_files import DOCUMENTS, at_top, fits, some
from porter.tables.catalogue import load_user_table
from porter.tables.model import Dialect
from porter.wording import flag, option

if TYPE_CHECKING:
    from porter.execution.cluster.predict import Prediction
    from porter.execution.driver import Driver
    from porter.execution.executor import Result


# What begins an address: `hf://`, and `s3:/`, as pathlib leaves it of `s3://`.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

# Bytes of weights whose fingerprint costs a tenth of a second.
CHEAP = 256 << 20


@dataclass(frozen=True, repr=False)
class Conversion(Facts):
    """A finished conversion: its plan, the published directory, each file's bytes and sha256 (or None).

    `out` is text for a folder in a bucket. `crcs` are CRC-32 of files that were sent in parts. `shared` is
    how many bytes of each weight file share their blocks with the source's.
    """

    plan: Plan
    source: str
    out: Path | str
    sizes: Mapping[str, int]
    digests: Mapping[str, str | None]
    shared: Mapping[str, int] = field(default_factory=dict)
    crcs: Mapping[str, int] = field(default_factory=dict)

    def _facts(self) -> list[tuple[str, str]]:
        nbytes = sum(self.sizes.values())
        return [
            ("converted", f"{self.source} → {self.out}"),
            ("plan", repr(self.plan)),
            ("files", f"{some(list(dict.fromkeys(map(at_top, self.sizes))))}: {nbytes:,} bytes"),
            *([("shared", f"{shared:,} bytes, as blocks")] if (shared := sum(self.shared.values())) else []),
        ]


@dataclass(frozen=True)
class Prepared:
    """A plan with what is needed to check and run it, and the options that it was made by."""

    opened: Opened
    target: Dialect
    plan: Plan
    options: PlanOptions = field(default_factory=PlanOptions)


def plan(
    source: str | Path | Source | None = None, options: PlanOptions | None = None, **chosen: Any
) -> Plan:
    """Prove and plan a conversion from headers and configs alone; nothing is written.

    `source` is a path, a model's name, or a `porter.sources.base.Source`. What to make is said by a
    `PlanOptions`, or by its fields as keywords: `to="litgpt"`. Raises PorterError.

    >>> plan = porter.plan("gemma-2b/", to="litgpt")
    >>> plan
    <Plan gemma: hf → litgpt, 29 → 24 tensors, ... bytes>
    >>> plan.target_by_name["transformer.ln_f.weight"].shape
    (66,)
    """
    return prepare(source, options, **chosen).plan


def prepare(
    source: str | Path | Source | None, options: PlanOptions | None = None, **chosen: Any
) -> Prepared:
    """As `plan`, with the opened source and the target's table."""
    options = replace(options, **chosen) if options is not None else PlanOptions(**chosen)
    # A state dict needs the files themselves; all else can be planned, and moved, from afar.
    remote = None if options.weights_only else "bytes"
    opened = open_source(
        source,
        maps=options.maps,
        config=options.config,
        dialect=options.source_dialect,
        remote=remote,
        key=options.key,
        family=options.family,
    )
    identity = opened.identified()
    target = _target(options, opened, identity)
    _check_container(options.container, target)
    with reading(opened.source):
        made = build_plan(opened.checkpoint, identity, target, options)
    if unused := unused_patterns(options.allow_unmapped, opened.checkpoint.tensors):
        note = f"{option('allow-unmapped')} fits no tensor: {', '.join(map(repr, unused))}"
        made = replace(made, notes=(*made.notes, note))
    if options.text_only and not any(
        fits(name, identity.dialect.beyond) for name in opened.checkpoint.tensors
    ):
        made = replace(made, notes=(*made.notes, f"{flag('text-only')}: the checkpoint holds no other part"))
    if not options.weights_only and (left := _left_behind(opened, made)):
        made = replace(made, notes=(*made.notes, f"not carried over: {some(left)}"))
    return Prepared(opened, target, made, options)


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
    """Files of the source that are neither copied nor written anew under their name, nor its config.

    What stands beside a file that was named alone is no part of the source.
    """
    if opened.checkpoint.single:
        return []
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
            f"{target.title} reads no safetensors",
            cause=f"it reads {own}",
            hint=f"leave out {option('container')}",
        )


def convert(
    source: str | Path | Source | None = None,
    out: str | Path | None = None,
    options: PlanOptions | None = None,
    *,
    run_options: RunOptions | None = None,
    target_model: str | None = None,
    force: bool = False,
    watch: Watch | None = None,
    **chosen: Any,
) -> Conversion:
    """Convert a checkpoint into the directory `out`, or the folder `s3://…` in a bucket, all or nothing.

    What to make is said by a `PlanOptions`, or by its fields as keywords; how, by `run_options`. `watch` is
    told how it goes. With `target_model` the live PyTorch module is asked first (see
    `porter.verification.live`). An existing `out` is replaced only with `force`, and only if porter wrote it.
    Raises PorterError.

    >>> done = porter.convert("gemma-2b/", "out/", to="litgpt")
    >>> sorted(done.sizes)[:2]
    ['generation_config.json', 'lit_model.safetensors']
    """
    prepared = prepare(source, options, **chosen)
    if target_model is not None:
        check_target_model(prepared, target_model)
    return run(prepared, out, force=force, options=run_options, watch=watch)


def check_target_model(prepared: Prepared, spec: str) -> int:
    """Ask a live module whether it accepts the plan: how many tensors it takes, or UnsupportedError."""
    from porter.verification.live import check_plan

    return check_plan(prepared.plan, prepared.target, spec)


def run(
    prepared: Prepared,
    out: str | Path | None = None,
    *,
    force: bool = False,
    options: RunOptions | None = None,
    watch: Watch | None = None,
) -> Conversion:
    """Run a prepared plan and publish its directory.

    `options` say how: sharing blocks, digests, resuming, memory; `watch` is told how it goes.
    """
    from porter.execution.publish import publish_plan

    checkpoint = prepared.opened.checkpoint
    assert checkpoint.source is not None, "a plan that is run has a source"
    destination = _destination(prepared, out)
    with ExitStack() as stack:
        hashed = options is not None and options.digest == ALWAYS
        result = publish_plan(
            prepared.plan,
            checkpoint.source,
            destination,
            force=force,
            inside=checkpoint.single,
            options=options,
            watch=watch,
            receipt=lambda made: receipt(prepared, made, hashed=hashed, watch=watch),
            driver=cluster_driver(options.on, stack) if options is not None and options.on else None,
        )
    digests = dict(result.digests)
    if isinstance(destination, BucketAddress) and options is not None and options.digest == "always":
        digests |= _digests_read_again(destination, digests, watch)
    return Conversion(
        prepared.plan,
        prepared.opened.source,
        destination if isinstance(destination, Path) else destination.url,
        dict(result.sizes),
        digests,
        dict(result.shared),
        dict(result.crcs),
    )


def _digests_read_again(
    out: BucketAddress, digests: Mapping[str, str | None], watch: Watch | None
) -> dict[str, str | None]:
    """The sha256 of files that nobody has seen pass from front to back: they are read, and recorded."""
    if all(digest is not None for digest in digests.values()):
        return {}
    from porter.api.check import check

    # Progress has told of these bytes already.
    found = check(out.url, record=True, watch=None if watch is None else replace(watch, progress=None))
    if found.verdict == "differs":
        raise DifferenceError(
            f"{out.url} does not hold what was written",
            cause="; ".join(f"{file.name}: {file.detail}" for file in found.files if file.detail),
            hint=f"the store, or somebody else, has changed it; convert again with {flag('force')}",
        )
    return {file.name: file.sha256 for file in found.files}


def _destination(prepared: Prepared, out: str | Path | None) -> Path | BucketAddress:
    if out is None:
        return default_out(prepared)
    address = parse_address(out) if isinstance(out, str) else None
    if address is None and _SCHEME.match(str(out)):
        raise UsageError(
            f"{str(out)!r} is no directory",
            cause="it looks like an address, and porter writes to directories and to s3://bucket/folder",
            hint="s3://… as text, with both slashes; or ./ before a directory of that name",
        )
    return Path(out).expanduser() if address is None else address


def check_before(
    prepared: Prepared,
    out: str | Path | None = None,
    *,
    force: bool = False,
    options: RunOptions | None = None,
) -> None:
    """Raises what `run` would refuse without a byte of the source."""
    from porter.execution.preflight import preflight
    from porter.execution.publish import preflight_bucket, source_paths

    checkpoint = prepared.opened.checkpoint
    assert checkpoint.source is not None, "a plan that is run has a source"
    root: Path | None = getattr(checkpoint.source, "root", None)
    destination = _destination(prepared, out)
    if isinstance(destination, Path):
        paths = source_paths(checkpoint.source, prepared.plan)
        preflight(
            prepared.plan,
            destination,
            root,
            paths,
            force=force,
            inside=checkpoint.single,
            near=checkpoint.source.near,
            options=options,
        )
    else:
        preflight_bucket(destination, checkpoint.source, plan=prepared.plan, force=force, options=options)
    if options is not None and options.on:
        from porter.execution.cluster.ray_pool import require_ray

        require_ray()


def cluster_driver(on: str, stack: ExitStack) -> Driver:
    """What runs a plan on the cluster that `RunOptions.on` names, until the stack ends."""
    from porter.execution.cluster.cluster_driver import ClusterDriver
    from porter.execution.cluster.ray_pool import RayPool

    return ClusterDriver(stack.enter_context(RayPool(on.partition("=")[2] or None)))


def predict(prepared: Prepared, assume: str = "") -> Prediction:
    """What a prepared plan is on a cluster: tasks, their bytes, and the time by a stated model.

    `assume` says what the workers can, as `workers=8,read=200MB,write=100MB,task=0.5`, or some of that.
    """
    from porter.execution.cluster.predict import assumed_spoken
    from porter.execution.cluster.predict import predict as by_model

    return by_model(prepared.plan, assumed_spoken(assume))


def default_out(prepared: Prepared) -> Path:
    """A directory beside you, named after the model and the dialect: `gemma-2b-litgpt`.

    Where you stand in the source itself, it is made beside that.
    """
    checkpoint, here = prepared.opened.checkpoint, Path.cwd()
    if not checkpoint.single and here.resolve() == checkpoint.root.resolve():
        here = here.parent
    return here / f"{checkpoint.label.rsplit('/', 1)[-1]}-{prepared.target.name}"


def receipt(prepared: Prepared, result: Result, *, hashed: bool = False, watch: Watch | None = None) -> bytes:
    """What was converted from what, by which plan and tables; digests where the bytes passed by.

    The fingerprint is there where it is cheap, and where everything is to be `hashed`.
    """
    from porter import __version__

    made, source = prepared.plan, prepared.opened.checkpoint.source
    published = source.files() if source is not None else {}
    known = {name: published[name].digest for name in result.verified}
    values = fidelity(made)
    content: dict[str, Any] = {
        "plan": made.hash,
        "grade": values.grade,
        "cause": values.sentence,
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
        "files": {name: _file_entry(result, name) for name in result.digests},
        "tensors": tensors_digest(made.targets()),
        "fingerprint": _fingerprint(prepared, hashed, watch or Watch()),
        "notes": list(made.notes),
    }
    return seal(content)


def _fingerprint(prepared: Prepared, hashed: bool, watch: Watch) -> str | None:
    """The fingerprint of the output, which is the source's: taken from that, whose pages were just read.

    None where values or ties changed on the way, where the source is far or has to be unpacked, and, unless
    it is `hashed`, for weights of more than CHEAP bytes.
    """
    made, checkpoint = prepared.plan, prepared.opened.checkpoint
    identity = prepared.opened.identified()
    tied = "tie_embeddings"
    if (
        checkpoint.source is None
        or not checkpoint.source.near
        or made.classes[COMPUTE]
        or made.hyperparameters.get(tied) != identity.hyperparameters.get(tied)
        or any(tensor.file.startswith(ARRAY) for tensor in made.sources)
        or (sum(tensor.nbytes for tensor in made.sources) > CHEAP and not hashed)
    ):
        return None
    from porter.verification.fingerprints import fingerprint_of

    try:
        return fingerprint_of(checkpoint, identity, prepared.options).fingerprint
    except PorterError as error:
        # The output is none the worse for it.
        watch.notice(f"the receipt states no fingerprint: {error.message}")
        return None


def _file_entry(result: Result, name: str) -> dict[str, Any]:
    """What is known of a file: size and sha256, and where it was made in parts its CRC-32 and theirs."""
    entry: dict[str, Any] = {"size": result.sizes[name], "sha256": result.digests[name]}
    if name in result.crcs:
        entry["crc32"] = f"{result.crcs[name]:08x}"
    if name in result.parts:
        entry["parts"] = [
            {
                "start": part.start,
                "end": part.end,
                "crc32": f"{part.crc:08x}",
                "sha256": f"sha256:{part.digest}" if part.digest else None,
            }
            for part in result.parts[name]
        ]
    return entry


def _target(options: PlanOptions, opened: Opened, identity: Identity) -> Dialect:
    """The dialect to make. Raises UsageError that says where this source can go, if none was named."""
    if options.to is not None:
        return identity.family.dialect(options.to, to_write=True)
    tables = [path for path in options.maps if not path.is_dir()]
    if tables:
        return identity.family.dialect(load_user_table(tables[-1]).name)
    raise no_target(options, opened, identity)
