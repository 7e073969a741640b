"""What surrounds the tensors of an output file, by container: headers, directories, alignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from porter.containers.base import OutputFile
from porter.containers.keras import hdf5, hdf5_writer
from porter.containers.orbax import orbax_tree, orbax_writer
from porter.containers.safetensors import safetensors_header, safetensors_writer
from porter.containers.torch import torch_zip, torch_zip_writer
from porter.errors import PorterError, UnsupportedError

_FRAMES: dict[str, Callable[[OutputFile], list[tuple[int, bytes]]]] = {
    safetensors_header.CONTAINER: safetensors_writer.literals,
    hdf5.CONTAINER: hdf5_writer.literals,
    orbax_tree.CONTAINER: orbax_writer.literals,
}


def wants_sums(file: OutputFile) -> bool:
    """Whether the frame holds a CRC-32 of each tensor, so that it can be made only at the end."""
    return file.container == torch_zip.CONTAINER


def frame(file: OutputFile, crcs: Mapping[str, int] | None = None) -> list[tuple[int, bytes]]:
    """(offset, bytes) of all that is not tensor data, in order. `crcs` are the CRC-32 of tensors by name."""
    if file.container == torch_zip.CONTAINER:
        return sorted(torch_zip_writer.literals(file, crcs))
    found = _FRAMES.get(file.container)
    if found is None:
        raise UnsupportedError(f"{file.name}: cannot write the container {file.container}")
    return sorted(found(file))


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
