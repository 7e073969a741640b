"""Copies of class compute: casts and value operations, elementwise and in bounded memory.

Operations are done in float32 and cast once, at the end; a cast alone goes straight from dtype to dtype.
Rounding is to nearest, ties to even. A value that the target cannot hold is an error, never an infinity.
Quantised sources are dequantised first, to float32. Only dtypes that NumPy lacks need torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from porter.dtypes import DTYPES, Dtype
from porter.errors import UnsupportedError
from porter.execution.kernels.boxes import Box
from porter.execution.kernels.encoded import decoded
from porter.execution.kernels.gather import Words, word
from porter.execution.kernels.move import Move
from porter.execution.kernels.ordered import Piece, most_decoded, ordered_pieces, widest
from porter.execution.kernels.tiles import turn, write_box
from porter.values.casts import can_cast, cast
from porter.values.encodings import encoding_of


def move_values(move: Move) -> None:
    """Runs the copy. Raises UnsupportedError for dtypes that are no numbers and for values out of range."""
    if move.box.elements == 0:
        return
    encoded = encoding_of(move.source.dtype) is not None
    if can_cast(DTYPES["F32"] if encoded else move.source.dtype, move.target.dtype):
        pieces = _pieces(move, encoded)
    else:
        from porter.execution.kernels.other_dtypes import torch_pieces

        pieces = torch_pieces(move, encoded)
    lost = 0
    for box, data, count in pieces:
        lost += count
        write_box(move, box, data, move.target.dtype.itemsize)
    if lost:
        raise UnsupportedError(
            f"{lost} values of tensor {move.copy.source!r} do not fit {move.target.dtype.name}",
            cause=f"they are out of its range, on the way to {move.copy.target!r} in {move.target.file}",
            hint="keep the dtype, or ask for bfloat16 or float32",
        )


def _pieces(move: Move, encoded: bool) -> Iterator[Piece]:
    target = move.target.dtype
    for box, words, dtype in _decoded(move) if encoded else _plain(move):
        data = move.buffers.take("turned", box.elements * target.itemsize)
        out: Words = np.frombuffer(data, word(target.itemsize, move.label))
        yield box, data, cast(_flat(move, words), dtype, target, out, move.copy.operations)


def _flat(move: Move, words: Words) -> Words:
    """The elements one after the other, turned where they lie in another order."""
    if not words.flags.c_contiguous:
        order: Words = np.ndarray(words.shape, words.dtype, move.buffers.take("order", words.nbytes))
        turn(words, order)
        words = order
    return words.reshape(-1)


def _decoded(move: Move) -> Iterator[tuple[Box, Words, Dtype]]:
    for box, values in decoded(move, most_decoded(move)):
        yield box, values.view(np.uint32), DTYPES["F32"]


def _plain(move: Move) -> Iterator[tuple[Box, Words, Dtype]]:
    for box, words in ordered_pieces(move, widest(move)):
        yield box, words, move.source.dtype
