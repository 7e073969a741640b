"""The token ids that two models are run on: a page of English where a tokenizer is at hand, else random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from porter.verification.page import prose

TOKENS = 600
SEED = 20260101

# In the order of who knows the ids best: the model's own SentencePiece file, then what was made of it.
SENTENCEPIECE = ("tokenizer.model", "assets/tokenizer/vocabulary.spm")
TOKENIZERS = "tokenizer.json"


@dataclass(frozen=True)
class SampleIds:
    """`ids` (T,), int64. `tokenizer` is the file that they are from; random ones have a `seed` instead."""

    ids: Tensor
    tokenizer: str | None
    seed: int | None


def sample_ids(
    available: Mapping[str, Path], vocab: int, tokens: int = TOKENS, seed: int = SEED
) -> SampleIds:
    """Ids below `vocab`, by the tokenizer among the files `available` by name, if there is one that fits."""
    for name in (*SENTENCEPIECE, TOKENIZERS):
        found = _encode(available[name]) if name in available else None
        if found and len(found) >= tokens and max(found[:tokens]) < vocab:
            return SampleIds(torch.tensor(found[:tokens]), name, None)
    generator = torch.Generator().manual_seed(seed)
    return SampleIds(torch.randint(vocab, (tokens,), generator=generator), None, seed)


def _encode(path: Path) -> list[int] | None:
    """The page's ids, BOS first where the tokenizer has one; None where no library here reads the file."""
    try:
        if path.suffix == ".json":
            from tokenizers import Tokenizer

            ids: list[int] = Tokenizer.from_file(str(path)).encode(prose()).ids
            return ids
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor(model_file=str(path))
        first = [processor.bos_id()] if processor.bos_id() >= 0 else []
        return [*first, *processor.encode(prose())]
    except Exception:
        # Whatever is wrong with a tokenizer is said where tokenizers are compared; random ids serve here.
        return None
