"""What a tokenizer plan is made of, and how its JSON files are read.

A plan is a value: it says which files the target needs, as bytes made here or as copies of the source's.
Nothing is written, and nothing that a file names (`auto_map`) is imported or run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from porter.errors import MalformedError
from porter.reading.json_text import TOKENIZER, parse_json
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
    """A tokenizer file's content; raises `MalformedError` above the limit for tokenizers."""
    return read_regular(path, name, TOKENIZER.nbytes)


def read_object(path: Path, name: str) -> dict[str, Any]:
    """A file that must hold one JSON object: UTF-8, no key twice, no NaN; else `MalformedError`."""
    value = parse_json(read_bytes(path, name), name, TOKENIZER, unique=True, constants=False)
    if not isinstance(value, dict):
        raise MalformedError(
            f"{name} is no JSON object", cause=f"expected {{…}}, found {type(value).__name__}"
        )
    return value


def write_object(value: dict[str, Any]) -> bytes:
    """JSON as transformers spells it: two blanks of indent, keys in their order, a newline at the end."""
    # A lone surrogate has no UTF-8; what replaces it is JSON's own escape for it.
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
