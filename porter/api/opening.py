"""Opening a source for any of the public functions: path or default, tables, identity."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from porter.api.folders import checkpoint_inside
from porter.containers.checkpoint import Checkpoint, open_checkpoint
from porter.containers.orbax import orbax_tree as orbax
from porter.errors import PorterError, UsageError
from porter.planning.arguments import as_path, as_paths
from porter.reading.unforeseen import reading
from porter.recognition.identify import Identity, identify
from porter.sources.base import Source
from porter.sources.buckets.bucket_address import parse_address
from porter.sources.choose_weights import Wanted
from porter.sources.hub_addresses import repository_at
from porter.sources.kaggle import kaggle_models as kaggle
from porter.sources.local import Location, locate, near_names
from porter.sources.names import HubReference, find_source
from porter.sources.weight_files import ADAPTERS, fits, weight_sets
from porter.tables.catalogue import Families, Family, load_families
from porter.tables.dialect_names import dialect_named, unknown_dialect
from porter.wording import command, option


@dataclass(frozen=True)
class Opened:
    """A checkpoint with the tables that apply to it. `identity` is None where no table fits: see `reason`."""

    source: str
    checkpoint: Checkpoint
    families: Families
    identity: Identity | None
    reason: PorterError | None

    def identified(self) -> Identity:
        """The identity, or the error that says why there is none."""
        if self.identity is None:
            assert self.reason is not None
            raise self.reason
        return self.identity


def open_source(
    source: str | Path | Source | None,
    *,
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    dialect: str | None = None,
    remote: str | None = None,
    key: str | None = None,
    family: str | None = None,
) -> Opened:
    """Open a checkpoint (default: `default_source`) and find out what it is.

    A path always wins over a name on the Hub. What a name stands for is taken from the Hub's cache; only
    with `remote` may it be read over the network: its "headers", or its "bytes" too. `key` names a state dict
    of a torch file that holds several, `family` what the model is, whatever its config says. The small files
    of a `Source` are copied into a directory that goes with the process.
    """
    families = load_families(as_paths(maps, "maps"))
    override = None if config is None else as_path(config, "config")
    if override is not None and not override.exists():
        raise UsageError(f"there is no config at {override}")
    wanted = _wanted(families, dialect)
    dialect = wanted.dialect if wanted else None
    name, checkpoint = open_weights(source, families, dialect=dialect, remote=remote, key=key)
    try:
        with reading(name):
            identity = identify(checkpoint, families, config=override, dialect=dialect, family=family)
        if override is not None:
            _check_used(override, identity)
    except PorterError as error:
        return Opened(name, checkpoint, families, None, error)
    return Opened(name, checkpoint, families, identity, None)


def open_weights(
    source: str | Path | Source | None,
    families: Mapping[str, Family],
    *,
    dialect: str | None = None,
    remote: str | None = None,
    key: str | None = None,
) -> tuple[str, Checkpoint]:
    """What a source is called, and its checkpoint, as `open_source` opens them; its config is not asked."""
    where = default_source() if source is None else source
    wanted = _wanted(families, dialect)
    with reading(getattr(where, "label", where)):
        if isinstance(where, str | Path):
            return str(where), _open(where, remote, wanted, key)
        checkpoint = _open_own(where, wanted, key)
        return checkpoint.label, checkpoint


def _check_used(config: Path, identity: Identity) -> None:
    """Raises UsageError for a config that is not read, since the dialect's own is of another kind."""
    words = identity.words or identity.dialect
    file = words.config.file
    if file is None or Path(file).suffix != config.suffix:
        raise UsageError(
            f"{config.name} is not read for {words.title}",
            cause=f"its config is {file or 'in no file'}",
            hint=f"name a file that ends in {Path(file).suffix}" if file and Path(file).suffix else None,
        )


def _wanted(families: Mapping[str, Family], dialect: str | None) -> Wanted | None:
    """What a dialect may be stored in, by the tables. Raises UsageError for a word that none of them has."""
    if dialect is None:
        return None
    known = {name for family in families.values() for name in family.dialects}
    said, dialect = dialect, dialect_named(dialect, known)
    if dialect is None:
        unknown = unknown_dialect(said, known)
        unknown.hint = f"{unknown.hint}; to choose among the files of a folder, name the file itself"
        raise unknown
    named = [family.dialects[dialect] for family in families.values() if dialect in family.dialects]
    files = [table.files for table in named]
    return Wanted(
        dialect,
        frozenset(container for item in files for container in item.readable),
        frozenset(name for item in files for name in (item.weights, item.torch) if name is not None),
    )


def _open_own(source: Source, wanted: Wanted | None, key: str | None) -> Checkpoint:
    from porter.containers.from_source import open_from

    if not isinstance(source, Source):
        raise UsageError(f"a source is a path, a name or a Source, not {source!r:.80}")
    if key is not None:
        raise UsageError(f"{option('key')} names a state dict of a torch file, and {source.label} is none")
    small = Path(tempfile.mkdtemp(prefix="porter-small-"))
    atexit.register(shutil.rmtree, small, ignore_errors=True)
    return open_from(source, small, wanted)


def _open(source: str | Path, remote: str | None, wanted: Wanted | None, key: str | None) -> Checkpoint:
    try:
        return _open_named(source, remote, wanted, key)
    except PorterError as error:
        # `folder/nmae` reads as a repository's name where there is no such path.
        if isinstance(find_source(source), HubReference) and (near := near_names(Path(source))):
            error.hint = f"did you mean the path {' or '.join(near)}?" + (
                f" Or {error.hint}" if error.hint else ""
            )
        raise


def _open_named(source: str | Path, remote: str | None, wanted: Wanted | None, key: str | None) -> Checkpoint:
    if isinstance(source, str) and (there := kaggle.parse(source)) is not None:
        if (copy := kaggle.cached(there)) is not None:
            return open_checkpoint(locate(copy[1]), wanted, key)
        raise UsageError(
            f"{source} has not been downloaded",
            cause=f"{there.label} is not, or not completely, in {kaggle.cache_root()}",
            hint=command("download", str(source)),
        )
    # A page of the Hub is an https:// address, too.
    page = isinstance(source, str) and repository_at(source) is not None
    if isinstance(source, str) and not page and (address := parse_address(source)) is not None:
        from porter.sources.buckets.bucket_listing import open_bucket

        return _open_own(open_bucket(address), wanted, key)
    found = find_source(source)
    if not isinstance(found, HubReference):
        location, remarks = checkpoint_inside(locate(found))
        opened = open_checkpoint(location, wanted, key)
        return replace(opened, remarks=(*remarks, *opened.remarks)) if remarks else opened
    from porter.sources.hub.repository import cached_snapshot, is_offline

    snapshot = cached_snapshot(found)
    if snapshot is not None:
        return open_checkpoint(Location(snapshot, None, found.repo), wanted, key)
    if remote is not None and not (remote == "bytes" and is_offline()):
        from porter.containers.hub_headers import open_remote, open_stream

        if remote == "headers":
            return open_remote(found, wanted=wanted)
        try:
            return open_stream(found, wanted=wanted)
        except PorterError as error:
            if type(error) is PorterError:
                # The network, not the request: say how to be independent of it.
                near = f"`{command('download', str(source))}` while the Hub can be reached"
                error.hint = f"{error.hint}; or {near}" if error.hint else near
            raise
    raise UsageError(
        f"{source} has not been downloaded",
        cause=f"{found.label} is not, or not completely, in the Hub's cache",
        hint=command("download", str(source)),
    )


_MEANT = (*ADAPTERS, "*.distcp", "zero_to_fp32.py")


def default_source() -> Path:
    """The current directory if it is a checkpoint, else the model that was downloaded last."""
    here = Path.cwd()
    names = [path.name for path in here.iterdir()]
    # An adapter or a part of a distributed checkpoint is no checkpoint, but it is what was meant.
    if weight_sets(names) or orbax.holds_orbax(here) or any(fits(name, _MEANT) for name in names):
        return here
    from porter.sources.hub.repository import last_downloaded

    if snapshot := last_downloaded():
        return snapshot
    raise UsageError(
        "no source was named, and there is none to fall back on",
        cause="the current directory is no checkpoint, and none has been downloaded",
        hint=f"name a directory, a file or a model, or `{command('download', 'gemma-2b')}` first",
    )
