"""Whether a tokenizer puts BOS before a text, and what LitGPT has to be told so that it does the same.

LitGPT prepends BOS, or strips the one its backend put there, by `tokenizer_config.json` alone: by
`add_bos_token`, else by whether `tokenizer_class` is exactly `LlamaTokenizer` (`litgpt/tokenizer.py` of
0.5.13).
Hugging Face's truth stands elsewhere: an explicit `add_bos_token`, else the post-processor in
`tokenizer.json`, else the default of the class (`TokenizersBackend`, transformers 5.23; the documented
default of the Gemma and Llama classes is True).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porter.errors import MalformedError

# Classes whose documented default is `add_bos_token=True`, without the suffix `Fast`.
_ADD_BOS = {"GemmaTokenizer", "LlamaTokenizer", "CodeLlamaTokenizer"}


def token_text(value: object) -> str | None:
    """A special token's text: configs hold it as a string or as an object with `content`."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def template(tokenizer: Mapping[str, Any] | None) -> tuple[str | None, str | None] | None:
    """The special tokens that `tokenizer.json` puts before and after one text; None when it does not say."""
    processor = (tokenizer or {}).get("post_processor")
    steps = processor.get("processors", [processor]) if isinstance(processor, Mapping) else []
    found: tuple[str | None, str | None] | None = None
    for step in steps if isinstance(steps, list) else []:
        if not isinstance(step, Mapping):
            continue
        if (
            step.get("type") == "TemplateProcessing"
            and isinstance(step.get("single"), list)
            and step["single"]
        ):
            found = _special(step["single"][0]), _special(step["single"][-1])
        elif step.get("type") in ("BertProcessing", "RobertaProcessing"):
            found = _first(step.get("cls")), _first(step.get("sep"))
        elif found is None:
            found = None, None
    return found


def with_bos(config: Mapping[str, Any], tokenizer: Mapping[str, Any] | None) -> dict[str, Any]:
    """`tokenizer_config.json` with BOS made explicit where LitGPT would otherwise guess wrong.

    `tokenizer` is the parsed `tokenizer.json`, if there is one. Every other key stays as it is.
    """
    stated = config.get("add_bos_token")
    name = config.get("tokenizer_class")
    if stated is not None and not isinstance(stated, bool):
        raise MalformedError(
            "tokenizer_config.json: add_bos_token cannot be used",
            cause=f"expected true or false, found {stated!r}",
        )
    before, after = template(tokenizer) or (None, None)
    told = dict(config)
    bos = token_text(config.get("bos_token"))
    if stated is None:
        if template(tokenizer) is None:
            stated = isinstance(name, str) and name.removesuffix("Fast") in _ADD_BOS
        else:
            stated = before is not None and bos in (None, before)
        # Said only where it changes what LitGPT does: transformers rebuilds the template from these keys.
        if "add_bos_token" in config or stated != (name == "LlamaTokenizer"):
            told["add_bos_token"] = stated
            if stated and after is not None:
                told.setdefault("add_eos_token", True)
    if stated and bos is None and before is not None:
        told["bos_token"] = before
    return told


def _special(piece: object) -> str | None:
    special = piece.get("SpecialToken") if isinstance(piece, Mapping) else None
    name = special.get("id") if isinstance(special, Mapping) else None
    return name if isinstance(name, str) else None


def _first(pair: object) -> str | None:
    return pair[0] if isinstance(pair, list) and pair and isinstance(pair[0], str) else None
