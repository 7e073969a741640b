"""Names with variables: `model.layers.{layer}.mlp.up_proj.weight`.

A variable stands for a whole number in decimal, without leading zeros. `{_layer}` is a numbered suffix as
Keras writes it: nothing for 0, then `_1`, `_2`, …. Patterns are anchored. A name is looked up by its
template (every run of digits replaced), so matching costs the same however many rules there are, and
two patterns overlap exactly when their templates and literal digits do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from porter.errors import PorterError

_VARIABLE = re.compile(r"\{(_?)([A-Za-z][A-Za-z0-9_]*)\}")
_PLAIN = re.compile(r"\{[A-Za-z][A-Za-z0-9_]*\}")
_SUFFIX = re.compile(r"\{_([A-Za-z][A-Za-z0-9_]*)\}")
_DIGITS = re.compile(r"[0-9]+")
_APART = re.compile(r"([0-9]+)")
# Names are a stranger's text: nothing is numbered this high, and Python refuses to read very long numbers.
_LONGEST = 18
_SLOT = "\0"
# Names that are put together as one text, which may have 4 KB each.
_AT_ONCE = 1 << 10
_MARKED = str.maketrans(dict.fromkeys("0123456789", _SLOT))
# A leading zero, a number that is too long, or a mark within a name.
_UNUSUAL = re.compile(r"(?<![0-9])0[0-9]|[0-9]{19}|\0")


class PatternError(PorterError):
    """A name pattern that is refused; the caller adds file and line."""


@dataclass(frozen=True)
class Spelling:
    """One form that a pattern's names take: a template, what stands in its slots, and fixed variables.

    `slots` are, in order, variables `{x}` or literal digits; `suffixes` are variables whose 0 is spelled
    by another form; `zero` are variables that are 0 in this one.
    """

    template: str
    slots: tuple[str, ...]
    suffixes: frozenset[str]
    zero: tuple[str, ...]

    @property
    def free(self) -> bool:
        """Whether every name of this template that is plainly numbered has this form."""
        return not self.suffixes and all(slot.startswith("{") for slot in self.slots)

    def match(self, digits: list[str]) -> dict[str, int] | None:
        """The variables' values for a name of this template with these runs of digits."""
        values = dict.fromkeys(self.zero, 0)
        if len(digits) != len(self.slots):
            # The name itself held the mark that stands for digits.
            return None
        for slot, run in zip(self.slots, digits, strict=True):
            if not slot.startswith("{"):
                if slot != run:
                    return None
                continue
            name = slot[1:-1]
            if run.startswith("0") and (len(run) > 1 or name in self.suffixes):
                return None
            if len(run) > _LONGEST:
                return None
            values[name] = int(run)
        return values

    def overlaps(self, other: Spelling) -> bool:
        """Whether one name could have both spellings."""
        return self.template == other.template and all(
            mine == yours or mine.startswith("{") or yours.startswith("{")
            for mine, yours in zip(self.slots, other.slots, strict=True)
        )


@dataclass(frozen=True)
class Pattern:
    """A name with variables."""

    text: str

    @cached_property
    def variables(self) -> tuple[str, ...]:
        return tuple(name for _, name in _VARIABLE.findall(self.text))

    @cached_property
    def spellings(self) -> tuple[Spelling, ...]:
        """The forms of the name: one, or two where a numbered suffix may be absent."""
        suffix = _SUFFIX.search(self.text)
        if suffix is None:
            return (_spelling(self.text, frozenset(), ()),)
        name = suffix[1]
        numbered = self.text.replace(suffix[0], f"_{{{name}}}")
        return (
            _spelling(numbered, frozenset({name}), ()),
            _spelling(self.text.replace(suffix[0], ""), frozenset(), (name,)),
        )

    @cached_property
    def _numbered(self) -> str | None:
        """The text to be filled with numbers in their order, where none of them may be left out."""
        return None if _SUFFIX.search(self.text) else _PLAIN.sub("%d", self.text.replace("%", "%%"))

    def at(self, point: tuple[int, ...]) -> str:
        """The name with its variables, in their order, filled in."""
        if self._numbered is not None:
            return self._numbered % point
        return self.format(dict(zip(self.variables, point, strict=True)))

    def format(self, values: Mapping[str, int]) -> str:
        """The name with its variables filled in."""

        def fill(match: re.Match[str]) -> str:
            value = values[match[2]]
            return f"_{value}" * (value > 0) if match[1] else str(value)

        return _VARIABLE.sub(fill, self.text)

    def filled(self, values: Mapping[str, int]) -> str:
        """The name with those variables filled in that have a value; the others stand as they are."""
        return _PLAIN.sub(lambda match: str(values.get(match[0][1:-1], match[0])), self.text)

    def match(self, name: str) -> dict[str, int] | None:
        """The variables' values if `name` fits the pattern, else None."""
        return self.matched(*taken_apart(name))

    def matched(self, template: str, digits: list[str]) -> dict[str, int] | None:
        """As `match`, for a name that has been taken apart."""
        for spelling in self.spellings:
            if spelling.template == template:
                values = spelling.match(digits)
                if values is not None:
                    return values
        return None

    def overlaps(self, other: Pattern) -> bool:
        """Whether one name could fit both patterns."""
        return any(mine.overlaps(yours) for mine in self.spellings for yours in other.spellings)


def taken_apart(name: str) -> tuple[str, list[str]]:
    """The key under which names and patterns meet, digits replaced by one mark; and the runs of digits."""
    parts = _APART.split(name)
    return _SLOT.join(parts[::2]), parts[1::2]


# Of one checkpoint every table asks, and of what stands before its names.
@lru_cache(maxsize=2)
def templates(names: tuple[str, ...]) -> list[str]:
    """The key of each name, as `taken_apart` gives it; all at once, which takes a fifth of the time.

    Without a match for each number: a name may be made of a thousand.
    """
    found: list[str] = []
    for first in range(0, len(names), _AT_ONCE):
        text = "\n".join(names[first : first + _AT_ONCE]).translate(_MARKED)
        while _SLOT * 2 in text:
            text = text.replace(_SLOT * 8, _SLOT).replace(_SLOT * 3, _SLOT).replace(_SLOT * 2, _SLOT)
        found += text.split("\n")
    return found


def plainly_numbered(names: Iterable[str]) -> bool:
    """Whether every number in these names is one that a variable may stand for."""
    # A line's end stands in no number.
    return not _UNUSUAL.search("\n".join(names))


def parse_pattern(text: str) -> Pattern:
    """Check a pattern: braces closed, no variable twice, no variable touching digits or another variable."""
    pattern = Pattern(text)
    if not text:
        raise PatternError("a name pattern is empty", hint="write the tensor's name as it is stored")
    if re.search(r"[{}]", _VARIABLE.sub("", text)):
        raise PatternError(
            f"`{text}`: a brace that is no `{{variable}}`", hint="a variable is written {layer}"
        )
    if len(set(pattern.variables)) != len(pattern.variables):
        raise PatternError(f"`{text}`: a variable stands twice", hint="give the two numbers two names")
    if len(_SUFFIX.findall(text)) > 1:
        raise PatternError(f"`{text}`: two numbered suffixes in one name")
    if re.search(r"\}[0-9{]|[0-9]\{", text):
        raise PatternError(
            f"`{text}`: a variable touches digits or another variable",
            hint="a name could then be read in two ways; there must be a separator between them",
        )
    return pattern


def _spelling(text: str, suffixes: frozenset[str], zero: tuple[str, ...]) -> Spelling:
    return Spelling(
        template=_DIGITS.sub(_SLOT, _PLAIN.sub(_SLOT, text)),
        slots=tuple(re.findall(r"\{[A-Za-z][A-Za-z0-9_]*\}|[0-9]+", text)),
        suffixes=suffixes,
        zero=zero,
    )
