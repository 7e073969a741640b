"""Do two checkpoints compute the same? Both run on the same ids, each in the code of its own framework.

Names, shapes and values say where a weight went. They do not say what a framework makes of it: the
activation, the place of a norm, the base of RoPE. Logits do, and the states between the layers say where
the two part. Layers run one at a time from disk (see `layerwise`), the head in ranges of the vocabulary.

In float32 two right ports differ by rounding alone: the same sums in another order. Between transformers,
LitGPT, KerasHub and porter's own model no state of a sound pair has differed by more than 1.1e-5, on the
real Gemma 3 270M, and mostly by 1e-6 or nothing. There the mildest mistakes of a config differ by 8e-5 and
more: an exact GELU for the tanh one by 3e-4 at the first layer, a window of 511 for 512 by 4e-4, a RoPE base
that is a tenth off by 1e-3. `BOUND` lies between. (An epsilon of 1e-5 for 1e-6 shows one layer late: it
changes the first layer by 1e-5.) In bfloat16 sound ports differ by a percent from the first layer on, so that
the band is measured: `NOISE_FACTOR` times what the first side differs from itself in float32, since both
sides round, each in its own way; the most seen is 2.5 times. Only gross mistakes show there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from porter.errors import DifferenceError
from porter.facts import Facts
from porter.verification.layerwise import LayeredModel
from porter.verification.logit_sums import LogitSums

BOUND = 3e-5
NOISE_FACTOR = 4.0
# The largest of all logits' differences over the largest logit: one of T × V, where a state's is a mean.
# Most seen in a sound pair: 2.1e-5. What it is for, another head or soft-cap, changes logits by a percent.
LOGIT_BOUND = 2e-4
# Rows of the head at a time: 600 tokens by 8192 rows take 20 MB in float32, on each side.
ROWS = 8192
TOP = 5


@dataclass(frozen=True)
class StateDifference:
    """One state of the two models: `place` is embedding, layer 0, …, final norm.

    `max_abs` is the largest difference of an element. `relative` is the norm of a token's difference over the
    norm of its state, and of these the root mean square over the tokens: the first token's state is often a
    thousand times larger than the others', and would hide them in one norm over all. `bound` is what
    `relative` may be.
    """

    place: str
    max_abs: float
    relative: float
    bound: float

    @property
    def parted(self) -> bool:
        # A NaN is not within any bound.
        return not self.relative <= self.bound


@dataclass(frozen=True, repr=False)
class LogitsComparison(Facts):
    """What two checkpoints compute from the same ids. `source` is the measure, `out` is judged.

    `source_code` and `out_code` say whose code ran. `ids_from` is the tokenizer file that made the ids, or
    None where they are random, from `seed`. `vocab` is the number of rows that both have. `max_abs` and
    `max_logit` are in logits, `kl` and `max_kl` in nats (of `out` from `source`, mean and worst over the
    tokens), `top1` and `top5` shares of the tokens, `losses` the mean next-token loss of each side in nats
    where the ids are text. `first_parted` is the first place that is out of its bound.
    """

    source: str
    out: str
    source_code: str
    out_code: str
    dtype: str
    tokens: int
    ids_from: str | None
    seed: int | None
    vocab: int
    states: tuple[StateDifference, ...]
    max_abs: float
    max_logit: float
    bound: float
    kl: float
    max_kl: float
    top1: float
    top5: float
    losses: tuple[float, float] | None
    first_parted: str | None
    notes: tuple[str, ...] = ()

    @property
    def agree(self) -> bool:
        return self.first_parted is None

    @property
    def relative(self) -> float:
        """max |Δ| of the logits over the largest logit."""
        return self.max_abs / self.max_logit if self.max_logit else self.max_abs

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("models", f"{self.source} ({self.source_code}) and {self.out} ({self.out_code})"),
            (
                "logits",
                f"max |Δ| {self.max_abs:.3g} of {self.max_logit:.3g}, top-1 the same for {self.top1:.1%}",
            ),
            ("agree", "yes" if self.agree else f"no: they part at {self.first_parted}"),
            ("ran", f"{self.tokens} tokens in {self.dtype}, {len(self.states)} places compared"),
        ]


@dataclass(frozen=True)
class Measured:
    """The part of a comparison that is computed."""

    states: tuple[StateDifference, ...]
    sums: LogitSums
    bound: float


def measure(
    source: LayeredModel, out: LayeredModel, ids: Tensor, vocab: int, exact: LayeredModel | None = None
) -> Measured:
    """Runs both on ids (T,). `exact` is the first side once more in float32, where the two run in bfloat16.

    Raises DifferenceError where the two have no states in common.
    """
    if source.layers != out.layers:
        raise DifferenceError(
            f"the two have {source.layers} and {out.layers} layers", hint="they are no ports of each other"
        )
    expected = _States()
    source.hidden(ids, expected.keep)
    bounds: dict[str, float] = {}
    if exact is not None:
        noise = _Differences(expected, {})
        exact.hidden(ids, noise.compare)
        bounds = {state.place: NOISE_FACTOR * state.relative for state in noise.found}
    differences = _Differences(expected, bounds)
    out.hidden(ids, differences.compare)
    expected.clear()
    sums, noisy = LogitSums(ids, TOP), LogitSums(ids, TOP)
    for start in range(0, vocab, ROWS):
        end = min(start + ROWS, vocab)
        left = source.logits(start, end)
        if exact is not None:
            noisy.add(start, exact.logits(start, end), left)
        sums.add(start, left, out.logits(start, end))
        del left
    bound = LOGIT_BOUND if exact is None else NOISE_FACTOR * noisy.max_abs / noisy.max_logit
    return Measured(tuple(differences.found), sums, bound)


class _States(dict[str, Tensor]):
    """The states of one side by place, in float32."""

    def keep(self, place: str, state: Tensor) -> None:
        self[place] = state.float().clone()


class _Differences:
    """Compares the states of another run with those that were kept."""

    def __init__(self, expected: _States, bounds: dict[str, float]) -> None:
        self.found: list[StateDifference] = []
        self._expected, self._bounds = expected, bounds

    def compare(self, place: str, state: Tensor) -> None:
        expected, found = self._expected[place], state.float()
        if expected.shape != found.shape:
            raise DifferenceError(
                f"{place}: the states have the shapes {list(expected.shape)} and {list(found.shape)}"
            )
        difference = found - expected
        sizes, errors = (torch.linalg.vector_norm(part, dim=-1) for part in (expected, difference))
        # A state of zeros is right where the other is one too.
        shares = torch.where(errors == 0, 0.0, errors / sizes)
        relative, bound = float(shares.square().mean().sqrt()), self._bounds.get(place, BOUND)
        self.found.append(StateDifference(place, float(difference.abs().max()), relative, bound))


def first_parted(measured: Measured) -> str | None:
    """The first place out of its bound; the logits are the last."""
    for state in measured.states:
        if state.parted:
            return state.place
    largest = measured.sums.max_logit
    return None if measured.sums.max_abs <= measured.bound * largest else "logits"
