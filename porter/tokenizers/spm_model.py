"""`tokenizer.model`: a SentencePiece model written from a vocabulary, and what an existing one says.

Promised for Gemma: the ids that transformers gives, except where a text spells `<bos>`, `<eos>`, `<pad>` or
`<unk>` out, which SentencePiece never takes for the token. Tokens that the GGUF marks as control, the turn
markers among them, are written as user-defined, since SentencePiece splits control pieces found in a text.

Source: `sentencepiece_model.proto` and `bpe_model.cc` of sentencepiece 0.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from porter.errors import MalformedError
from porter.reading.regular import read_regular
from porter.tokenizers.vocabulary import Kind, Vocabulary

_BPE = 2

# Bytes. The largest published models, of 256,000 pieces, have 5 MB.
_LARGEST = 8 << 20
_MOST_PIECES = 700_000


def model_bytes(vocabulary: Vocabulary) -> bytes:
    """The serialised model; the same vocabulary gives the same bytes."""
    model = _empty()
    ours = (vocabulary.bos, vocabulary.eos, vocabulary.pad)
    for index, (piece, score) in enumerate(zip(vocabulary.pieces, vocabulary.scores, strict=True)):
        model.pieces.add(piece=piece, score=score, type=_kind(vocabulary, index, ours))
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = _BPE
    trainer.vocab_size = len(vocabulary.pieces)
    trainer.byte_fallback = Kind.BYTE in vocabulary.kinds
    trainer.unk_id, trainer.unk_piece = vocabulary.unk, vocabulary.pieces[vocabulary.unk]
    for name, special in zip(("bos", "eos", "pad"), ours, strict=True):
        setattr(trainer, f"{name}_id", -1 if special is None else special)
        if special is not None:
            setattr(trainer, f"{name}_piece", vocabulary.pieces[special])
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = vocabulary.space_prefix
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    return bytes(model.SerializeToString(deterministic=True))


def _empty() -> Any:
    # The generated module has no types, and importing it takes a while: only those who need it pay.
    from sentencepiece import sentencepiece_model_pb2

    return getattr(sentencepiece_model_pb2, "ModelProto")()  # noqa: B009


def _kind(vocabulary: Vocabulary, index: int, ours: tuple[int | None, ...]) -> int:
    if index == vocabulary.unk:
        return Kind.UNKNOWN
    if index in ours:
        return Kind.CONTROL
    kind = vocabulary.kinds[index]
    # A model holds one unknown piece; SentencePiece refuses a second.
    return Kind.USER_DEFINED if kind in (Kind.CONTROL, Kind.UNKNOWN) else kind


@dataclass(frozen=True)
class ModelFacts:
    """What an existing `tokenizer.model` says of itself; special pieces are None where it has none."""

    pieces: int
    dummy_prefix: bool
    special: dict[str, str]
    whole: dict[int, tuple[str, bool]]


def read_model(path: Path, name: str) -> bytes:
    """A SentencePiece model within limits, unparsed. Raises MalformedError."""
    content = read_regular(path, name, _LARGEST)
    if content.count(b"\x0a") > 2 * _MOST_PIECES:
        # The byte that begins a piece, and the text in it.
        raise MalformedError(f"{name} holds too many pieces", cause=f"expected at most {_MOST_PIECES:,}")
    return content


def model_facts(path: Path, name: str) -> ModelFacts:
    """Reads a SentencePiece model; `whole` maps ids of control and user-defined pieces to (text, control)."""
    from google.protobuf.message import DecodeError

    model = _empty()
    content = read_model(path, name)
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise MalformedError(
            f"{name} is no SentencePiece model",
            cause=str(error),
            hint="a tokenizer.json is used when there is one",
        ) from None
    if not len(model.pieces):
        raise MalformedError(f"{name} is no SentencePiece model", cause="it holds no pieces")
    if broken := [index for index, piece in enumerate(model.pieces) if not isinstance(piece.piece, str)]:
        raise MalformedError(f"{name} is no SentencePiece model", cause=f"its piece {broken[0]} is not UTF-8")
    trainer = model.trainer_spec
    ids = {"bos": trainer.bos_id, "eos": trainer.eos_id, "pad": trainer.pad_id, "unk": trainer.unk_id}
    return ModelFacts(
        pieces=len(model.pieces),
        dummy_prefix=model.normalizer_spec.add_dummy_prefix,
        special={
            f"{word}_token": model.pieces[index].piece
            for word, index in ids.items()
            if 0 <= index < len(model.pieces)
        },
        whole={
            index: (piece.piece, piece.type != Kind.USER_DEFINED)
            for index, piece in enumerate(model.pieces)
            if piece.type in (Kind.UNKNOWN, Kind.CONTROL, Kind.USER_DEFINED)
        },
    )
