"""Two tokenizers compared by the ids that they give for a page of text.

Files of one content are equal without being read. Otherwise each side's own tokenizer is run on every line
of `PAGE`, without special tokens: `tokenizer.json` through the tokenizers package, a SentencePiece model
through sentencepiece, a GGUF's metadata as the model that porter makes of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from porter.containers.checkpoint import Checkpoint
from porter.errors import PorterError
from porter.tokenizers.spm_model import model_bytes
from porter.tokenizers.tokenizer_values import read_bytes
from porter.tokenizers.vocabulary import vocabulary
from porter.verification.verdict import TokenizerVerdict

# Prose, code, numbers, blanks, accents, scripts and emoji: a line each. No line spells a special token, which
# SentencePiece alone splits.
PAGE = """\
The river had risen in the night, and by noon the lower road was gone.
"Don't," she said - though nobody had asked her (not yet, anyway).
Twenty-one ships left Cádiz in 1587; 3,141 men returned, i.e. 52.6 % of them.
An unbelievably counterintuitive mischaracterisation of electroencephalography.
def area(radius: float) -> float:
    return 3.14159 * radius ** 2  # in square metres
for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }
SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name;
{"id": 7, "tags": ["a", "b c"], "path": "C:\\\\temp\\\\x.txt", "ok": null}
https://example.org/a/b?query=one+two&page=3#top
	a tab, then  two blanks,   three,        and eight
0123456789 10 100 1000 65536 0xFF 1e-06 -273.15
Ein Mädchen aus Köln aß Äpfel; où est l'île? Año nuevo, niño.
Съешь же ещё этих мягких французских булок.
Η γρήγορη αλεπού πηδά πάνω από τον τεμπέλη σκύλο.
吾輩は猫である。名前はまだ無い。
天地玄黄，宇宙洪荒。日月盈昃，辰宿列張。
모든 인간은 태어날 때부터 자유롭다.
كل الناس يولدون أحرارا متساوين.
सभी मनुष्य जन्म से स्वतंत्र हैं।
x² + y² ≤ r², ∑ᵢ aᵢ → ∞, 5 µm ± 2 °C, “quoted” … em—dash
Well 👍🏽 done 🎉 🇫🇷 ❤️
CamelCaseIdentifier snake_case_identifier SCREAMING_CASE kebab-case
aaaaaaaaaaaaaaaaaaaaaaaa !!!!!! ------ ====
"""

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
    lines = PAGE.splitlines()
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
        return _sentencepiece(_KERAS, read_bytes(files[_KERAS], _KERAS))
    if _JSON in files and checkpoint.container != "hdf5":
        content = read_bytes(files[_JSON], _JSON)
        return _Tokenizer(_JSON, hashlib.sha256(content).hexdigest(), lambda: _json(content))
    if _MODEL in files:
        return _sentencepiece(_MODEL, read_bytes(files[_MODEL], _MODEL))
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
