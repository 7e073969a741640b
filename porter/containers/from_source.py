"""A checkpoint opened from any `Source`: an archive, memory, a store of your own.

Headers are read by ranges; the small files beside the weights are copied into a directory, since configs and
tokenizers are read from paths. Containers that only read files at a path are refused by name.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from porter.containers.base import Header
from porter.containers.checkpoint import SMALL, Checkpoint, no_weights
from porter.containers.contract import START, Container
from porter.containers.orbax.orbax_folders import TREE
from porter.containers.registry import container_shown, refuse_placeholder
from porter.containers.safetensors.shards import (
    MAX_INDEX,
    check_shards_exist,
    holders_of,
    index_remarks,
    read_index,
)
from porter.containers.ungathered import refuse_adapter
from porter.errors import MalformedError, UnsupportedError
from porter.sources.base import Source
from porter.sources.choose_weights import Wanted, check_whole, choose
from porter.sources.paths import unsafe_path
from porter.sources.weight_files import DOCUMENTS, TEMPLATES, container_by_suffix, fits, weight_sets

# Each header may be a round trip or two away.
_WORKERS = 8


def open_from(source: Source, small: Path, wanted: Wanted | None = None) -> Checkpoint:
    """Open the checkpoint at the top of `source`; its small files are copied into the directory `small`.

    Raises UnsupportedError for containers that need files at a path, UsageError where several checkpoints
    could be meant, MalformedError for broken ones and for a source that holds no weights.
    """
    present = source.files()
    for name in present:
        if reason := unsafe_path(name):
            raise MalformedError(f"{source.label}: unsafe file name {name!r}", cause=f"it {reason}")
    top = sorted(name for name in present if "/" not in name)
    refuse_adapter(source.label, top)
    sets = weight_sets(top)
    if not sets:
        if TREE in top:
            raise _needs_a_path(source, TREE, "orbax")
        raise no_weights(source.label, top)
    chosen, remarks = choose(sets, source.label, wanted)
    files: list[str] = list(chosen.files)
    weight_map = None
    # An index of Keras' is of a container that is refused below.
    if chosen.index is not None and chosen.container == "safetensors":
        weight_map = read_index(_copied(source, chosen.index, small))
        files = sorted(set(weight_map.values()))
        check_shards_exist(files, weight_map, present.__contains__, chosen.index)
    else:
        check_whole(chosen, source.label)
    with ThreadPoolExecutor(_WORKERS) as pool:
        read = list(pool.map(lambda file: _read(source, file), files))
    container = read[0][0]
    for file, (other, _) in zip(files, read, strict=True):
        if other is not container:
            raise MalformedError(
                f"the shards in {source.label} are files of different kinds",
                cause=f"{files[0]} is {container.name}, {file} is {other.name}",
            )
    headers = tuple(header for _, header in read)
    holders = holders_of(headers)
    if weight_map is not None and chosen.index is not None:
        remarks = (*remarks, *index_remarks(weight_map, holders, chosen.index, chosen.files))
    beside = [name for name in top if name not in files]
    beside += [name for name in present if Path(name).parent.as_posix() == TEMPLATES]
    readable = [name for name in beside if name.endswith(SMALL)]
    others = [
        name
        for name in beside
        if name not in readable and container_by_suffix(name) is None and not fits(name, DOCUMENTS)
    ]
    paths = {name: _copied(source, name, small) for name in sorted(readable)}
    return Checkpoint(
        small,
        source.label,
        container.name,
        headers,
        paths,
        source=source,
        remarks=remarks,
        others=tuple(sorted(others)),
    )


def _read(source: Source, name: str) -> tuple[Container, Header]:
    file = source.open(name)
    try:
        start = bytearray(min(START, file.size))
        file.read([memoryview(start)], 0)
        container = container_shown(bytes(start), name)
        if container.headers is None:
            raise _needs_a_path(source, name, container.name)
        return container, container.headers(file)
    finally:
        file.close()


def _needs_a_path(source: Source, name: str, container: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name} cannot be looked into in {source.label}",
        cause=f"it is {container}, of which only files in a directory on this machine are read",
        hint="copy the checkpoint into a directory and name that",
    )


def _copied(source: Source, name: str, small: Path) -> Path:
    """A small file's copy in the directory `small`."""
    file = source.open(name)
    try:
        if file.size > MAX_INDEX:
            raise MalformedError(
                f"{name} is no small file", cause=f"expected at most {MAX_INDEX} bytes, found {file.size}"
            )
        content = bytearray(file.size)
        file.read([memoryview(content)], 0)
    finally:
        file.close()
    if not fits(name, DOCUMENTS):
        refuse_placeholder(bytes(content[:START]), name)
    path = small / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
