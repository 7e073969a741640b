"""Ranges of a stored tensor as plain numbers in row-major order, whatever the tensor lies as.

Plain tensors are read as they are. Strided views, quantised blocks and rows with factors go through the
kernels that a conversion uses; the latter two become float32.
"""

from __future__ import annotations

from collections.abc import Mapping

from porter.containers.base import StoredTensor
from porter.dtypes import DTYPES
from porter.execution.buffers import Buffers
from porter.execution.classes import run_move
from porter.execution.kernels.boxes import Box, clip_to_target
from porter.execution.kernels.move import Move
from porter.execution.run_options import LEAST_MEMORY
from porter.execution.writers import MemoryRange, RangeWriter
from porter.planning.as_stored import row_major
from porter.planning.join import copy_class
from porter.planning.plan import Copy
from porter.sources.base import SourceFile


def read_row_major(
    tensor: StoredTensor,
    start: int,
    view: memoryview,
    files: Mapping[str, SourceFile],
    stored: Mapping[str, StoredTensor],
) -> None:
    """Fills `view` with what stands from byte `start` of the tensor's row-major numbers on.

    `stored` holds the factors of rows, by name. Raises PorterError for a range that cuts an element of a
    tensor that does not lie as it is read.
    """
    if tensor.strides is None and not tensor.dtype.quantised:
        files[tensor.file].read([view], tensor.offset + start)
        return
    dtype = DTYPES["F32"] if tensor.dtype.quantised else tensor.dtype
    plain = StoredTensor(tensor.name, dtype, tensor.shape, "", 0)
    loops = row_major(tensor)
    copy = Copy("", tensor.name, tensor.name, 0, 0, loops, copy_class(tensor.dtype, dtype, loops, ()))
    factors = None
    if tensor.scales is not None:
        factors = stored[tensor.scales], files[stored[tensor.scales].file]
    into = RangeWriter(MemoryRange(tensor.name, start, view, False), start, start + len(view), gathered=True)
    low, high = start // dtype.itemsize, (start + len(view)) // dtype.itemsize
    for box in clip_to_target(Box(loops, 0, 0), low, high):
        run_move(Move(copy, tensor, plain, files[tensor.file], into, Buffers(LEAST_MEMORY), box, factors))
    into.finish()
