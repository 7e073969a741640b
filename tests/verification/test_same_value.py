"""Whether two values of a hyperparameter are one; what is right is written out."""

import pytest

from porter.verification.same_value import same_value

ONE = [
    (1e-6, 9.999999974752427e-07),
    (10000, 10000.0),
    ([1, 2.5], (1, 2.5)),
    (1, [1]),
    (10**60, 10**60),
    (1e300, 1e300),
    ("a", "a"),
    (None, None),
]
TWO = [
    (1e-6, 1.1e-6),
    (10**60, 10000.0),
    (10**400, 10000.0),
    (1e300, 10000.0),
    (1, True),
    ([1, 2], [1]),
    ("1", 1),
    (None, 0),
]


@pytest.mark.parametrize(
    ("one", "other", "same"), [*((*pair, True) for pair in ONE), *((*p, False) for p in TWO)]
)
def test_numbers_are_compared_as_float32_and_beyond_it_as_they_are(one, other, same):
    assert same_value(one, other) is same
    assert same_value(other, one) is same
