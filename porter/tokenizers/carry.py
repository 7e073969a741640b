"""Tokenizer files carried from one directory to another: copied as they are, the config completed.

Promised: every known file of the source arrives, byte for byte, except `tokenizer_config.json`, which gains
the keys that the target cannot do without and loses none. LitGPT needs `tokenizer_class` (else it raises
KeyError) and BOS made explicit (`bos.py`); a model without any config gets one made from what it says itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from porter.errors import MalformedError
from porter.reading.json_text import TOKENIZER
from porter.reading.regular import check_regular
from porter.sources.weight_files import TEMPLATES
from porter.tokenizers.bos import template, token_text, with_bos
from porter.tokenizers.spm_model import ModelFacts
from porter.tokenizers.tokenizer_values import (
    CARRIED,
    HF_VOCABULARIES,
    TokenizerFile,
    write_object,
)

CONFIG = "tokenizer_config.json"


def carried_files(
    available: Mapping[str, Path],
    target: str,
    config: dict[str, Any] | None,
    tokenizer: dict[str, Any] | None,
    model: ModelFacts | None,
) -> tuple[tuple[TokenizerFile, ...], tuple[str, ...]]:
    """The files for `target` and notes; `tokenizer` is the parsed `tokenizer.json`, `model` what a
    `tokenizer.model` says when that is what the target will read."""
    notes: list[str] = []
    files = [
        TokenizerFile(name, copied_from=name) for name in CARRIED if name in available and name != CONFIG
    ]
    wanted = config
    if tokenizer is not None or model is not None:
        wanted = _completed(config, target, tokenizer, model, notes)
        if target == "litgpt" and _adds_eos(wanted, tokenizer):
            notes.append("the tokenizer ends texts with EOS; LitGPT does so only when it is asked to")
    elif target == "litgpt":
        notes.append("LitGPT reads tokenizer.json or tokenizer.model, and the source has neither")
    if wanted is not None:
        same = wanted == config
        files.append(
            TokenizerFile(CONFIG, copied_from=CONFIG) if same else TokenizerFile(CONFIG, write_object(wanted))
        )
    if config is not None and "auto_map" in config:
        notes.append(
            f"{CONFIG} names custom code (auto_map); the key is kept, and porter does not run the code"
        )
    files.sort(key=lambda file: CARRIED.index(file.name))
    further = [name for name in HF_VOCABULARIES if name in available and target == "hf"]
    further += sorted(name for name in available if name.startswith(f"{TEMPLATES}/"))
    files += [TokenizerFile(name, copied_from=name) for name in further]
    for file in files:
        if file.copied_from is not None:
            check_regular(available[file.copied_from], file.copied_from, TOKENIZER.nbytes)
    return tuple(files), tuple(notes)


def _completed(
    config: dict[str, Any] | None,
    target: str,
    tokenizer: dict[str, Any] | None,
    model: ModelFacts | None,
    notes: list[str],
) -> dict[str, Any] | None:
    stated = (config or {}).get("tokenizer_class")
    if stated is not None and not isinstance(stated, str):
        raise MalformedError(
            f"{CONFIG}: tokenizer_class cannot be used", cause=f"expected a name, found {stated!r}"
        )
    if model is not None and config is None:
        wanted = _config_of(model)
        notes.append(f"the source has no {CONFIG}; one is made for {wanted['tokenizer_class']}")
    elif target != "litgpt":
        return config
    else:
        wanted = dict(config or {})
        if stated is None:
            wanted["tokenizer_class"] = (
                _config_of(model)["tokenizer_class"] if model else "PreTrainedTokenizerFast"
            )
            notes.append(f"the source states no tokenizer_class; {wanted['tokenizer_class']} is written")
    return with_bos(wanted, tokenizer) if target == "litgpt" else wanted


def _config_of(model: ModelFacts) -> dict[str, Any]:
    # Of the SentencePiece families, Llama's put a blank before a text and Gemma's do not.
    return {
        "tokenizer_class": "LlamaTokenizer" if model.dummy_prefix else "GemmaTokenizer",
        "add_bos_token": "bos_token" in model.special,
        "add_eos_token": False,
        **model.special,
        "added_tokens_decoder": {
            str(index): {
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": control,
            }
            for index, (text, control) in model.whole.items()
        },
    }


def _adds_eos(config: dict[str, Any] | None, tokenizer: dict[str, Any] | None) -> bool:
    stated = (config or {}).get("add_eos_token")
    if stated is not None:
        return stated is True
    after = (template(tokenizer) or (None, None))[1]
    return after is not None and after == token_text((config or {}).get("eos_token"))
