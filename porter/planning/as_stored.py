"""The plan that changes nothing: every tensor of a checkpoint under its own name, as it is."""

from __future__ import annotations

from porter.containers.base import OutputFile, StoredTensor
from porter.containers.checkpoint import Checkpoint
from porter.layout.copies import Loop, coalesce
from porter.planning.join import copy_class
from porter.planning.plan import Copy, Plan, Summary


def as_stored(checkpoint: Checkpoint) -> Plan:
    """For whoever reads tensors as they are; no table is asked, and nothing is proved."""
    tensors = tuple(checkpoint.tensors.values())
    copies = []
    for tensor in tensors:
        loops = row_major(tensor)
        kind = copy_class(tensor.dtype, tensor.dtype, loops, ())
        copies.append(Copy(tensor.name, tensor.name, tensor.name, 0, 0, loops, kind))
    whole = [tensor._replace(strides=None) for tensor in tensors]
    files = tuple(
        OutputFile(name, checkpoint.container, size, tuple(t for t in whole if t.file == name))
        for name, size in checkpoint.sizes.items()
    )
    return Plan(
        family="",
        source_dialect="",
        target_dialect="",
        tables={},
        hyperparameters={},
        sources=tensors,
        source_sizes=checkpoint.sizes,
        files=files,
        copies=tuple(copies),
        checks=(),
        side_files=(),
        summary=Summary(len(tensors), len(tensors)),
    )


def row_major(tensor: StoredTensor) -> tuple[Loop, ...]:
    """From the tensor as it lies to the same one row-major."""
    rows = [1] * len(tensor.shape)
    for axis in reversed(range(len(rows) - 1)):
        rows[axis] = rows[axis + 1] * tensor.shape[axis + 1]
    strides = tensor.strides or rows
    return coalesce([Loop(*loop) for loop in zip(tensor.shape, strides, rows, strict=True)])
