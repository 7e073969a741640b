"""What stands beside a tokenizer and changes what is made of a text: special tokens, and the chat template.

Compared where both sides state it: what one of them leaves out, its framework decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from porter.errors import PorterError
from porter.tokenizers.tokenizer_values import read_bytes, read_object

_CONFIG, _MAP, _TEMPLATE = "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_SWITCHES = ("add_bos_token", "add_eos_token")
# Where a file came from; and tokens, which the vocabularies have.
_NO_SETTINGS = ("name_or_path", "tokenizer_file", "transformers_version", "backend", "added_tokens_decoder")


def differing_settings(ours: Mapping[str, Path], theirs: Mapping[str, Path]) -> list[str]:
    """Each setting that both sides state, and not alike. Raises MalformedError for what cannot be read."""
    one, other = _stated(ours), _stated(theirs)
    return [
        "the chat template is another"
        if name == "chat_template"
        else f"{name} is {other[name]!r}, not {one[name]!r}"
        for name in one
        if name in other and one[name] != other[name]
    ]


def setting_notes(ours: Mapping[str, Path], theirs: Mapping[str, Path]) -> list[str]:
    """What of the settings is not compared, and is not alike; nothing of files that cannot be read."""
    try:
        one, other = _read(ours, _CONFIG), _read(theirs, _CONFIG)
        lost = "chat_template" in _stated(ours) and "chat_template" not in _stated(theirs)
    except PorterError:
        return []
    compared = {*_TOKENS, *_SWITCHES, "chat_template", *_NO_SETTINGS}
    unlike = sorted(name for name in one.keys() & other.keys() - compared if one[name] != other[name])
    notes = [f"{_CONFIG}: not compared, and not alike: {', '.join(unlike)}"] if unlike else []
    # A framework that reads no such file has no place for a template.
    if lost and _CONFIG in theirs:
        notes.append("the original has a chat template, and the port has none")
    return notes


def _stated(files: Mapping[str, Path]) -> dict[str, Any]:
    config = _read(files, _CONFIG)
    # transformers reads the map first, and lets the config decide.
    stated = {**_read(files, _MAP), **config}
    found = {name: _text(stated[name]) for name in _TOKENS if stated.get(name) is not None}
    found |= {name: stated[name] for name in _SWITCHES if isinstance(stated.get(name), bool)}
    # A file of its own goes before what the config holds.
    if _TEMPLATE in files:
        found["chat_template"] = read_bytes(files[_TEMPLATE], _TEMPLATE).decode("utf-8", "replace")
    elif config.get("chat_template") is not None:
        found["chat_template"] = config["chat_template"]
    return found


def _read(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    return read_object(files[name], name) if name in files else {}


def _text(token: Any) -> Any:
    """A token's text, which may stand in a dict with how it is stripped."""
    return token.get("content") if isinstance(token, dict) else token
