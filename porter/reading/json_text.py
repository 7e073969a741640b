"""JSON from strangers: parsed within limits that follow from what the file may be.

Promised: time and memory that grow with the bytes, no faster; no value deeper than the limit; no whole number
that is too long to be spelled. What is left to the caller is what the values mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from porter.errors import MalformedError
from porter.untrusted import quoted


class Limit(NamedTuple):
    """The most bytes, values (counted by commas and opening brackets, in texts too) and levels of a file."""

    nbytes: int
    values: int
    depth: int | None


# The largest published config.json has about 1 MB, of label names.
CONFIG = Limit(4 << 20, 200_000, 64)

# Keras' config of a model may embed its tokenizer, of some 6 MB.
KERAS_CONFIG = Limit(16 << 20, 1_200_000, 64)

# A header of 100,000 tensors takes 12 MB and has 1,200,000 values. The Hub's client reads no longer ones.
HEADER = Limit(25_000_000, 3_000_000, 8)

# 90,000 tensors take 9 MB. The largest published models have some 200 shards.
INDEX = Limit(25_000_000, 1_000_000, 16)
MAX_SHARDS = 2_000

# 262,144 tokens take some 35 MB; with 514,000 merges as pairs there are 2,500,000 values.
TOKENIZER = Limit(96 << 20, 6_000_000, None)

# One array of a zarr store; a few hundred bytes.
ARRAY = Limit(1 << 20, 20_000, 32)

# A tree of arrays: some hundred bytes for each of 100,000 leaves.
TREE = Limit(64 << 20, 3_000_000, 64)

# What porter itself writes. An Orbax checkpoint of 100,000 arrays has a receipt of 20 MB; a claim on an
# output in a bucket lists each part of each file; a journal's first line names each file of the source.
RECEIPT = Limit(32 << 20, 1_000_000, 16)
CLAIM = Limit(64 << 20, 2_000_000, 16)
SIGNATURE = Limit(32 << 20, 1_000_000, 32)
JOURNAL_LINE = Limit(16 << 20, 1_000_000, 16)

# Bytes of a text, or between two. The longest real ones, chat templates, have some 20,000.
MAX_TEXT = 5 << 20

# Digits of a whole number. 2^64 has 20, and transformers' "no limit" (10^30 in a float's digits) 31.
MAX_DIGITS = 64

_LONG = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
# A text, whole or cut short by the document's end, or a bracket that is in none.
_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(
    text: bytes | bytearray,
    name: str,
    limit: Limit,
    *,
    unique: bool = False,
    constants: bool = True,
    surrogates: bool = True,
    whole: Callable[[str], int] | None = None,
) -> Any:
    """The value of a JSON document in UTF-8; `name` is what errors call the file.

    `unique` refuses a key that stands twice in one object, where the last one would count; without
    `constants` NaN and the infinities are refused, without `surrogates` halves of surrogate pairs. `whole`
    makes numbers of digits. Raises MalformedError.
    """
    _check_limits(text, name, limit)
    long = whole is None and _LONG.search(text) is not None
    try:
        value = json.loads(
            text.decode(),
            object_pairs_hook=_unique if unique else None,
            parse_constant=None if constants else _no_constant,
            parse_int=_whole if long else whole,
        )
    except UnicodeDecodeError as error:
        _refuse_bytes(name, error)
    except RecursionError:
        _refuse(name, "it is nested too deep")
    except ValueError as error:
        _refuse(name, f"expected plain JSON, found: {error}")
    if not surrogates and _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            _refuse(name, "expected text, found half a surrogate pair")
    return value


def check_text(text: bytes, name: str) -> None:
    """Raises MalformedError for a part of a document, between two of its texts, that is no UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        _refuse_bytes(name, error)


def _refuse_bytes(name: str, error: UnicodeDecodeError) -> NoReturn:
    _refuse(name, f"expected UTF-8, found byte {error.object[error.start]:#04x} at {error.start}")


def check_size(text: bytes | bytearray, name: str, limit: Limit) -> int:
    """Raises MalformedError for a document of more bytes or values than the limit allows, unparsed.

    Returns how many brackets are opened. How deep they are takes as long as parsing, and is not looked at.
    """
    if len(text) > limit.nbytes:
        _refuse(name, f"expected at most {limit.nbytes:,} bytes, found {len(text):,}")
    opened = text.count(b"[") + text.count(b"{")
    if opened + text.count(b",") > limit.values:
        _refuse(name, f"expected at most {limit.values:,} values, found more")
    return opened


def _check_limits(text: bytes | bytearray, name: str, limit: Limit) -> None:
    opened = check_size(text, name, limit)
    if limit.depth is not None and opened > limit.depth and _is_deeper(text, limit.depth):
        _refuse(name, f"expected at most {limit.depth} levels, found it nested deeper")
    if len(text) > MAX_TEXT and _is_one_text(text):
        _refuse(name, f"expected no text of more than {MAX_TEXT:,} bytes, found one")


def _is_one_text(text: bytes | bytearray) -> bool:
    """Whether so many bytes stand without a quotation mark."""
    at = 0
    while at + MAX_TEXT <= len(text):
        found = text.rfind(b'"', at, at + MAX_TEXT)
        if found < 0:
            return True
        at = found + 1
    return False


_STEPS = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def _is_deeper(text: bytes | bytearray, most: int) -> bool:
    depth = 0
    for bracket in _BRACKET.finditer(text):
        if bracket[0] in _STEPS:
            depth += _STEPS[bracket[0]]
        if depth > most:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {quoted(key)} twice")
            seen.add(key)
    return value


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"expected a number of at most {MAX_DIGITS} digits, found {len(digits):,}")
    return int(digits)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _refuse(name: str, cause: str) -> NoReturn:
    raise MalformedError(f"{name} cannot be parsed", cause=cause)
