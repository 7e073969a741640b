"""Sound files damaged at random, by kind: bytes, JSON values, TOML values. The same seed, the same damage."""

from __future__ import annotations

import json
import random
import re
from typing import Any

# Where 32- and 64-bit counts, lengths and offsets turn.
NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    255,
    256,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    2**64 - 1,
)

# What a JSON value may be, besides what it should be.
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63),
    10**30,
    10**70,
    1.5,
    -0.0,
    1e300,
    float("inf"),
    float("nan"),
    "",
    "x",
    "1",
    "\x00",
    "\ud800",
    "../../etc/passwd",
    "\x1b[31m\u202e",
    "a" * 5_000,
    [],
    [None],
    [[]],
    [1, "a"],
    [0] * 1_000,
    {},
    {"": 1},
    {"a": {"b": {"c": []}}},
)


def damage(content: bytes, rng: random.Random, head: int = 4096, tail: int = 0) -> bytes:
    """One to four changes, most of them in the first `head` or the last `tail` bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        at = _place(len(data), rng, head, tail)
        kind = rng.randrange(8)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 0x7F, 0x80, 0xFF, 0x22, 0x5B, 0x7B, 0x5D, 0x7D))
        elif kind == 2:
            del data[at : at + rng.choice((1, 2, 4, 8, 64))]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 64)))
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            piece = data[at : at + rng.choice((4, 8, 16, 64, 256))]
            other = _place(len(data), rng, head, tail)
            data[other : other + len(piece)] = piece
        elif kind == 6:
            width = rng.choice((2, 4, 8))
            number = rng.choice(NUMBERS) % (1 << 8 * width)
            data[at : at + width] = number.to_bytes(width, "little")
        else:
            piece = data[at : at + rng.choice((4, 8, 16, 64))]
            data[at:at] = piece * rng.choice((1, 2, 50))
    return bytes(data)


def _place(size: int, rng: random.Random, head: int, tail: int) -> int:
    where = rng.random()
    if tail and where < 0.6:
        return max(0, size - 1 - rng.randrange(min(tail, size)))
    return rng.randrange(min(head, size)) if where < 0.95 else rng.randrange(size)


def other_json(value: Any, rng: random.Random) -> Any:
    """A JSON value with one of its parts replaced, left out, doubled or renamed."""
    places = list(_places(value))
    path = rng.choice(places)
    if not path:
        return rng.choice(ODD)
    copied = json.loads(json.dumps(value))
    holder = copied
    for step in path[:-1]:
        holder = holder[step]
    kind = rng.randrange(6)
    if kind < 4:
        holder[path[-1]] = rng.choice(ODD)
    elif kind == 4:
        del holder[path[-1]]
    elif isinstance(holder, dict):
        holder[str(rng.choice(ODD))[:300]] = holder.pop(path[-1])
    else:
        holder.append(holder[path[-1]])
    return copied


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*path, key))


# What a TOML value may be, besides what it should be.
ODD_TOML = (
    "1",
    "-1",
    "0.5",
    "1e400",
    "nan",
    "true",
    "false",
    '""',
    '"x"',
    '"{layer}"',
    '"("',
    '"1 / 0"',
    '"2 ** 9"',
    '"9" * 9',
    "[]",
    "[1]",
    "[[]]",
    '["x"]',
    '[["a", 1]]',
    "{}",
    "{ a = 1 }",
    "{ ours = 1 }",
    "{ when = 1 }",
    "{ expr = 1 }",
    "{ axes = 3 }",
    "2024-01-02",
    "9" * 5_000,
    '"' + "(" * 3_000 + '"',
    '"' + "a b " * 500 + '"',
    '"' + " " * 20_000 + '!"',
    '"\\u202e\\u001b[31m"',
)

_VALUE = re.compile(r"(?m)(=\s*)(\"[^\"\n]*\"|\[[^\]\n]*\]|\{[^}\n]*\}|[-0-9.a-z]+)")
_SECTION = re.compile(r"(?m)^\[+([a-z.]+)\]+$")


def other_toml(text: str, rng: random.Random) -> str:
    """A TOML file with one of its values replaced, a section made a value, or a line left out or doubled."""
    kind = rng.randrange(8)
    if kind < 5 and (found := list(_VALUE.finditer(text))):
        one = rng.choice(found)
        return text[: one.start(2)] + rng.choice(ODD_TOML) + text[one.end(2) :]
    if kind == 5 and (sections := list(_SECTION.finditer(text))):
        one = rng.choice(sections)
        return f"{one[1]} = {rng.choice(ODD_TOML)}\n" + text[: one.start()] + "[x]\n" + text[one.end() :]
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    if kind == 6:
        del lines[at]
    else:
        lines.insert(at, lines[rng.randrange(len(lines))])
    return "\n".join(lines) + "\n"
