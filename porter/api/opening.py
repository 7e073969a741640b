"""Opening a source for any of the public functions: path or default, tables, identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from porter.containers.checkpoint import Checkpoint, open_checkpoint
from porter.errors import PorterError, UsageError
from porter.recognition.identify import Identity, identify
from porter.sources.kaggle import kaggle_models as kaggle
from porter.sources.local import Location, locate
from porter.sources.names import HubReference, find_source
from porter.tables.catalogue import Family, load_families

# Files whose presence makes the current directory a checkpoint.
_WEIGHTS = ("*.safetensors", "*.gguf", "*.pth", "*.bin", "*.weights.h5", "*.ckpt", "_METADATA")


@dataclass(frozen=True)
class Opened:
    """A checkpoint with the tables that apply to it. `identity` is None where no table fits: see `reason`."""

    source: str
    checkpoint: Checkpoint
    families: Mapping[str, Family]
    identity: Identity | None
    reason: PorterError | None

    def identified(self) -> Identity:
        """The identity, or the error that says why there is none."""
        if self.identity is None:
            assert self.reason is not None
            raise self.reason
        return self.identity


def open_source(
    source: str | Path | None,
    *,
    maps: Sequence[Path] = (),
    config: Path | None = None,
    dialect: str | None = None,
    remote: str | None = None,
    key: str | None = None,
    family: str | None = None,
) -> Opened:
    """Open a checkpoint (default: `default_source`) and find out what it is.

    A path always wins over a name on the Hub. What a name stands for is taken from the Hub's cache; only
    with `remote` may it be read over the network: its "headers", or its "bytes" too. `key` names a state dict
    of a torch file that holds several, `family` what the model is, whatever its config says.
    """
    where = default_source() if source is None else source
    families = load_families(maps)
    if config is not None and not config.is_file():
        raise UsageError(f"there is no config at {config}")
    checkpoint = _open(where, remote, key)
    try:
        identity = identify(checkpoint, families, config=config, dialect=dialect, family=family)
    except PorterError as error:
        return Opened(str(where), checkpoint, families, None, error)
    return Opened(str(where), checkpoint, families, identity, None)


def _open(source: str | Path, remote: str | None, key: str | None) -> Checkpoint:
    if isinstance(source, str) and (there := kaggle.parse(source)) is not None:
        if (copy := kaggle.cached(there)) is not None:
            return open_checkpoint(locate(copy[1]), key)
        raise UsageError(
            f"{source} has not been downloaded",
            cause=f"{there.label} is not, or not completely, in {kaggle.cache_root()}",
            hint=f"porter download {source}",
        )
    found = find_source(source)
    if not isinstance(found, HubReference):
        return open_checkpoint(locate(found), key)
    from porter.sources.hub.repository import cached_snapshot, is_offline

    snapshot = cached_snapshot(found)
    if snapshot is not None:
        return open_checkpoint(Location(snapshot, None, found.repo), key)
    if remote is not None and not (remote == "bytes" and is_offline()):
        from porter.containers.hub_headers import open_remote, open_stream

        if remote == "headers":
            return open_remote(found)
        try:
            return open_stream(found)
        except PorterError as error:
            if type(error) is PorterError:
                # The network, not the request: say how to be independent of it.
                error.hint = f"{error.hint}; or `porter download {source}` while the Hub can be reached"
            raise
    raise UsageError(
        f"{source} has not been downloaded",
        cause=f"{found.label} is not, or not completely, in the Hub's cache",
        hint=f"porter download {source}",
    )


def default_source() -> Path:
    """The current directory if it is a checkpoint, else the model that was downloaded last."""
    here = Path.cwd()
    if any(any(here.glob(pattern)) for pattern in _WEIGHTS):
        return here
    from porter.sources.hub.repository import last_downloaded

    if snapshot := last_downloaded():
        return snapshot
    raise UsageError(
        "no source was named, and there is none to fall back on",
        cause="the current directory is no checkpoint, and none has been downloaded",
        hint="name a directory, a file or a model, or `porter download gemma-2b` first",
    )
