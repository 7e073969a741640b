"""Names with variables: `model.layers.{layer}.mlp.up_proj.weight`.

A variable stands for a whole number in decimal, without leading zeros. Patterns are anchored. A name is
looked up by its template (every run of digits replaced), so matching costs the same however many rules
there are, and two patterns overlap exactly when their templates and literal digits do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from porter.errors import PorterError

_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DIGITS = re.compile(r"[0-9]+")
_SLOT = "\0"


class PatternError(PorterError):
    """A name pattern that is refused; the caller adds file and line."""


@dataclass(frozen=True)
class Pattern:
    """A name with variables. `slots` are, in order, variables `{x}` or literal digits."""

    text: str

    @cached_property
    def variables(self) -> tuple[str, ...]:
        return tuple(_VARIABLE.findall(self.text))

    @cached_property
    def slots(self) -> tuple[str, ...]:
        return tuple(re.findall(r"\{[A-Za-z_][A-Za-z0-9_]*\}|[0-9]+", self.text))

    @cached_property
    def template(self) -> str:
        return _DIGITS.sub(_SLOT, _VARIABLE.sub(_SLOT, self.text))

    def format(self, values: Mapping[str, int]) -> str:
        """The name with its variables filled in."""
        return _VARIABLE.sub(lambda match: str(values[match[1]]), self.text)

    def match(self, name: str) -> dict[str, int] | None:
        """The variables' values if `name` fits the pattern, else None."""
        if template_of(name) != self.template:
            return None
        values: dict[str, int] = {}
        for slot, digits in zip(self.slots, _DIGITS.findall(name), strict=True):
            if not slot.startswith("{"):
                if slot != digits:
                    return None
            elif len(digits) > 1 and digits.startswith("0"):
                return None
            else:
                values[slot[1:-1]] = int(digits)
        return values

    def overlaps(self, other: Pattern) -> bool:
        """Whether one name could fit both patterns."""
        return self.template == other.template and all(
            mine == yours or mine.startswith("{") or yours.startswith("{")
            for mine, yours in zip(self.slots, other.slots, strict=True)
        )


def template_of(name: str) -> str:
    """The key under which names and patterns meet: digits replaced by one mark."""
    return _DIGITS.sub(_SLOT, name)


def parse_pattern(text: str) -> Pattern:
    """Check a pattern: braces closed, no variable twice, no variable touching digits or another variable."""
    pattern = Pattern(text)
    if not text:
        raise PatternError("a name pattern is empty")
    if re.search(r"[{}]", _VARIABLE.sub("", text)):
        raise PatternError(f"`{text}`: a brace that is no `{{variable}}`")
    if len(set(pattern.variables)) != len(pattern.variables):
        raise PatternError(f"`{text}`: a variable stands twice")
    if re.search(r"\}[0-9{]|[0-9]\{", text):
        raise PatternError(
            f"`{text}`: a variable touches digits or another variable",
            hint="a name could then be read in two ways; there must be a separator between them",
        )
    return pattern
