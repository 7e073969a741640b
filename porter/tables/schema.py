"""Of which types a table's entries are: checked once for each file, before anything of it is used.

A table may be a stranger's. What each part may hold is stated here and nowhere else, so that no other part of
porter meets a number where a list belongs; which keys there are, and what they mean, is checked where they
are read. Texts have a length, for what is parsed out of them takes time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from porter.values.operations import KINDS

Path = tuple[str | int, ...]

# Characters. The longest name, layout and expression in the shipped tables have some 150.
_LONGEST_TEXT = 2_000

# Parts of a list or a table. The longest section has some 60 entries.
_MOST = 5_000


@dataclass(frozen=True)
class Leaf:
    """A value by itself: `words` say what it must be."""

    words: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Table:
    """A table with these keys; others are judged where the table is read."""

    entries: Mapping[str, Spec]
    words: str = "a table"


@dataclass(frozen=True)
class TableOf:
    """A table with keys of its own, each with such a value."""

    value: Spec
    words: str = "a table"


@dataclass(frozen=True)
class ListOf:
    """A list of such values."""

    value: Spec
    words: str = "a list"


@dataclass(frozen=True)
class Either:
    """One of these, told apart by their types."""

    choices: tuple[Spec, ...]

    @property
    def words(self) -> str:
        return " or ".join(choice.words for choice in self.choices)


Spec = Leaf | Table | TableOf | ListOf | Either


def wrong_entries(value: Any, spec: Spec, path: Path = ()) -> Iterator[tuple[Path, str, Any]]:
    """Each entry that is of another type than it must be: its place, what it must be, and what it is."""
    match spec:
        case Leaf():
            if not spec.fits(value):
                yield path, spec.words, value
        case Either():
            found = [choice for choice in spec.choices if _is_of(value, choice)]
            if not found:
                yield path, spec.words, value
            for choice in found[:1]:
                yield from wrong_entries(value, choice, path)
        case ListOf():
            if not isinstance(value, list):
                yield path, spec.words, value
                return
            if len(value) > _MOST:
                yield path, f"a list of at most {_MOST:,} items", len(value)
                return
            for number, item in enumerate(value):
                yield from wrong_entries(item, spec.value, (*path, number))
        case Table() | TableOf():
            if not isinstance(value, dict):
                yield path, spec.words, value
                return
            if len(value) > _MOST:
                yield path, f"a table of at most {_MOST:,} entries", len(value)
                return
            for key, item in value.items():
                if len(key) > _LONGEST_TEXT:
                    yield path, f"a table whose keys have at most {_LONGEST_TEXT:,} characters", key
                elif isinstance(spec, TableOf):
                    yield from wrong_entries(item, spec.value, (*path, key))
                elif key in spec.entries:
                    yield from wrong_entries(item, spec.entries[key], (*path, key))


def _is_of(value: Any, spec: Spec) -> bool:
    """Whether a value is of the type that a choice is told by."""
    match spec:
        case Leaf():
            return spec.fits(value)
        case ListOf():
            return isinstance(value, list)
        case Table() | TableOf():
            return isinstance(value, dict)
        case Either():
            return any(_is_of(value, choice) for choice in spec.choices)


def _is_number(value: Any) -> bool:
    # Larger whole numbers are no size, and cannot be compared with numbers that have a point.
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 1 << 128
    return isinstance(value, float)


def _is_plain(value: Any, depth: int = 0) -> bool:
    """What a config may hold as well: JSON's values."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth < 8 and len(value) <= _MOST and all(_is_plain(item, depth + 1) for item in inner)
    if isinstance(value, str):
        return len(value) <= 10 * _LONGEST_TEXT
    return isinstance(value, bool) or _is_number(value)


TEXT = Leaf("a text", lambda value: isinstance(value, str) and len(value) <= _LONGEST_TEXT)
WORDS = Leaf("a text", lambda value: isinstance(value, str))
NUMBER = Leaf("a number", _is_number)
WHOLE = Leaf("a whole number", lambda value: type(value) is int and _is_number(value))
YES_NO = Leaf("true or false", lambda value: isinstance(value, bool))
FALSE = Leaf("false", lambda value: value is False)
# What a config may hold; where it is a text that is parsed, the text's length counts.
PLAIN = Leaf("a value that a config may hold", _is_plain)
VALUE = Leaf(
    "a value that a config may hold, or an expression",
    lambda value: TEXT.fits(value) if isinstance(value, str) else _is_plain(value),
)
TEXTS = ListOf(TEXT, "a list of names")
ONE_OR_MORE = Either((TEXT, TEXTS))
EXPRESSION = Either((TEXT, NUMBER, YES_NO))

_RULE = Table(
    {
        "theirs": TEXT,
        "ours": ONE_OR_MORE,
        "layout": TEXT,
        **dict.fromkeys(KINDS, Either((TEXT, NUMBER))),
        "when": TEXT,
        "tied": TEXT,
        "also": TEXTS,
        "scale_by": TEXT,
    }
)

_FIELD = Table(
    {
        "field": ONE_OR_MORE,
        "write_to": TEXT,
        "values": ListOf(ListOf(PLAIN)),
        "default": VALUE,
        "each_layer": YES_NO,
        "nullable": YES_NO,
        "none_is": PLAIN,
        "null_is": PLAIN,
        "read": TEXT,
        "write": TEXT,
        "assumed": VALUE,
        "fixed": VALUE,
        "only": ListOf(PLAIN),
        "contains": Either((TEXT, TEXTS, TableOf(EXPRESSION))),
        "avoid": Either((TEXT, TEXTS, TableOf(EXPRESSION))),
        "as": TEXT,
    }
)

_MERGED = Table(
    {
        "first": TEXTS,
        "base": TableOf(PLAIN),
        "update": TEXTS,
        "fill": TableOf(TEXT),
        "over": TableOf(TEXT),
        "kind": TEXTS,
        "keys": TableOf(TEXTS),
    }
)

_CONFIG = Table(
    {
        "file": TEXT,
        "match": TableOf(Either((ListOf(PLAIN), Table({"present": YES_NO})))),
        "fields": TableOf(Either((TEXT, TEXTS, _FIELD))),
        "write": TableOf(
            Either(
                (Table({"expr": TEXT, "value": PLAIN, "when": TEXT}), ListOf(PLAIN), WORDS, NUMBER, YES_NO)
            )
        ),
        "require": TableOf(PLAIN),
        "known": TEXTS,
        "float32": YES_NO,
        "section": TEXT,
        "optional": YES_NO,
        "recognise": TEXT,
        "borrow": TEXTS,
        "published": TableOf(VALUE),
        "merge": TableOf(_MERGED),
        "outer": TableOf(TEXT),
        "caution": TableOf(Table({"when": TEXT, "say": WORDS})),
        "closed": TEXTS,
        "left_out": TableOf(PLAIN),
    }
)

DIALECT = Table(
    {
        "extends": ONE_OR_MORE,
        "models": TEXT,
        "match": TableOf(Either((ListOf(PLAIN), PLAIN))),
        "model_type": TEXT,
        "architecture": TEXT,
        "family": TEXT,
        "dialect": TEXT,
        "title": TEXT,
        "remove": TEXTS,
        "ignore": TEXTS,
        "prefixes": TableOf(ONE_OR_MORE),
        "rule": ListOf(_RULE),
        "rules": TableOf(Either((FALSE, TEXT, _RULE, ListOf(Either((TEXT, _RULE)))))),
        "names": TableOf(TEXT),
        "config": _CONFIG,
        "files": Table(
            {
                "weights": TEXT,
                "container": TEXT,
                "sharded": YES_NO,
                "tokenizer": TEXT,
                "writable": YES_NO,
                "torch": TEXT,
                "wrap": TEXT,
            }
        ),
        "targets": TableOf(Either((FALSE, TEXT))),
        "beyond": TEXTS,
        "passed_over": TEXTS,
        "axes": TableOf(EXPRESSION),
        "shared": YES_NO,
        "after": TEXTS,
        "no_dialect": TableOf(Either((FALSE, WORDS))),
        "example": TableOf(PLAIN),
    }
)

CANONICAL = Table(
    {
        "extends": ONE_OR_MORE,
        "family": TEXT,
        "version": WHOLE,
        "index": TableOf(EXPRESSION),
        "axes": TableOf(Either((EXPRESSION, Table({"size": EXPRESSION, "inverse": TableOf(EXPRESSION)})))),
        "refine": TableOf(Either((FALSE, TEXT))),
        "tensors": TableOf(Either((FALSE, TEXT, Table({"axes": TEXT, "when": TEXT, "tied": TEXT})))),
        "hyperparameters": TableOf(
            Either(
                (
                    TEXT,
                    Table(
                        {
                            "note": Either((WORDS, TableOf(WORDS))),
                            "type": TEXT,
                            "neutral": PLAIN,
                            "optional": YES_NO,
                            "advisory": YES_NO,
                            "when": TEXT,
                            "idle": YES_NO,
                        }
                    ),
                )
            )
        ),
        "normal": TableOf(EXPRESSION),
        "example": TableOf(PLAIN),
    }
)

# The table of known mistakes: what a right port is not, and what published models have.
_STEP: dict[str, Spec] = {
    "add": Either((NUMBER, TEXT)),
    "multiply": Either((NUMBER, TEXT)),
    "through": TEXT,
    "cut": TEXT,
    "bits": YES_NO,
}
MISTAKES = Table(
    {
        "mistake": ListOf(
            Table(
                {
                    "says": TEXT,
                    "of": TEXTS,
                    "alias": TableOf(TEXT),
                    "exchange": TEXTS,
                    "reshaped": YES_NO,
                    "reverse": YES_NO,
                    "ours": TEXTS,
                    "layout": TEXT,
                    "interleave": TEXTS,
                    "hold": TableOf(WHOLE),
                    "index": TEXT,
                    "named": ListOf(ListOf(TEXT)),
                    "steps": ListOf(Table(_STEP)),
                    **_STEP,
                }
            ),
            "a list of entries, each under [[mistake]]",
        ),
        "config": ListOf(
            Table({"of": TEXT, "says": TEXT, "found": PLAIN, "expected": PLAIN}),
            "a list of entries, each under [[config]]",
        ),
        "published": TableOf(TableOf(PLAIN)),
    }
)
