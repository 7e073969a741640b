"""Value operations: what a table may do to a weight's values besides laying them out.

An operation is one small value: what it makes of numbers, what undoes it, and its words. It works on arrays
of NumPy and torch alike, in the dtype that it is given (float32, where plans are run), and never in place. A
new one is one more entry of `_KINDS`: tables, plans, their words and every way of running them learn of it
there. All of them pass `tests/values/test_operations.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from porter.errors import UnsupportedError


@dataclass(frozen=True)
class _Kind:
    """`apply(values, operand)` and `undo(operand)`, which is the inverse's operand, of the same kind.

    `words(text, operand)` says what becomes of `text`. `refuse` names an operand that has no inverse.
    """

    apply: Callable[[Any, float], Any]
    undo: Callable[[float], float]
    words: Callable[[str, float], str]
    refuse: float | None = None


def _sum(text: str, operand: float) -> str:
    return f"{text} {'-' if operand < 0 else '+'} {abs(operand):g}"


def _product(text: str, operand: float) -> str:
    return f"{f'({text})' if ' ' in text else text} · {operand:g}"


# In the order in which a rule that has several does them.
_KINDS = {
    "add": _Kind(lambda values, operand: values + operand, lambda operand: -operand, _sum),
    "multiply": _Kind(lambda values, operand: values * operand, lambda operand: 1 / operand, _product, 0),
}

# The keys under which a table states them, in that order.
KINDS = tuple(_KINDS)


class Operation(NamedTuple):
    """A value operation, by its kind and operand. Raises UnsupportedError for a kind that is not known."""

    kind: str
    value: float

    def apply(self, values: Any) -> Any:
        """The values after it, in a new array of the same dtype."""
        return _kind(self.kind).apply(values, self.value)

    def inverse(self) -> Operation:
        """What brings the values back, up to rounding."""
        return Operation(self.kind, _kind(self.kind).undo(self.value))

    def words(self, text: str = "w") -> str:
        """What it makes of `text`: `w + 1`, `(w - 1) · 2`."""
        return _kind(self.kind).words(text, self.value)


def undone(operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """What brings values back after all of them: the inverses, in the opposite order."""
    return tuple(operation.inverse() for operation in reversed(tuple(operations)))


def leaves_nothing(kind: str, operand: object) -> bool:
    """Whether an operand has no inverse: nothing undoes zero, an infinity or NaN."""
    if isinstance(operand, float) and not math.isfinite(operand):
        return True
    return operand == _kind(kind).refuse and _kind(kind).refuse is not None


def _kind(name: str) -> _Kind:
    try:
        return _KINDS[name]
    except KeyError:
        raise UnsupportedError(f"unknown operation {name!r}", cause=f"known are {', '.join(KINDS)}") from None
