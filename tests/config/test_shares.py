"""Shares by hand: of pairs that rotate, and of a normal distribution (0.95 lies below 1.645 deviations)."""

from __future__ import annotations

import math

import pytest

from porter.config.shares import cut_share, rotated_share


@pytest.mark.parametrize(
    ("divisors", "share"),
    [
        ([1.0, 1.0, 1e30, 1e30], 0.5),
        ([1.0] * 3, 1.0),
        ([1e30] * 3, 0.0),
        ([1.0, 2.0, 1e30], None),
        ([1e30, 1.0], None),
        ([], None),
    ],
)
def test_the_first_pairs_rotate(divisors, share):
    assert rotated_share(divisors) == share


@pytest.mark.parametrize(
    ("deviations", "share"),
    [
        (-math.inf, 0.0),
        (1.6448535919189453, 0.95),
        (0.0, 0.5),
        (-1.2815515, 0.1),
        (math.inf, None),
        (math.nan, None),
        (7.0, None),
    ],
)
def test_a_share_is_known_by_its_deviations(deviations, share):
    assert cut_share(deviations) == share
