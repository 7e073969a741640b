"""Tokenizer files made from a GGUF's metadata: the model, its configs, and `tokenizer.json` for Hugging Face.

LitGPT gets `tokenizer.model` alone, since it would prefer a `tokenizer.json` of seven times the size that
gives the same ids.

Source: the keys under `tokenizer.` in the GGUF specification and llama.cpp's `convert_hf_to_gguf.py`. Where
`add_bos_token` is left out, llama.cpp and transformers 5.23 both add BOS to a SentencePiece vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porter.tokenizers.hub_json import added_tokens, tokenizer_json
from porter.tokenizers.spm_model import model_bytes
from porter.tokenizers.tokenizer_values import TokenizerFile, write_object
from porter.tokenizers.vocabulary import Vocabulary, vocabulary


def gguf_files(metadata: Mapping[str, Any], target: str) -> tuple[tuple[TokenizerFile, ...], int]:
    """The files for `target` and the number of tokens; raises what `vocabulary` raises."""
    known = vocabulary(metadata)
    files = [TokenizerFile("tokenizer.model", model_bytes(known))]
    config = tokenizer_config(metadata, known)
    if target == "hf":
        content = tokenizer_json(known, add_bos=config["add_bos_token"], add_eos=config["add_eos_token"])
        files.insert(0, TokenizerFile("tokenizer.json", content))
    files.append(TokenizerFile("tokenizer_config.json", write_object(config)))
    if generation := generation_config(metadata, known):
        files.append(TokenizerFile("generation_config.json", write_object(generation)))
    return tuple(files), len(known.pieces)


def tokenizer_config(metadata: Mapping[str, Any], known: Vocabulary) -> dict[str, Any]:
    """`tokenizer_config.json`, with every token that is found whole in a text listed as such."""
    config: dict[str, Any] = {
        "tokenizer_class": "GemmaTokenizer" if known.gemma else "LlamaTokenizer",
        "add_bos_token": metadata.get("tokenizer.ggml.add_bos_token", True) is True and known.bos is not None,
        "add_eos_token": metadata.get("tokenizer.ggml.add_eos_token", False) is True
        and known.eos is not None,
        "clean_up_tokenization_spaces": False,
    }
    if not known.gemma:
        config["add_prefix_space"] = known.space_prefix
    for name, index in (("bos", known.bos), ("eos", known.eos), ("pad", known.pad), ("unk", known.unk)):
        if index is not None:
            config[f"{name}_token"] = known.pieces[index]
    length = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if type(length) is int:
        config["model_max_length"] = length
    if isinstance(text := metadata.get("tokenizer.chat_template"), str):
        config["chat_template"] = text
    # A tokenizer.model cannot say that a turn marker is special; without this list users would see it.
    config["added_tokens_decoder"] = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in added_tokens(known)
    }
    return config


def generation_config(metadata: Mapping[str, Any], known: Vocabulary) -> dict[str, Any]:
    """`generation_config.json`: the ids that start, end and pad; the end of a turn ends generation too."""
    config: dict[str, Any] = {"bos_token_id": known.bos, "eos_token_id": known.eos, "pad_token_id": known.pad}
    turn = metadata.get("tokenizer.ggml.eot_token_id")
    if type(turn) is int and known.eos is not None and turn != known.eos and 0 <= turn < len(known.pieces):
        config["eos_token_id"] = [known.eos, turn]
    return {key: value for key, value in config.items() if value is not None}
