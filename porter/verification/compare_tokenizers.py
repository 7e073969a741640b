"""Two tokenizers compared: the ids of a page of text, the vocabularies, and what is stated beside them.

Files of one content are equal without being read. Otherwise each side's own tokenizer is run on every line of
a page of text (`page.txt`), without special tokens: `tokenizer.json` through the tokenizers package, a
SentencePiece model through sentencepiece, a GGUF's metadata as the model that porter makes of them. Then the
token of each id is compared; of two `tokenizer.json` the special tokens put around a text, and the text that
ids become, too. What both state beside it is compared in any case (`tokenizer_settings`).
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
from porter.verification.tokenizer_settings import differing_settings
from porter.verification.verdict import TokenizerVerdict

_JSON, _MODEL, _KERAS = "tokenizer.json", "tokenizer.model", "assets/tokenizer/vocabulary.spm"


@dataclass(frozen=True)
class _Loaded:
    """A tokenizer that runs. `tokens` has the token of each id; those of a SentencePiece model are its plain
    pieces where the other side is none, since special ones have other names elsewhere."""

    encode: Callable[[str], list[int]]
    framed: Callable[[str], list[int]] | None
    decode: Callable[[list[int]], str] | None
    tokens: Mapping[int, str]
    plain: Mapping[int, str]


@dataclass(frozen=True)
class _Tokenizer:
    """A tokenizer that is there: what it is made of, a digest of that, and how to make it."""

    what: str
    digest: str
    load: Callable[[], _Loaded]


def compare_tokenizers(original: Checkpoint, out: Checkpoint) -> TokenizerVerdict:
    """The verdict. A tokenizer that only one side has, or that cannot be run, is not compared, and said."""
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
            problem = _difference(ours.load(), theirs.load(), theirs.what)
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


def _difference(one: _Loaded, other: _Loaded, what: str) -> str | None:
    """What the second makes otherwise than the first."""
    lines = page.lines()
    pairs = [(one.encode(line), other.encode(line)) for line in lines]
    wrong = [number for number, (ids, found) in enumerate(pairs) if ids != found]
    if wrong:
        ids, found = pairs[wrong[0]]
        at = next((i for i, pair in enumerate(zip(ids, found, strict=False)) if pair[0] != pair[1]), len(ids))
        return (
            f"{what} gives other ids for {len(wrong)} of {len(lines)} lines of a page of text; of line "
            f"{wrong[0] + 1} from token {at} on: {found[at : at + 4]}, not {ids[at : at + 4]}"
        )
    if one.framed is None or other.framed is None or one.decode is None or other.decode is None:
        # Of two kinds; what is special has names of its own in each.
        alike = one.decode is None and other.decode is None
        ours, theirs = (one.tokens, other.tokens) if alike else (one.plain, other.plain)
        return _other_tokens(ours, theirs, what, both=alike)
    if (problem := _other_tokens(one.tokens, other.tokens, what, both=True)) is not None:
        return problem
    ids, found = one.framed(lines[0]), other.framed(lines[0])
    if ids != found:
        return f"{what} puts other special tokens around a text: {_ends(found)}, not {_ends(ids)}"
    for ids, _ in pairs:
        if (text := one.decode(ids)) != (made := other.decode(ids)):
            return f"{what} makes other text of the same ids: {made[:40]!r}, not {text[:40]!r}"
    return None


def _other_tokens(ours: Mapping[int, str], theirs: Mapping[int, str], what: str, *, both: bool) -> str | None:
    """Ids that stand for other tokens; with `both`, those that only one side has too."""
    ids = ours.keys() | theirs.keys() if both else ours.keys() & theirs.keys()
    wrong = sorted(number for number in ids if ours.get(number) != theirs.get(number))
    if not wrong:
        return None
    first = wrong[0]
    count = f"{len(wrong):,} ids" if len(wrong) > 1 else "an id"
    return (
        f"{what} has another token for {count}: {first} is {_token(theirs.get(first))}, "
        f"not {_token(ours.get(first))}"
    )


def _token(text: str | None) -> str:
    return "none" if text is None else repr(text[:40])


def _ends(ids: list[int]) -> str:
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


def _model(content: bytes) -> _Loaded:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_proto=content)
    tokens = {number: model.id_to_piece(number) for number in range(model.get_piece_size())}
    special = {
        number
        for number in tokens
        if model.is_control(number) or model.is_unknown(number) or model.is_unused(number)
    }
    plain = {number: token for number, token in tokens.items() if number not in special}
    return _Loaded(lambda text: list(model.encode(text)), None, None, tokens, plain)


def _json(content: bytes) -> _Loaded:
    from tokenizers import Tokenizer

    model = Tokenizer.from_buffer(content)
    tokens = {number: token for token, number in model.get_vocab(with_added_tokens=True).items()}
    return _Loaded(
        lambda text: list(model.encode(text, add_special_tokens=False).ids),
        lambda text: list(model.encode(text).ids),
        lambda ids: str(model.decode(ids, skip_special_tokens=False)),
        tokens,
        tokens,
    )
