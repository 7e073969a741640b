"""`tokenizer.json`: a vocabulary as Hugging Face's tokenizers library stores it, merges included.

It is written for Hugging Face directories although transformers can load a `tokenizer.model` alone: it then
gives the same ids, but counts every user-defined piece, newlines and tabs among them, among its special
tokens, and needs sentencepiece and protobuf at hand (seen with transformers 5.23).

Sources: the layout of `tokenizer.json` (tokenizers 0.23); `GemmaTokenizer`, `LlamaTokenizer` and
`generate_merges` of transformers 5.23 for the steps and for the order of merges.
"""

from __future__ import annotations

import json
from typing import Any

from porter.errors import UnsupportedError
from porter.tokenizers.vocabulary import BLANK, Kind, Vocabulary

# Gemma has two merges a piece, Llama too. Without a bound, long pieces of one letter make gigabytes.
_FREE_MERGES, _MERGES_EACH = 10_000, 16


def texts(vocabulary: Vocabulary) -> list[str]:
    """The pieces as they are looked up: user-defined ones in the raw text, others with blanks as `▁`."""
    return [
        piece.replace(BLANK, " ") if kind == Kind.USER_DEFINED else piece
        for piece, kind in zip(vocabulary.pieces, vocabulary.kinds, strict=True)
    ]


def merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every pair of pieces that joins to a piece, best score first, then the longer left side first."""
    pieces = texts(vocabulary)
    known = set(pieces)
    # Python's sort keeps the order of ids among equal scores.
    ranked = sorted(range(len(pieces)), key=lambda index: -_rank(vocabulary, index))
    found: list[tuple[float, int, int, str, str]] = []
    most = _FREE_MERGES + _MERGES_EACH * len(pieces)
    for index in ranked:
        piece, score = pieces[index], _rank(vocabulary, index)
        for cut in range(len(piece) - 1, 0, -1):
            left, right = piece[:cut], piece[cut:]
            if left in known and right in known:
                if len(found) >= most:
                    raise UnsupportedError(
                        "the GGUF's vocabulary has far more merges than pieces",
                        cause=f"expected at most {most:,} for {len(pieces):,} pieces, found more",
                    )
                found.append((-score, -len(left), -len(right), left, right))
    if not vocabulary.gemma:
        # Pieces may share a score; sides are compared across them, as transformers does.
        found.sort(key=lambda merge: merge[:3])
    return [(left, right) for *_, left, right in found]


def _rank(vocabulary: Vocabulary, index: int) -> float:
    return -float(index) if vocabulary.gemma else vocabulary.scores[index]


def added_tokens(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The pieces that are found whole in a text before merging; control pieces are special."""
    special = {vocabulary.bos, vocabulary.eos, vocabulary.pad, vocabulary.unk}
    return [
        {
            "id": index,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == Kind.CONTROL or index in special,
        }
        for index, (text, kind) in enumerate(zip(texts(vocabulary), vocabulary.kinds, strict=True))
        if kind in (Kind.CONTROL, Kind.USER_DEFINED) or index in special
    ]


def tokenizer_json(vocabulary: Vocabulary, *, add_bos: bool, add_eos: bool) -> bytes:
    """The file's bytes; `add_bos` and `add_eos` become its post-processor."""
    decoder: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": BLANK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    normalizer: dict[str, Any] | None = None
    if vocabulary.gemma:
        normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
        splitter: dict[str, Any] = {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        }
    else:
        scheme = "first" if vocabulary.space_prefix else "never"
        splitter = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": scheme, "split": False}
        if vocabulary.space_prefix:
            decoder.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    value = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(vocabulary),
        "normalizer": normalizer,
        "pre_tokenizer": splitter,
        "post_processor": _template(vocabulary, add_bos, add_eos),
        "decoder": {"type": "Sequence", "decoders": decoder},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": vocabulary.pieces[vocabulary.unk],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": Kind.BYTE in vocabulary.kinds,
            "ignore_merges": False,
            "vocab": {text: index for index, text in enumerate(texts(vocabulary))},
            "merges": merges(vocabulary),
        },
    }
    return json.dumps(value, ensure_ascii=False).encode()


def _template(vocabulary: Vocabulary, add_bos: bool, add_eos: bool) -> dict[str, Any]:
    bos = vocabulary.bos if add_bos else None
    eos = vocabulary.eos if add_eos else None

    def side(word: str, type_id: int) -> list[dict[str, Any]]:
        parts = [
            ("SpecialToken", vocabulary.piece(bos)),
            ("Sequence", word),
            ("SpecialToken", vocabulary.piece(eos)),
        ]
        return [{kind: {"id": name, "type_id": type_id}} for kind, name in parts if name is not None]

    return {
        "type": "TemplateProcessing",
        "single": side("A", 0),
        "pair": side("A", 0) + side("B", 1),
        "special_tokens": {
            vocabulary.pieces[index]: {
                "id": vocabulary.pieces[index],
                "ids": [index],
                "tokens": [vocabulary.pieces[index]],
            }
            for index in (bos, eos)
            if index is not None
        },
    }
