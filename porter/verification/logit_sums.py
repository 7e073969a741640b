"""Logits of two models compared range by range of the vocabulary: nothing of the size T × V is ever held."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class LogitSums:
    """Running sums over the vocabulary, one number a token. `ids` (T,) are the tokens, `top` the k of top-k.

    With a softmax's usual trick the largest logit so far is taken off before each exponential, and what was
    summed before is scaled when a larger one comes. Sums are in float64, so that a KL of 1e-12 is not noise.
    """

    def __init__(self, ids: Tensor, top: int) -> None:
        tokens = len(ids)
        self.max_abs = self.max_logit = 0.0
        self._ids, self._top = ids, top
        self._sides = tuple(_Side(tokens) for _ in range(2))
        # Σ exp(a - max a) (a - b), on the first side's scale.
        self._weighted = torch.zeros(tokens, dtype=torch.float64)

    def add(self, start: int, a: Tensor, b: Tensor) -> None:
        """Logits (T, rows) of both for the rows from `start` on. One that is no number counts as infinite."""
        a, b = a.double(), b.double()
        difference = a - b
        worst = float(difference.abs().max())
        self.max_abs = max(self.max_abs, math.inf if math.isnan(worst) else worst)
        self.max_logit = max(self.max_logit, float(a.abs().max()))
        first, second = self._sides
        shrunk, shares = first.add(start, a, self._ids, self._top)
        second.add(start, b, self._ids, self._top)
        self._weighted = self._weighted * shrunk + (shares * difference).sum(dim=-1)

    def kl(self) -> Tensor:
        """KL(a ‖ b) of each token, in nats."""
        a, b = self._sides
        # Rounding may leave a little less than nothing.
        return (self._weighted / a.total - a.log_total() + b.log_total()).clamp(min=0)

    def agreement(self, k: int) -> float:
        """The mean share of a token's k likeliest ids that both have in common."""
        a, b = (side.best_ids[:, :k] for side in self._sides)
        shared = (a[:, :, None] == b[:, None, :]).any(dim=-1)
        return float(shared.double().mean())

    def losses(self) -> tuple[float, float]:
        """The mean next-token loss of each, in nats."""
        a, b = (float((s.log_total() - s.target)[:-1].mean()) for s in self._sides)
        return a, b


class _Side:
    def __init__(self, tokens: int) -> None:
        self.largest = torch.full((tokens,), -math.inf, dtype=torch.float64)
        self.total = torch.zeros(tokens, dtype=torch.float64)
        # The logit of the token that comes next; the last token has none.
        self.target = torch.zeros(tokens, dtype=torch.float64)
        self.best = torch.empty(tokens, 0, dtype=torch.float64)
        self.best_ids = torch.empty(tokens, 0, dtype=torch.long)

    def add(self, start: int, logits: Tensor, ids: Tensor, top: int) -> tuple[Tensor, Tensor]:
        """By how much earlier sums shrink (T,), and exp(logits - largest) (T, rows)."""
        largest = torch.maximum(self.largest, logits.max(dim=-1).values)
        shrunk = torch.exp(self.largest - largest)
        shares = torch.exp(logits - largest[:, None])
        self.total = self.total * shrunk + shares.sum(dim=-1)
        self.largest = largest
        values, places = logits.topk(min(top, logits.shape[-1]), dim=-1)
        values, places = torch.cat((self.best, values), -1), torch.cat((self.best_ids, places + start), -1)
        self.best, order = values.topk(min(top, values.shape[-1]), dim=-1)
        self.best_ids = places.gather(-1, order)
        following = ids[1:] - start
        here = ((following >= 0) & (following < logits.shape[-1])).nonzero()[:, 0]
        self.target[here] = logits[here, following[here]]
        return shrunk, shares

    def log_total(self) -> Tensor:
        return self.largest + torch.log(self.total)
