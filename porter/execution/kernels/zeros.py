"""Parts of a tensor that come from no source: zeros, such as the rows behind a vocabulary."""

from __future__ import annotations

from porter.containers.base import StoredTensor
from porter.execution.kernels.boxes import Box
from porter.execution.writers import RangeWriter, write_zeros
from porter.layout.copies import Loop, runs


def move_zeros(target: StoredTensor, box: Box, writer: RangeWriter) -> None:
    """Fills the box's places in the target with zeros."""
    loops = tuple(Loop(loop.size, loop.target_stride, loop.target_stride) for loop in box.loops)
    for run in runs(loops, box.target, box.target):
        start = target.offset + target.dtype.nbytes(run.target)
        write_zeros(writer, start, start + target.dtype.nbytes(run.length))
