"""Whether two values of a hyperparameter are one, however two containers keep them."""

from __future__ import annotations

import struct
from typing import Any


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a hyperparameter are one: floats as float32, which some containers keep."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    if numbers and (isinstance(one, float) or isinstance(other, float)):
        try:
            return struct.pack("<f", one) == struct.pack("<f", other)
        except (OverflowError, struct.error):
            # A float, or a whole number, beyond float32.
            return bool(one == other)
    # A list of one id is that id.
    for single, several in ((one, other), (other, one)):
        if isinstance(several, list) and len(several) == 1 and not isinstance(single, list):
            return same_value(single, several[0])
    # To Python, 1 is True.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
