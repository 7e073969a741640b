"""A SentencePiece BPE vocabulary as a value, and how a GGUF's metadata states one.

Promised: ids stay, every piece is spelled as SentencePiece spells it (blanks as `▁`), and scores rank the
merges. What a piece is (`Kind`) keeps the meaning that the GGUF gives it; the two writers, `spm_model.py`
and `hub_json.py`, each turn it into what their format needs.

Sources: llama.cpp's `convert_hf_to_gguf.py` and `llama-vocab.cpp` for keys and defaults; transformers 5.23,
`integrations/gguf/gguf_tokenizer_mapping.py`, for what is particular to Gemma.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from porter.errors import MalformedError, UnsupportedError

BLANK = "▁"

# The longest real piece has below 100 characters; merges are found in time that grows with a piece's square.
MAX_PIECE = 512


class Kind(IntEnum):
    """The type of a piece, numbered alike in `sentencepiece_model.proto` and in GGUF."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_WAY_OUT = "put the model's own tokenizer.json beside the GGUF: files there are used as they are"


@dataclass(frozen=True)
class Vocabulary:
    """Pieces by id. `pieces`, `scores` and `kinds` have equal length; special ids are None when absent."""

    pieces: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[int]
    bos: int | None
    eos: int | None
    pad: int | None
    unk: int
    gemma: bool
    space_prefix: bool

    def piece(self, index: int | None) -> str | None:
        return None if index is None else self.pieces[index]


def vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a GGUF whose `tokenizer.ggml.model` is "llama".

    Raises `UnsupportedError` for another kind of tokenizer, `MalformedError` where the keys disagree.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model != "llama":
        raise UnsupportedError(
            f"the GGUF holds a tokenizer of kind {model!r}",
            cause='expected "llama" (SentencePiece BPE)',
            hint=_WAY_OUT,
        )
    pieces = _column(metadata, "tokens", str)
    gemma = str(metadata.get("general.architecture", "")).startswith("gemma")
    if gemma and "tokenizer.ggml.scores" not in metadata:
        # They would not be read but for pieces that do not merge.
        scores = array("d", bytes(8 * len(pieces)))
    else:
        scores = array("d", _column(metadata, "scores", float, len(pieces)))
    kinds: Sequence[int] = _column(metadata, "token_type", int, len(pieces))
    _check_pieces(pieces, scores, kinds)
    unknown = kinds.index(Kind.UNKNOWN) if Kind.UNKNOWN in kinds else 0
    unk = _special(metadata, "unknown", len(pieces), unknown)
    if gemma:
        # Gemma's merges follow the order of ids, and its runs of blanks merge like any other piece; the
        # scores in the file leave those runs out of the ranking.
        kinds = [
            Kind.NORMAL if _is_blank_run(piece) else kind for piece, kind in zip(pieces, kinds, strict=True)
        ]
        for index, kind in enumerate(kinds):
            if kind == Kind.NORMAL:
                scores[index] = -float(index)
    for index, piece in enumerate(pieces):
        if " " in piece:
            pieces[index] = piece.replace(" ", BLANK)
    if len(set(pieces)) != len(pieces):
        twice = Counter(pieces).most_common(1)[0][0]
        raise UnsupportedError(
            f"the GGUF's vocabulary holds the piece {twice!r} twice, which SentencePiece does not allow",
            hint=_WAY_OUT,
        )
    return Vocabulary(
        pieces=pieces,
        scores=scores,
        kinds=kinds,
        bos=_special(metadata, "bos", len(pieces), 1),
        eos=_special(metadata, "eos", len(pieces), 2),
        pad=_special(metadata, "padding", len(pieces), None),
        unk=0 if unk is None else unk,
        gemma=gemma,
        space_prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", not gemma)),
    )


def _is_blank_run(piece: str) -> bool:
    return len(piece) > 1 and not piece.strip(" ")


def _column(metadata: Mapping[str, Any], name: str, kind: type, length: int | None = None) -> list[Any]:
    key = f"tokenizer.ggml.{name}"
    values = metadata.get(key)
    if not isinstance(values, Sequence) or isinstance(values, str) or not len(values):
        raise MalformedError(f"the GGUF's {key} is missing or empty", hint=_WAY_OUT)
    if length is not None and len(values) != length:
        raise MalformedError(
            f"the GGUF's {key} does not fit its tokens", cause=f"{len(values)} for {length} tokens"
        )
    # A GGUF's array makes its values anew whenever it is read.
    found = list(values)
    if any(type(value) is not kind for value in found):
        raise MalformedError(f"the GGUF's {key} holds values of another type than {kind.__name__}")
    return found


def _check_pieces(pieces: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> None:
    for index, (piece, score, kind) in enumerate(zip(pieces, scores, kinds, strict=True)):
        if not piece or len(piece) > MAX_PIECE:
            what = f"a piece of {len(piece)} characters"
        elif not math.isfinite(score):
            what = f"the score {score}"
        elif not Kind.NORMAL <= kind <= Kind.BYTE:
            what = f"the token type {kind}"
        else:
            continue
        raise MalformedError(f"the GGUF's token {index} cannot be used", cause=f"found {what}")
    if (count := kinds.count(Kind.BYTE)) not in (0, 256):
        raise MalformedError(
            "the GGUF's vocabulary is incomplete", cause=f"expected 256 byte pieces, found {count}"
        )


def _special(metadata: Mapping[str, Any], name: str, length: int, default: int | None) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    index = metadata.get(key, default)
    if index is not None and (type(index) is not int or not 0 <= index < length):
        raise MalformedError(
            f"the GGUF's {key} is no token", cause=f"expected 0 to {length - 1}, found {index!r}"
        )
    return index
