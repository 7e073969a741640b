"""What a tokenizer plan is made of, and how its JSON files are read.

A plan is a value: it says which files the target needs, as bytes made here or as copies of the source's.
Nothing is written, and nothing that a file names (`auto_map`) is imported or run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from porter.errors import MalformedError, UnsupportedError

# Far above the largest tokenizer.json in use (some 35 MB for 262,144 tokens), far below what would hurt.
MAX_BYTES = 256 * 2**20

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

# Where transformers keeps the chat templates that have a name, beside the default one.
TEMPLATES = "additional_chat_templates/"


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


def read_bytes(path: Path, name: str) -> bytes:
    """A tokenizer file's content; raises `UnsupportedError` above 256 MiB."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UnsupportedError(
            f"{name} is too large", cause=f"expected at most {MAX_BYTES} bytes, found {size}"
        )
    return path.read_bytes()


def read_object(path: Path, name: str) -> dict[str, Any]:
    """A file that must hold one JSON object: UTF-8, no key twice, no NaN; else `MalformedError`."""
    try:
        value = json.loads(
            read_bytes(path, name).decode(), object_pairs_hook=_no_key_twice, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise MalformedError(
            f"{name} is not valid JSON", cause=str(error), hint=f"fetch {name} again, or repair it by hand"
        ) from None
    if not isinstance(value, dict):
        raise MalformedError(
            f"{name} is no JSON object", cause=f"expected {{…}}, found {type(value).__name__}"
        )
    return value


def write_object(value: dict[str, Any]) -> bytes:
    """JSON as transformers spells it: two blanks of indent, keys in their order, a newline at the end."""
    # A lone surrogate has no UTF-8; what replaces it is JSON's own escape for it.
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in value if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return value


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")
