"""Two tokenizers compared by the ids that they give for a page of text.

Files of one content are equal without being read. Otherwise each side's own tokenizer is run on every line
of a page of text (`page.txt`), without special tokens: `tokenizer.json` through the tokenizers package, a
SentencePiece model through sentencepiece, a GGUF's metadata as the model that porter makes of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from porter.containers.checkpoint import Checkpoint
from porter.errors import PorterError
from porter.tokenizers.spm_model import model_bytes, read_model
from porter.tokenizers.tokenizer_values import read_bytes
from porter.tokenizers.vocabulary import vocabulary
from porter.verification import page
from porter.verification.verdict import TokenizerVerdict

Encode = Callable[[str], list[int]]

_JSON, _MODEL, _KERAS = "tokenizer.json", "tokenizer.model", "assets/tokenizer/vocabulary.spm"


@dataclass(frozen=True)
class _Tokenizer:
    """A tokenizer that is there: what it is made of, a digest of that, and how to make it."""

    what: str
    digest: str
    load: Callable[[], Encode]


def compare_tokenizers(original: Checkpoint, out: Checkpoint) -> TokenizerVerdict:
    """The verdict. A tokenizer that only one side has, or that cannot be run, is not compared, and said."""
    try:
        ours, theirs = _tokenizer_of(original), _tokenizer_of(out)
    except PorterError as error:
        return TokenizerVerdict("not compared", f"a tokenizer cannot be read: {error.message}")
    if ours is None or theirs is None:
        lacks = [side.label for side, found in ((original, ours), (out, theirs)) if found is None]
        return TokenizerVerdict("not compared", f"no tokenizer that porter reads in {' and '.join(lacks)}")
    if ours.digest == theirs.digest:
        return TokenizerVerdict("equal", f"{theirs.what}: the same bytes")
    try:
        one, other = ours.load(), theirs.load()
    except PorterError as error:
        return TokenizerVerdict("not compared", error.message)
    except ImportError as error:
        return TokenizerVerdict("not compared", f"the {error.name} package is needed to run {_JSON}")
    except Exception as error:  # whatever a broken file makes the two libraries raise
        return TokenizerVerdict("differs", f"a tokenizer cannot be loaded: {str(error).splitlines()[0]:.200}")
    lines = page.lines()
    wrong = [number for number, line in enumerate(lines, start=1) if one(line) != other(line)]
    if not wrong:
        said = f"{ours.what} and {theirs.what}: the same ids for a page of {len(lines)} lines"
        return TokenizerVerdict("equal", said)
    line = lines[wrong[0] - 1]
    ids, found = one(line), other(line)
    at = next((i for i, pair in enumerate(zip(ids, found, strict=False)) if pair[0] != pair[1]), len(ids))
    return TokenizerVerdict(
        "differs",
        f"{theirs.what} gives other ids for {len(wrong)} of {len(lines)} lines of a page of text; of line "
        f"{wrong[0]} from token {at} on: {found[at : at + 4]}, not {ids[at : at + 4]}",
    )


def _tokenizer_of(checkpoint: Checkpoint) -> _Tokenizer | None:
    files: Mapping[str, Path] = checkpoint.files
    if _KERAS in files:
        return _sentencepiece(_KERAS, read_model(files[_KERAS], _KERAS))
    if _JSON in files and checkpoint.container != "hdf5":
        content = read_bytes(files[_JSON], _JSON)
        return _Tokenizer(_JSON, hashlib.sha256(content).hexdigest(), lambda: _json(content))
    if _MODEL in files:
        return _sentencepiece(_MODEL, read_model(files[_MODEL], _MODEL))
    if checkpoint.container == "gguf" and checkpoint.metadata.get("tokenizer.ggml.model") == "llama":
        return _sentencepiece("the GGUF's tokenizer", model_bytes(vocabulary(checkpoint.metadata)))
    return None


def _sentencepiece(what: str, content: bytes) -> _Tokenizer:
    return _Tokenizer(what, hashlib.sha256(content).hexdigest(), lambda: _model(content))


def _model(content: bytes) -> Encode:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=content)
    return lambda text: list(processor.encode(text))


def _json(content: bytes) -> Encode:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(content)
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)
