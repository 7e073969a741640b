"""Values of dtypes that NumPy lacks (8-bit floats) or casts otherwise (integers, float64), by torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from porter.dtypes import Dtype
from porter.errors import UnsupportedError
from porter.execution.kernels.boxes import Box
from porter.execution.kernels.encoded import decoded
from porter.execution.kernels.move import Move
from porter.execution.kernels.ordered import Piece, most_decoded, ordered_pieces, widest


def torch_pieces(move: Move, encoded: bool) -> Iterator[Piece]:
    """Boxes of the target with their elements, and how many values were lost in each."""
    dtype = _torch_dtype(move.target.dtype, move)
    for box, values in _decoded(move) if encoded else _plain(move):
        for operation in move.copy.operations:
            values = operation.apply(values)
        data = move.buffers.take("turned", box.elements * dtype.itemsize)
        result = torch.frombuffer(data, dtype=dtype).view(box.shape)
        result.copy_(values)
        yield box, data, _lost(values, result)


def _decoded(move: Move) -> Iterator[tuple[Box, torch.Tensor]]:
    for box, values in decoded(move, most_decoded(move)):
        yield box, torch.from_numpy(values)


def _plain(move: Move) -> Iterator[tuple[Box, torch.Tensor]]:
    """Boxes in the target's order, with their values in the source's dtype or, to operate on, in float32."""
    dtype = _torch_dtype(move.source.dtype, move)
    for box, words in ordered_pieces(move, widest(move)):
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
