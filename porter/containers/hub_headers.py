"""A checkpoint on the Hub, opened by its headers alone: kilobytes, whatever the model's size.

The config and its like go to the Hub's cache; of the weights only the safetensors headers are read. What
the cache holds already is read there, and a model that is complete there needs no network at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from porter.containers.base import Header
from porter.containers.checkpoint import Checkpoint, open_checkpoint
from porter.containers.safetensors.shards import (
    HEADER_GUESS,
    MAX_INDEX,
    header_of,
    holders_of,
    index_remarks,
    read_header,
    read_index,
)
from porter.containers.ungathered import refuse_adapter
from porter.errors import MalformedError, UnsupportedError
from porter.sources.choose_weights import Wanted
from porter.sources.hub.hub_fetch import Place, fetch
from porter.sources.hub.hub_ranges import RangeReader
from porter.sources.hub.hub_source import HubFile, HubSource
from porter.sources.hub.listing import RepoFile, select, weights
from porter.sources.hub.repository import cached_snapshot, list_files
from porter.sources.local import Location
from porter.sources.names import HubReference
from porter.wording import command

# What is needed to know a checkpoint's family and dialect; a tokenizer's megabytes are not.
SMALL_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "model_config.yaml")

# Bytes. The largest published config.json has about 1 MB.
_MAX_SMALL = 10_000_000

# Bytes of a header per tensor beyond its name: quotes, dtype, shape and two offsets of up to 11 digits.
_ENTRY_BYTES = 96

# Bytes. Free metadata, and padding to 8.
_HEADER_BASE = 512

# The Hub answers many small requests at once; each waits for a round trip or two.
_WORKERS = 8


def open_remote(ref: HubReference, token: str | None = None, *, wanted: Wanted | None = None) -> Checkpoint:
    """Open a model on the Hub without downloading it. Raises PorterError and its kinds.

    `files` holds only the small ones (`SMALL_FILES`) unless the model is complete in the cache.
    """
    if snapshot := cached_snapshot(ref):
        return open_checkpoint(Location(snapshot, None, ref.repo), wanted)
    return _remote(Place(list_files(ref, token)), ref, token, wanted)


def open_stream(ref: HubReference, token: str | None = None, *, wanted: Wanted | None = None) -> Checkpoint:
    """Open a model on the Hub to be converted from afar: its headers, all its small files, and its source.

    The tokenizer and its like go to the Hub's cache, the weights do not. Raises PorterError and its kinds.
    """
    place = Place(list_files(ref, token))
    heavy = {file.name for file in weights(place.listing.files)[0]}
    small = [file.name for file in select(place.listing.files) if file.name not in heavy]
    checkpoint = _remote(place, ref, token, wanted, small)
    return replace(checkpoint, source=HubSource(ref, place.listing, checkpoint.root, token))


def _remote(
    place: Place,
    ref: HubReference,
    token: str | None,
    wanted: Wanted | None = None,
    further: Sequence[str] = (),
) -> Checkpoint:
    refuse_adapter(ref.label, [file.name for file in place.listing.files if "/" not in file.name])
    chosen, remarks = weights(place.listing.files, wanted=wanted, to_read=ref.label)
    shards = [file for file in chosen if file.name.endswith(".safetensors")]
    if not shards:
        found = sorted(file.name for file in chosen) or [
            file.name for file in place.listing.files if file.name.endswith(".gguf")
        ]
        raise UnsupportedError(
            f"{ref.label} holds no safetensors, and other files cannot be looked into from afar",
            cause=f"it holds {', '.join(found[:5])}" if found else "it holds no weights at its top level",
            # Only the kinds that are chosen unasked come without being named.
            hint=command("download", ref.label)
            if chosen
            else (f"`{command('download', ref.label, include=found[0])}`" if found else None),
        )
    index = next((file for file in chosen if file.name.endswith(".index.json")), None)
    weight_map = _index(place, index, ref, token) if index else None
    if weight_map is not None:
        shards = _named(weight_map, place, ref)
    small = [file for name in SMALL_FILES if (file := place.listing.file(name)) and file.size <= _MAX_SMALL]
    small += [file for name in further if name not in SMALL_FILES and (file := place.listing.file(name))]
    with ThreadPoolExecutor(_WORKERS) as pool:
        fetching = [pool.submit(fetch, place, file, ref, token=token) for file in small]
        reading = [pool.submit(_header, place, file, ref, token, weight_map) for file in shards]
        files = {file.name: future.result() for file, future in zip(small, fetching, strict=True)}
        headers = [future.result() for future in reading]
    holders = holders_of(headers)
    if index is not None and weight_map is not None:
        alike = [file.name for file in chosen if file.name.endswith(".safetensors")]
        remarks = (*remarks, *index_remarks(weight_map, holders, index.name, alike))
    return Checkpoint(
        place.root, ref.repo, headers[0].container, tuple(headers), files, remarks=tuple(remarks)
    )


def _index(place: Place, index: RepoFile, ref: HubReference, token: str | None) -> dict[str, str]:
    if index.size > MAX_INDEX:
        raise MalformedError(f"{index.name} is malformed", cause=f"it has {index.size} bytes")
    return read_index(fetch(place, index, ref, token=token))


def _named(weight_map: Mapping[str, str], place: Place, ref: HubReference) -> list[RepoFile]:
    """The shards that the index names, in order of name."""
    found = []
    for name in sorted(set(weight_map.values())):
        file = place.listing.file(name)
        if file is None:
            raise MalformedError(f"shard {name} is missing", cause=f"the index of {ref.label} names it")
        found.append(file)
    return found


def _header(
    place: Place,
    file: RepoFile,
    ref: HubReference,
    token: str | None,
    weight_map: Mapping[str, str] | None,
) -> Header:
    if place.present(file):
        return read_header(place.path(file), file.name)
    names = [name for name, shard in (weight_map or {}).items() if shard == file.name]
    guess = _HEADER_BASE + sum(len(name.encode()) + _ENTRY_BYTES for name in names)
    return header_of(HubFile(RangeReader(ref, place.listing, token), file), guess if names else HEADER_GUESS)
