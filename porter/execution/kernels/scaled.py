"""Values of tensors that are stored as whole numbers with one factor per row, as Google's int8 Gemma is.

A value is its whole number times its row's factor, both taken as float32: the product is rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from porter.containers.base import StoredTensor
from porter.errors import PorterError
from porter.execution.kernels.boxes import Box, cut_by_source_span
from porter.execution.kernels.move import Move
from porter.sources.base import SourceFile


def scaled(move: Move, limit: int) -> Iterator[tuple[Box, torch.Tensor]]:
    """Boxes whose source spans at most `limit` elements, each with its float32 values."""
    if move.factors is None:
        raise PorterError(f"{move.label}: no factors for the rows")
    stored, reader = move.factors
    row = move.source.elements // move.source.shape[0]
    for box in cut_by_source_span(move.box, limit):
        first = box.source // row
        last = -(-(box.source + box.source_span) // row)
        raw = bytearray((last - first) * row)
        move.reader.read([memoryview(raw)], move.source.offset + first * row)
        values = torch.frombuffer(raw, dtype=torch.int8).view(last - first, row).float()
        values *= _factors(stored, reader, first, last)[:, None]
        strides = [loop.source_stride for loop in box.loops]
        yield box, values.as_strided(box.shape, strides, box.source - first * row)


def _factors(stored: StoredTensor, reader: SourceFile, first: int, last: int) -> torch.Tensor:
    item = stored.dtype.itemsize
    raw = bytearray((last - first) * item)
    reader.read([memoryview(raw)], stored.offset + first * item)
    dtype: torch.dtype = getattr(torch, stored.dtype.torch or "")
    return torch.frombuffer(raw, dtype=dtype).float()
