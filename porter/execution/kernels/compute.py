"""Copies of class compute: casts and value operations, elementwise and in bounded memory.

Operations are done in float32 and cast once, at the end; a cast alone goes straight from dtype to dtype.
Rounding is torch's (to nearest, ties to even). A value that the target cannot hold is an error, never an
infinity. Quantised sources are dequantised first, to float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from porter.dtypes import Dtype
from porter.errors import UnsupportedError
from porter.execution.kernels.boxes import Box
from porter.execution.kernels.encoded import decoded
from porter.execution.kernels.move import Move
from porter.execution.kernels.ordered import ordered_pieces, turned_piece
from porter.execution.kernels.tiles import write_box
from porter.values.encodings import encoding_of


def move_values(move: Move) -> None:
    """Runs the copy. Raises UnsupportedError for dtypes torch lacks and for values out of range."""
    if move.box.elements == 0:
        return
    if encoding_of(move.source.dtype) is not None:
        pieces = decoded(move, max(1, turned_piece(move.buffers.memory) // 4))
    else:
        pieces = _plain(move)
    dtype = _torch_dtype(move.target.dtype, move)
    lost = 0
    for box, values in pieces:
        for operation in move.copy.operations:
            values = operation.apply(values)
        data = move.buffers.take("turned", box.elements * dtype.itemsize)
        result = torch.frombuffer(data, dtype=dtype).view(box.shape)
        result.copy_(values)
        lost += _lost(values, result)
        write_box(move, box, data, dtype.itemsize)
    if lost:
        raise UnsupportedError(
            f"{lost} values of tensor {move.copy.source!r} do not fit {move.target.dtype.name}",
            cause=f"they are out of its range, on the way to {move.copy.target!r} in {move.target.file}",
            hint="keep the dtype, or ask for bfloat16 or float32",
        )


def _plain(move: Move) -> Iterator[tuple[Box, torch.Tensor]]:
    """Boxes in the target's order, with their values in the source's dtype or, to operate on, in float32."""
    dtype = _torch_dtype(move.source.dtype, move)
    widest = max(4 if move.copy.operations else 1, dtype.itemsize, move.target.dtype.itemsize)
    for box, words in ordered_pieces(move, widest):
        values = torch.from_numpy(words).view(dtype)
        yield box, values.float() if move.copy.operations else values


def _lost(values: torch.Tensor, result: torch.Tensor) -> int:
    """How many finite values have no finite counterpart, or, in an integer dtype, no equal one."""
    if not result.is_floating_point():
        return int((result.to(values.dtype) != values).sum())
    if values.is_floating_point() and torch.finfo(values.dtype).max <= torch.finfo(result.dtype).max:
        return 0
    # The extremes tell of an infinity or a NaN in a tenth of the time that counting takes.
    if result.itemsize > 1 and all(torch.isfinite(extreme) for extreme in torch.aminmax(result)):
        return 0
    lost = ~_finite(result)
    return int((_finite(values) & lost if values.is_floating_point() else lost).sum())


def _finite(values: torch.Tensor) -> torch.Tensor:
    # isfinite does not know the 8-bit floats.
    return torch.isfinite(values.float() if values.itemsize == 1 else values)


def _torch_dtype(dtype: Dtype, move: Move) -> torch.dtype:
    found = getattr(torch, dtype.torch, None) if dtype.torch else None
    if not isinstance(found, torch.dtype) or dtype.kind == "complex":
        raise UnsupportedError(f"{move.label}: cannot compute with {dtype.name}")
    return found
