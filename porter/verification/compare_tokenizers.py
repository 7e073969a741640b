"""Two tokenizers compared: the ids of a page of text, the vocabularies, and what is stated beside them.

Files of one content are equal without being read. Otherwise each side's own tokenizer is run on every line of
a page of text (`page.txt`), without special tokens: `tokenizer.json` through the tokenizers package, a
SentencePiece model through sentencepiece, a GGUF's metadata as the model that porter makes of them. Then the
token of each id is compared. Of two `tokenizer.json` so are what is put around a text and a pair of texts,
the text that ids become, which tokens are special, and how each added token is found in a text. What both
state beside it is compared in any case (`tokenizer_settings`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
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

# The most added tokens that are looked at; Gemma 3 has 6,415.
_MOST_ADDED = 10_000

_JSON, _MODEL, _KERAS = "tokenizer.json", "tokenizer.model", "assets/tokenizer/vocabulary.spm"


@dataclass(frozen=True)
class _Parts:
    """What a `tokenizer.json` says besides. `framed` are the first line, and the first two as a pair, with
    special tokens; `texts` what the ids of each line become; `marked` the ids of a text around each added
    token, by that token's id; `special` the ids that are skipped where special tokens are; `limits` what is
    cut off or filled up, in words."""

    framed: Sequence[Sequence[int]]
    texts: Sequence[str]
    marked: Mapping[int, Sequence[int]]
    special: frozenset[int]
    limits: str


@dataclass(frozen=True)
class _Run:
    """What a tokenizer makes of the page: `ids` of each line. `tokens` has the token of each id. `special`
    ids of a SentencePiece model have other names elsewhere."""

    ids: Sequence[Sequence[int]]
    tokens: Mapping[int, str]
    special: frozenset[int] = frozenset()
    parts: _Parts | None = None


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
        shorter = min(len(ids), len(found))
        at = next((i for i in range(shorter) if ids[i] != found[i]), shorter)
        return (
            f"{what} gives other ids for {len(wrong)} of {len(pairs)} lines of a page of text; of line "
            f"{wrong[0] + 1} from token {at} on: {found[at : at + 4]}, not {ids[at : at + 4]}"
        )
    if (problem := _other_tokens(one, other, what)) is not None:
        return problem
    limits = [run.parts.limits if run.parts else "" for run in (one, other)]
    if limits[0] != limits[1]:
        return f"{what} {limits[1] or 'cuts and fills nothing'}, and the original's {limits[0] or 'does not'}"
    if one.parts is None or other.parts is None:
        return None
    return _other_parts(one.parts, other.parts, one.tokens, what)


def _other_parts(one: _Parts, other: _Parts, tokens: Mapping[int, str], what: str) -> str | None:
    for ids, found in zip(one.framed, other.framed, strict=True):
        if ids != found:
            return f"{what} puts other special tokens around a text: {_ends(found)}, not {_ends(ids)}"
    for text, made in zip(one.texts, other.texts, strict=True):
        if text != made:
            return f"{what} makes other text of the same ids: {made[:40]!r}, not {text[:40]!r}"
    for number in sorted(one.marked.keys() | other.marked.keys()):
        if one.marked.get(number) != other.marked.get(number):
            return f"{what} finds {_token(tokens.get(number))} otherwise where it stands in a text"
    if unlike := one.special ^ other.special:
        first, more = min(unlike), len(unlike) - 1
        which = "a special token" if first in other.special else "a token that is not special"
        return f"{what} has {_token(tokens.get(first))} as {which}" + (f", and {more} more" if more else "")
    return None


def _other_tokens(one: _Run, other: _Run, what: str) -> str | None:
    """Ids that stand for other tokens; where both are of one kind, those that only one side has too."""
    alike = (one.parts is None) == (other.parts is None)
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
    return _Run(ids, tokens, frozenset(special))


def _json(content: bytes) -> _Run:
    from tokenizers import Tokenizer

    model = Tokenizer.from_buffer(content)
    lines = page.lines()
    ids = [list(model.encode(line, add_special_tokens=False).ids) for line in lines]
    framed = [list(found.ids) for found in (model.encode(lines[0]), model.encode(lines[0], lines[1]))]
    texts = [str(model.decode(line, skip_special_tokens=False)) for line in ids]
    added = dict(islice(sorted(model.get_added_tokens_decoder().items()), _MOST_ADDED))
    marked = {
        number: list(model.encode(_around(token.content), add_special_tokens=False).ids)
        for number, token in added.items()
    }
    special = frozenset(number for number, token in added.items() if token.special)
    cut = f"cuts texts ({_plain(model.truncation)})" if model.truncation else ""
    filled = f"fills texts up ({_plain(model.padding)})" if model.padding else ""
    limits = " and ".join(part for part in (cut, filled) if part)
    tokens = {number: token for token, number in model.get_vocab(with_added_tokens=True).items()}
    return _Run(ids, tokens, parts=_Parts(framed, texts, marked, special, limits))


def _around(token: str) -> str:
    """A text with the token between blanks, and within a word."""
    return f"a {token} b{token}c"


def _plain(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(settings.items()))
