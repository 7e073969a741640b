"""RoPE's scaling as some files hold it: a tensor of what each frequency is divided by, and no word of why; or
a number that others derive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

# The converters compute in float32, where a power of 5e5 is off by up to 1e-6; of two scalings that differ,
# some divisor differs by far more.
_ROUNDING = 1e-5


def llama3_factor(
    divisors: Sequence[float], theta: float, factors: Sequence[float], low: float, high: float, context: int
) -> float | None:
    """Which of `factors` Llama 3's scaling has, if these are its divisors of each frequency; else None.

    Wavelengths beyond `context / low` are scaled by the factor, those below `context / high` are kept, and
    between the two 1 / divisor goes evenly from one to the other (transformers' `rope_type` "llama3").
    """
    count = len(divisors)
    for factor in factors:
        wanted = (_divisor(theta ** (-k / count), factor, low, high, context) for k in range(count))
        if all(math.isclose(*pair, rel_tol=_ROUNDING) for pair in zip(divisors, wanted, strict=True)):
            return factor
    return None


def long_rope_attention(values: Mapping[str, Any]) -> float | None:
    """What cos and sin are multiplied by where LongRoPE's config does not say (transformers'
    `_compute_longrope_parameters`); None for another scaling. `values` are hyperparameters."""
    original, factor = values.get("rope_original_context"), values.get("rope_factor")
    if values.get("rope_type") != "longrope" or not original or original <= 1:
        return None
    scale = factor or values.get("context_length", 0) / original
    return 1.0 if scale <= 1.0 else math.sqrt(1 + math.log(scale) / math.log(original))


def _divisor(frequency: float, factor: float, low: float, high: float, context: int) -> float:
    turns = context * frequency / (2 * math.pi)
    if turns > high:
        return 1.0
    if turns < low:
        return factor
    kept = (turns - low) / (high - low)
    return 1 / ((1 - kept) / factor + kept)
