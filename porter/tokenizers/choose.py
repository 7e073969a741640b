"""The tokenizer files of a conversion: which are copied, which are made, and what the user should know.

Files found in the source come first and are used as they are; a GGUF's own metadata stand in where there
are none. A source without a tokenizer gives an empty plan and a note, for weights can be ported without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from porter.errors import UsageError
from porter.tokenizers.carry import CONFIG, carried_files
from porter.tokenizers.from_gguf import gguf_files
from porter.tokenizers.size import Span, check_span, span
from porter.tokenizers.spm_model import model_facts
from porter.tokenizers.tokenizer_values import CARRIED, HF_VOCABULARIES, TokenizerPlan, read_object

TARGETS = ("hf", "litgpt")

GENERATION = "generation_config.json"

# Where a KerasHub preset keeps its SentencePiece model; the `tokenizer.json` beside it is Keras's own config.
_KERAS = "assets/tokenizer/vocabulary.spm"

# The files that hold a vocabulary; without one of them, the others are settings without a tokenizer.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", *HF_VOCABULARIES)


def tokenizer_files(
    available: Mapping[str, Path], *, metadata: Mapping[str, Any] | None, target: str, vocab_size: int
) -> TokenizerPlan:
    """The tokenizer files that a directory of dialect `target` ("hf" or "litgpt") should hold.

    `available` maps the names of files in the source to their paths, `metadata` is a GGUF's (None for other
    sources), `vocab_size` the number of embedding rows. Nothing is written. Raises `MalformedError` for
    broken files and for a vocabulary larger than the embedding, `UnsupportedError` for a kind of GGUF
    tokenizer that porter does not build.
    """
    if target not in TARGETS:
        raise UsageError(f"no tokenizer files for {target!r}", hint=f"one of {', '.join(TARGETS)}")
    if _KERAS in available:
        plan = tokenizer_files(
            {"tokenizer.model": available[_KERAS]}, metadata=None, target=target, vocab_size=vocab_size
        )
        files = tuple(replace(file, copied_from=_KERAS) if file.copied_from else file for file in plan.files)
        return replace(plan, files=files)
    if not any(name in available for name in _VOCABULARIES):
        kind = (metadata or {}).get("tokenizer.ggml.model")
        if metadata is not None and kind not in (None, "no_vocab", "none"):
            files, tokens = gguf_files(metadata, target)
            return TokenizerPlan(files, check_span(Span(tokens, {}), vocab_size), tokens)
        return _without_vocabulary(available)

    parsed = {
        name: read_object(available[name], name)
        for name in CARRIED
        if name in available and name.endswith(".json") and name != "vocab.json"
    }
    tokenizer = parsed.get("tokenizer.json")
    model = None
    if tokenizer is None and "tokenizer.model" in available:
        model = model_facts(available["tokenizer.model"], "tokenizer.model")
    files, notes = carried_files(available, target, parsed.get(CONFIG), tokenizer, model)
    if metadata is not None and "tokenizer.ggml.model" in metadata:
        notes = ("the tokenizer files beside the GGUF are used, not the tokenizer inside it", *notes)
    if tokenizer is None and model is None:
        return TokenizerPlan(files, notes)
    found = span(
        tokenizer, model.pieces if model else 0, parsed.get(CONFIG, {}), parsed.get("added_tokens.json", {})
    )
    return TokenizerPlan(files, (*notes, *check_span(found, vocab_size)), found.tokens)


def model_alone(
    available: Mapping[str, Path], *, metadata: Mapping[str, Any] | None, vocab_size: int, title: str
) -> TokenizerPlan:
    """For frameworks that read a SentencePiece model alone: `tokenizer.model`, where there is one, and the
    ids of `generation_config.json`."""
    plan = tokenizer_files(available, metadata=metadata, target="hf", vocab_size=vocab_size)
    ids = tuple(file for file in plan.files if file.name == GENERATION)
    model = tuple(file for file in plan.files if file.name == "tokenizer.model")
    if model or len(ids) == len(plan.files):
        return replace(plan, files=(*model, *ids))
    note = f"{title} reads a SentencePiece model (tokenizer.model), and the source has none: none is written"
    return replace(plan, files=ids, notes=(note,))


def _without_vocabulary(available: Mapping[str, Path]) -> TokenizerPlan:
    notes = ("the source has no tokenizer; only weights and config are written",)
    if GENERATION not in available:
        return TokenizerPlan(notes=notes)
    read_object(available[GENERATION], GENERATION)
    files, _ = carried_files({GENERATION: available[GENERATION]}, "hf", None, None, None)
    return TokenizerPlan(files, notes)
