"""The page that models are run on and tokenizers compared by: prose, and lines that are hard to split.

The latter are prose, code, numbers, blanks, accents, scripts and emoji, a line each. None spells a special
token, which SentencePiece alone splits.
"""

from __future__ import annotations

from importlib.resources import files


def page() -> str:
    """All of it."""
    return files("porter.verification").joinpath("page.txt").read_text(encoding="utf-8")


def prose() -> str:
    """Some 700 words of plain English, which come first."""
    return page().partition("\n\n\n")[0] + "\n"


def lines() -> list[str]:
    """Every line that holds something."""
    return [line for line in page().splitlines() if line]
