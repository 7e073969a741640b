"""The plan that changes nothing: every tensor of a checkpoint under its own name, as it is."""

from __future__ import annotations

from collections.abc import Iterable

from porter.containers.base import OutputFile, StoredTensor
from porter.containers.checkpoint import Checkpoint
from porter.dtypes import DTYPES, Dtype
from porter.layout.copies import Loop, coalesce
from porter.planning.join import copy_class
from porter.planning.plan import Copy, Plan, Summary

VALUES = "values"


def as_stored(checkpoint: Checkpoint, *, as_values: bool = False) -> Plan:
    """For whoever reads tensors as they are; no table is asked, and nothing is proved.

    With `as_values` floats and what is quantised become float32.
    """
    tensors = tuple(checkpoint.tensors.values())
    dtypes = {t.name: _value_dtype(t.dtype) if as_values else t.dtype for t in tensors}
    copies = []
    for tensor in tensors:
        loops = row_major(tensor)
        kind = copy_class(tensor.dtype, dtypes[tensor.name], loops, ())
        copies.append(Copy(tensor.name, tensor.name, tensor.name, 0, 0, loops, kind))
    whole = [tensor._replace(strides=None, dtype=dtypes[tensor.name]) for tensor in tensors]
    files = tuple(
        OutputFile(name, checkpoint.container, size, tuple(t for t in whole if t.file == name))
        for name, size in checkpoint.sizes.items()
    )
    if as_values:
        files = (in_one_file(whole),)
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


def in_one_file(tensors: Iterable[StoredTensor]) -> OutputFile:
    """A file that is never written, in which tensors follow one another."""
    placed, end = [], 0
    for tensor in tensors:
        placed.append(tensor._replace(file=VALUES, offset=end))
        end += tensor.nbytes
    return OutputFile(VALUES, VALUES, end, tuple(placed))


def _value_dtype(dtype: Dtype) -> Dtype:
    return DTYPES["F32"] if dtype.kind in ("float", "quantised") else dtype


def row_major(tensor: StoredTensor) -> tuple[Loop, ...]:
    """From the tensor as it lies to the same one row-major."""
    rows = [1] * len(tensor.shape)
    for axis in reversed(range(len(rows) - 1)):
        rows[axis] = rows[axis + 1] * tensor.shape[axis + 1]
    strides = tensor.strides or rows
    return coalesce([Loop(*loop) for loop in zip(tensor.shape, strides, rows, strict=True)])
