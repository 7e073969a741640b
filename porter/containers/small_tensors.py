"""The values of a small tensor that says something about the others, read while a conversion is planned."""

from __future__ import annotations

import struct

from porter.containers.checkpoint import Checkpoint
from porter.errors import UnsupportedError

# Numbers. A tensor with one for each frequency of a head has at most some hundreds.
_MOST = 4096


def small_values(checkpoint: Checkpoint, name: str) -> tuple[float, ...]:
    """The elements of a float32 tensor. That its file has not changed since is checked with all others.

    Raises UnsupportedError for a large tensor, for another dtype and where only headers are to be had.
    """
    tensor = checkpoint.tensors[name]
    if tensor.dtype.name != "F32" or tensor.elements > _MOST:
        raise UnsupportedError(
            f"{name} is not a small tensor of float32",
            cause=f"it holds {tensor.elements} elements of {tensor.dtype.name}",
        )
    if checkpoint.source is None:
        raise UnsupportedError(
            f"{name} has to be read to know the model's config",
            cause="only the headers of the checkpoint are read here",
            hint="download it, and the copy here says it",
        )
    data = bytearray(tensor.nbytes)
    file = checkpoint.source.open(tensor.file)
    try:
        file.read([memoryview(data)], tensor.offset)
    finally:
        file.close()
    return struct.unpack(f"<{tensor.elements}f", data)
