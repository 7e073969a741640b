"""Values of quantised GGUF tensors, dequantised piece by piece in the source's order.

The arithmetic is the gguf package's, float32 throughout; blocks do not depend on one another, so pieces
give the same bits as the whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from porter.errors import UnsupportedError
from porter.execution.kernels.boxes import Box, cut_by_source_span
from porter.execution.kernels.move import Move

# Elements. gguf makes several temporaries of the size of what it is given.
STEP = 1 << 20


def dequantised(move: Move, limit: int) -> Iterator[tuple[Box, torch.Tensor]]:
    """Boxes whose source spans at most `limit` elements, each with its float32 values.

    Raises UnsupportedError if the gguf package is missing or does not know the dtype.
    """
    try:
        import numpy as np
        from gguf import GGMLQuantizationType, quants
    except ImportError:
        raise UnsupportedError(
            f"{move.label}: {move.source.dtype.name} needs the gguf package to be dequantised",
            hint="pip install 'weight-porter[gguf]'",
        ) from None

    dtype = move.source.dtype
    kind = getattr(GGMLQuantizationType, dtype.name, None)
    if kind is None:
        raise UnsupportedError(f"{move.label}: gguf does not know {dtype.name}")
    step = max(1, STEP // dtype.block)
    for box in cut_by_source_span(move.box, limit):
        first = box.source // dtype.block
        last = -(-(box.source + box.source_span) // dtype.block)
        values = np.empty((last - first) * dtype.block, dtype=np.float32)
        for block in range(first, last, step):
            count = min(step, last - block)
            start = move.source.offset + block * dtype.block_bytes
            size = count * dtype.block_bytes
            raw = move.buffers.take("blocks", size)
            move.reader.read([raw], start)
            blocks = np.frombuffer(raw, dtype=np.uint8)
            here = (block - first) * dtype.block
            try:
                # Odd scales give infinities and NaNs, which are kept, here as in every other reader.
                with np.errstate(all="ignore"):
                    values[here : here + count * dtype.block] = quants.dequantize(blocks[None, :], kind)[0]
            except NotImplementedError:
                raise UnsupportedError(f"{move.label}: gguf cannot dequantise {dtype.name}") from None
        strides = [loop.source_stride for loop in box.loops]
        yield box, torch.from_numpy(values).as_strided(box.shape, strides, box.source - first * dtype.block)
