"""Shares that files state by what follows from them: of dims that rotate, and of gates that are cut off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

# llama.cpp's converter divides the frequency of a pair that does not rotate by 1e30.
_STILL = 1e29

# Of a share with so many digits float32 keeps the deviation apart from that of its neighbours.
_DIGITS = 6
_ROUNDING = 1e-5


def rotated_share(divisors: Sequence[float]) -> float | None:
    """The share of pairs that rotate, where the first of them do, unscaled, and no others; else None."""
    turning = sum(divisor == 1.0 for divisor in divisors)
    still = divisors[turning:]
    if not divisors or any(d != 1.0 for d in divisors[:turning]) or any(d < _STILL for d in still):
        return None
    return turning / len(divisors)


def cut_share(deviations: float) -> float | None:
    """The share of a normal distribution that lies below so many deviations from its mean.

    A share in decimals, whose deviation is that number to what float32 leaves of it; None if there is none.
    """
    if deviations == -math.inf:
        return 0.0
    share = round(NormalDist().cdf(deviations), _DIGITS)
    if not 0 < share < 1:
        return None
    close = math.isclose(NormalDist().inv_cdf(share), deviations, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    return share if close else None
