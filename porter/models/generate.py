"""Greedy decoding: the most likely next token, again and again. No sampling, no batches, no text."""

from __future__ import annotations

from collections.abc import Collection

import torch

from porter.errors import UsageError
from porter.models.gpt import GPT, KVCache


@torch.inference_mode()
def greedy(model: GPT, ids: list[int], new_tokens: int, stop: Collection[int] = ()) -> list[int]:
    """Up to `new_tokens` ids that continue the prompt `ids`, without the prompt.

    The first id found in `stop` ends the continuation and is left out. Every row of the padded vocabulary
    takes part, because some configs count their special tokens as padding. Raises `UsageError` for an
    empty prompt, an id outside the vocabulary, and a prompt that leaves no room for `new_tokens`.
    """
    config = model.config
    if not ids or min(ids) < 0 or max(ids) >= config.padded_vocab_size:
        raise UsageError(f"the prompt needs one id or more, each from 0 to {config.padded_vocab_size - 1}")
    if len(ids) + new_tokens > config.block_size:
        raise UsageError(
            f"{len(ids)} prompt tokens and {new_tokens} new ones exceed block_size {config.block_size}"
        )
    cache = KVCache()
    continuation: list[int] = []
    pending = ids
    while len(continuation) < new_tokens:
        logits = model(torch.tensor([pending], device=model.lm_head.weight.device), cache)
        token = int(logits[0, -1].argmax())
        if token in stop:
            break
        continuation.append(token)
        pending = [token]
    return continuation
