"""What surrounds the tensors of an output file, by container: headers, directories, alignment."""

from __future__ import annotations

from collections.abc import Mapping

from porter.containers.base import OutputFile
from porter.containers.registry import container_named, writable_container
from porter.errors import PorterError


def wants_sums(file: OutputFile) -> bool:
    """Whether the frame holds a CRC-32 of each tensor, so that it can be made only at the end."""
    container = container_named(file.container)
    return container is not None and container.sums


def frame(file: OutputFile, crcs: Mapping[str, int] | None = None) -> list[tuple[int, bytes]]:
    """(offset, bytes) of all that is not tensor data, in order. `crcs` are the CRC-32 of tensors by name."""
    container = writable_container(file.container, file.name)
    assert container.frame is not None
    return sorted(container.frame(file, crcs))


def frame_bytes(pieces: list[tuple[int, bytes]], start: int, end: int, name: str) -> bytes:
    """Bytes `start` to `end` of a file, all of which belong to the frame; its pieces may adjoin."""
    found = bytearray()
    for at, data in pieces:
        if at < end and at + len(data) > start:
            if at > start + len(found):
                break
            found += data[start + len(found) - at : end - at]
    if len(found) != end - start:
        raise PorterError(f"{name}: the plan leaves a hole", cause=f"between bytes {start} and {end}")
    return bytes(found)
