"""Two tokenizers compared: the ids of a page of text, the vocabularies, and what is stated beside them.

Files of one content are equal without being read. Otherwise each side's own tokenizer is run on every line of
a page of text (`page.txt`), without special tokens: `tokenizer.json` through the tokenizers package, a
SentencePiece model through sentencepiece, a GGUF's metadata as the model that porter makes of them. Then the
token of each id is compared; of two `tokenizer.json` the special tokens put around a text, and the text that
ids become, too. What both state beside it is compared in any case (`tokenizer_settings`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from porter.containers.checkpoint import Checkpoint
from porter.errors import PorterError
from porter.system.memory import trim
from porter.tokenizers.spm_model import model_bytes, read_model
from porter.tokenizers.tokenizer_values import read_bytes
from porter.tokenizers.vocabulary import vocabulary
from porter.verification import page
from porter.verification.tokenizer_settings import differing_settings
from porter.verification.verdict import TokenizerVerdict

_JSON, _MODEL, _KERAS = "tokenizer.json", "tokenizer.model", "assets/tokenizer/vocabulary.spm"


@dataclass(frozen=True)
class _Run:
    """What a tokenizer makes of the page: `ids` of each line and, of a `tokenizer.json`, those of the first
    line with special tokens (`framed`) and the `texts` that ids become. `tokens` has the token of each id.
    `special` ids of a SentencePiece model have other names elsewhere."""

    ids: Sequence[Sequence[int]]
    framed: Sequence[int] | None
    texts: Sequence[str] | None
    tokens: Mapping[int, str]
    special: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Tokenizer:
    """A tokenizer that is there: what it is made of, a digest of that, and how to run it.

    A loaded one takes up to 330 MB for 262,144 tokens, so that none is kept once it has run.
    """

    what: str
    digest: str
    run: Callable[[], _Run]


def compare_tokenizers(original: Checkpoint, out: Checkpoint) -> TokenizerVerdict:
    """The verdict. A tokenizer that only one side has, or that cannot be run, is not compared, and said."""
    # The buffers that weights were compared in are not needed any more.
    trim()
    try:
        ours, theirs = _tokenizer_of(original), _tokenizer_of(out)
    except PorterError as error:
        return TokenizerVerdict("not compared", f"a tokenizer cannot be read: {error.message}")
    if ours is None or theirs is None:
        lacks = [side.label for side, found in ((original, ours), (out, theirs)) if found is None]
        return TokenizerVerdict("not compared", f"no tokenizer that porter reads in {' and '.join(lacks)}")
    try:
        beside = differing_settings(original.files, out.files)
        said = f"{theirs.what}: the same bytes"
        if ours.digest != theirs.digest:
            problem = _difference(ours.run(), theirs.run(), theirs.what)
            if problem is not None:
                return TokenizerVerdict("differs", problem)
            said = f"{ours.what} and {theirs.what}: the same ids for a page of {len(page.lines())} lines"
    except PorterError as error:
        return TokenizerVerdict("not compared", error.message)
    except ImportError as error:
        return TokenizerVerdict("not compared", f"the {error.name} package is needed to run {_JSON}")
    except Exception as error:  # whatever a broken file makes the two libraries raise
        return TokenizerVerdict("differs", f"a tokenizer cannot be loaded: {str(error).splitlines()[0]:.200}")
    if beside:
        return TokenizerVerdict("differs", f"{said}, but {'; '.join(beside)}")
    return TokenizerVerdict("equal", said)


def _difference(one: _Run, other: _Run, what: str) -> str | None:
    """What the second makes otherwise than the first."""
    pairs = list(zip(one.ids, other.ids, strict=True))
    wrong = [number for number, (ids, found) in enumerate(pairs) if ids != found]
    if wrong:
        ids, found = pairs[wrong[0]]
        at = next((i for i, pair in enumerate(zip(ids, found, strict=False)) if pair[0] != pair[1]), len(ids))
        return (
            f"{what} gives other ids for {len(wrong)} of {len(pairs)} lines of a page of text; of line "
            f"{wrong[0] + 1} from token {at} on: {found[at : at + 4]}, not {ids[at : at + 4]}"
        )
    if (problem := _other_tokens(one, other, what)) is not None:
        return problem
    if one.framed is None or other.framed is None or one.texts is None or other.texts is None:
        return None
    if one.framed != other.framed:
        return (
            f"{what} puts other special tokens around a text: {_ends(other.framed)}, not {_ends(one.framed)}"
        )
    for text, made in zip(one.texts, other.texts, strict=True):
        if text != made:
            return f"{what} makes other text of the same ids: {made[:40]!r}, not {text[:40]!r}"
    return None


def _other_tokens(one: _Run, other: _Run, what: str) -> str | None:
    """Ids that stand for other tokens; where both are of one kind, those that only one side has too."""
    alike = (one.texts is None) == (other.texts is None)
    special = frozenset[int]() if alike else one.special | other.special
    ours, theirs = one.tokens, other.tokens
    wrong = [
        number
        for number in chain(ours, theirs.keys() - ours.keys())
        if ours.get(number) != theirs.get(number)
        and number not in special
        and (alike or (number in ours and number in theirs))
    ]
    if not wrong:
        return None
    first = min(wrong)
    count = f"{len(wrong):,} ids" if len(wrong) > 1 else "an id"
    return (
        f"{what} has another token for {count}: {first} is {_token(theirs.get(first))}, "
        f"not {_token(ours.get(first))}"
    )


def _token(text: str | None) -> str:
    return "none" if text is None else repr(text[:40])


def _ends(ids: Sequence[int]) -> str:
    return f"{ids[:2]} … {ids[-2:]}"


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


def _model(content: bytes) -> _Run:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_proto=content)
    ids = [list(model.encode(line)) for line in page.lines()]
    tokens = {number: model.id_to_piece(number) for number in range(model.get_piece_size())}
    special = (
        number
        for number in tokens
        if model.is_control(number) or model.is_unknown(number) or model.is_unused(number)
    )
    return _Run(ids, None, None, tokens, frozenset(special))


def _json(content: bytes) -> _Run:
    from tokenizers import Tokenizer

    model = Tokenizer.from_buffer(content)
    lines = page.lines()
    ids = [list(model.encode(line, add_special_tokens=False).ids) for line in lines]
    framed = list(model.encode(lines[0]).ids)
    texts = [str(model.decode(line, skip_special_tokens=False)) for line in ids]
    known = model.get_vocab(with_added_tokens=True)
    return _Run(ids, framed, texts, {number: token for token, number in known.items()})
