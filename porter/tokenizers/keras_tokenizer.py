"""The tokenizer of a KerasHub preset: a SentencePiece model among its assets, and KerasHub's config of it.

KerasHub reads no other kind for Gemma. A source without a SentencePiece model gives no files and a note:
the preset's weights load all the same.

Format: `tokenizer.json` as KerasHub (0.32) writes it beside `assets/tokenizer/vocabulary.spm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from porter.tokenizers.from_gguf import gguf_files
from porter.tokenizers.size import Span, check_span
from porter.tokenizers.spm_model import model_facts
from porter.tokenizers.tokenizer_values import TokenizerFile, TokenizerPlan, write_object

ASSET, CONFIG = "assets/tokenizer/vocabulary.spm", "tokenizer.json"

PREPROCESSOR = "preprocessor.json"

# What the model is called in the directories that are read.
_MODELS = (ASSET, "tokenizer.model")

# A backbone's tokenizer: its class, its module under `keras_hub.src.models`, and settings of its own.
# Gemma 3's and 4's look by default for the placeholders of images and sounds, which a language model's
# vocabulary may lack; Gemma 3n's look for them in any case.
_CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GemmaBackbone": ("GemmaTokenizer", "gemma.gemma_tokenizer", {}),
    "Gemma3Backbone": ("Gemma3Tokenizer", "gemma3.gemma3_tokenizer", {"has_vision_tokens": False}),
    "Gemma3nBackbone": ("Gemma3nTokenizer", "gemma3n.gemma3n_tokenizer", {}),
    "Gemma4Backbone": (
        "Gemma4Tokenizer",
        "gemma4.gemma4_tokenizer",
        {"has_vision_tokens": False, "has_audio_tokens": False, "has_video_tokens": False},
    ),
}

# What Gemma's classes look up in the vocabulary when they are made.
_NEEDED = ("<bos>", "<eos>", "<pad>")


def preset_files(
    available: Mapping[str, Path], *, metadata: Mapping[str, Any] | None, backbone: str, vocab_size: int
) -> TokenizerPlan:
    """The tokenizer files of a preset whose `config.json` has the class `backbone`.

    `available` and `metadata` are as for `tokenizer_files`. Raises `MalformedError` for a broken model and
    for one with more pieces than the embedding has rows.
    """
    model, tokens, notes = _model(available, metadata, vocab_size)
    if model is None or backbone not in _CLASSES:
        return TokenizerPlan(notes=notes)
    config = _config(backbone)
    files = [model, TokenizerFile(CONFIG, write_object(config))]
    if backbone == "Gemma3Backbone":
        # Without it, KerasHub takes a Gemma 3 for one that sees images, and asks for their converter.
        files.append(TokenizerFile(PREPROCESSOR, write_object(_preprocessor(config))))
    return TokenizerPlan(tuple(files), notes, tokens)


def _model(
    available: Mapping[str, Path], metadata: Mapping[str, Any] | None, vocab_size: int
) -> tuple[TokenizerFile | None, int | None, tuple[str, ...]]:
    name = next((name for name in _MODELS if name in available), None)
    if name is not None:
        facts = model_facts(available[name], name)
        notes = check_span(Span(facts.pieces, {}), vocab_size)
        absent = [word for word in _NEEDED if word not in facts.special.values()]
        if absent:
            notes = (*notes, f"the vocabulary has no {', '.join(absent)}, which KerasHub's Gemma looks for")
        return TokenizerFile(ASSET, copied_from=name), facts.pieces, notes
    if metadata is not None and "tokenizer.ggml.model" in metadata:
        files, tokens = gguf_files(metadata, "hf")
        made = next((file for file in files if file.name == "tokenizer.model"), None)
        if made is not None:
            notes = check_span(Span(tokens, {}), vocab_size)
            return TokenizerFile(ASSET, content=made.content), tokens, notes
    found = "only a tokenizer.json" if "tokenizer.json" in available else "no tokenizer"
    note = (
        f"KerasHub reads a SentencePiece model (tokenizer.model), and the source has {found}: none is written"
    )
    return None, None, (note,)


def _config(backbone: str) -> dict[str, Any]:
    word, module, further = _CLASSES[backbone]
    return _object(
        word,
        module,
        {
            "name": module.rpartition(".")[2],
            "trainable": True,
            "dtype": _policy("int32"),
            "config_file": CONFIG,
            "proto": None,
            "sequence_length": None,
            "add_bos": False,
            "add_eos": False,
            **further,
        },
    )


def _preprocessor(tokenizer: dict[str, Any]) -> dict[str, Any]:
    return _object(
        "Gemma3CausalLMPreprocessor",
        "gemma3.gemma3_causal_lm_preprocessor",
        {
            "name": "gemma3_causal_lm_preprocessor",
            "trainable": True,
            "dtype": _policy("float32"),
            "tokenizer": tokenizer,
            "config_file": PREPROCESSOR,
            "sequence_length": 1024,
            "add_start_token": True,
            "add_end_token": True,
        },
    )


def _object(word: str, module: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": f"keras_hub.src.models.{module}",
        "class_name": word,
        "config": config,
        "registered_name": f"keras_hub>{word}",
    }


def _policy(dtype: str) -> dict[str, Any]:
    return {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": dtype},
        "registered_name": None,
    }
