"""What a tokenizer plan is made of, and how its JSON files are read.

A plan is a value: it says which files the target needs, as bytes made here or as copies of the source's.
Nothing is written, and nothing that a file names (`auto_map`) is imported or run.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from porter.errors import MalformedError
from porter.reading.json_text import TOKENIZER, check_text, parse_json
from porter.reading.regular import read_regular

# Every tokenizer file that a Hugging Face or LitGPT directory may hold, in the order in which it is listed.
CARRIED = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)

# What further tokenizers of transformers keep their vocabulary in; nothing else reads these.
HF_VOCABULARIES = ("vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json")


@dataclass(frozen=True)
class TokenizerFile:
    """One file of the target: either `content`, or a copy of the source's file named `copied_from`."""

    name: str
    content: bytes | None = None
    copied_from: str | None = None


@dataclass(frozen=True)
class TokenizerPlan:
    """The files to write, notes for the user, and how many ids the vocabulary spans (None when unknown)."""

    files: tuple[TokenizerFile, ...] = ()
    notes: tuple[str, ...] = ()
    tokens: int | None = None


# Merges as every writer makes them: texts, or pairs of texts. Any others are read as the rest is.
_BLANKS = rb"[ \t\n\r]*+"
_TEXT = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+"'
_PAIR = rb"\[" + rb",".join([_BLANKS + _TEXT + _BLANKS] * 2) + rb"\]"
_MERGE = _BLANKS + rb"(?:" + _TEXT + rb"|" + _PAIR + rb")" + _BLANKS
# A text cannot hold `"merges":`, for its quotes would be escaped.
_MERGES = re.compile(
    rb'(?<="merges")' + _BLANKS + rb":" + _BLANKS + rb"\[(" + _MERGE + rb"(?:," + _MERGE + rb")*+)\]"
)


def read_bytes(path: Path, name: str) -> bytes:
    """A tokenizer file's content; raises `MalformedError` above the limit for tokenizers."""
    return read_regular(path, name, TOKENIZER.nbytes)


def read_object(path: Path, name: str) -> dict[str, Any]:
    """A file that must hold one JSON object: UTF-8, no key twice, no NaN; else `MalformedError`.

    The merges of a `tokenizer.json` are checked and left out: nothing here asks which they are, and half a
    million lists take longer to make than all the rest.
    """
    text = read_bytes(path, name)
    merges = _MERGES.search(text)
    if merges:
        check_text(merges[1], name)
    rest = text[: merges.start(1)] + text[merges.end(1) :] if merges else text
    try:
        value = parse_json(rest, name, TOKENIZER, unique=True, constants=False)
    except MalformedError:
        # Of the whole, to say where.
        value = parse_json(text, name, TOKENIZER, unique=True, constants=False)
    if not isinstance(value, dict):
        raise MalformedError(
            f"{name} is no JSON object", cause=f"expected {{…}}, found {type(value).__name__}"
        )
    return value


def write_object(value: dict[str, Any]) -> bytes:
    """JSON as transformers spells it: two blanks of indent, keys in their order, a newline at the end."""
    # A lone surrogate has no UTF-8; what replaces it is JSON's own escape for it.
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
