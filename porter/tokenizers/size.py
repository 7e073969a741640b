"""How many ids a tokenizer spans, and whether the embedding has a row for each.

More tokens in the vocabulary than rows is an error: a text could index past the table. Fewer is usual, since
tables are padded. Tokens *added* beside the vocabulary may lie beyond the table in a sound checkpoint (the
text-only Gemma 3 models name `<image_soft_token>` as 262144 with 262,144 rows), so those are noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from porter.errors import MalformedError
from porter.untrusted import quoted

# Of an id that is written as a text.
_DIGITS = 20


@dataclass(frozen=True)
class Span:
    """`vocabulary` is one past its largest id; `added` maps the ids of added tokens to their texts. Below the
    largest of them all there are `unused` ids that no token has."""

    vocabulary: int
    added: Mapping[int, str]
    unused: int = 0

    @property
    def tokens(self) -> int:
        return max(self.vocabulary, *(index + 1 for index in self.added), 0)


def span(
    tokenizer: Mapping[str, Any] | None, pieces: int, config: Mapping[str, Any], added: Mapping[str, Any]
) -> Span:
    """From `tokenizer.json`, or else from a `tokenizer.model` of `pieces` pieces; `added` is
    `added_tokens.json`. Ids that are not whole numbers raise `MalformedError`."""
    extra: dict[int, str] = {}
    listed = config.get("added_tokens_decoder") or {}
    for index, token in _items(listed, "tokenizer_config.json: added_tokens_decoder"):
        text = token.get("content") if isinstance(token, Mapping) else token
        number = int(index) if index.isdecimal() and len(index) <= _DIGITS else index
        extra[_id(number, "tokenizer_config.json")] = str(text)
    for text, index in _items(added, "added_tokens.json"):
        extra[_id(index, "added_tokens.json")] = text
    if tokenizer is None:
        beyond = {index: text for index, text in extra.items() if index >= pieces}
        return Span(pieces, beyond, max(beyond, default=pieces - 1) + 1 - pieces - len(beyond))
    for token in _listed(tokenizer.get("added_tokens") or []):
        extra[_id(token.get("id"), "tokenizer.json")] = str(token.get("content"))
    model = tokenizer.get("model")
    vocab = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocab, list):
        ids = set(range(len(vocab)))
    elif isinstance(vocab, Mapping):
        # All at once, which takes a tenth of the time; each by itself where one is at fault.
        plain = set(map(type, vocab.values())) <= {int} and min(vocab.values(), default=0) >= 0
        ids = set(vocab.values() if plain else (_id(index, "tokenizer.json") for index in vocab.values()))
    else:
        raise MalformedError("tokenizer.json holds no vocabulary", cause="expected model.vocab")
    largest = max(ids | extra.keys(), default=-1)
    return Span(max(ids - extra.keys(), default=-1) + 1, extra, largest + 1 - len(ids | extra.keys()))


def check_span(found: Span, rows: int) -> tuple[str, ...]:
    """Notes on how the tokens fit `rows` embedding rows; `MalformedError` if the vocabulary does not."""
    if found.vocabulary > rows:
        raise MalformedError(
            "the tokenizer does not belong to these weights: it has more tokens than the embedding has rows",
            cause=f"expected at most {rows} tokens, found {found.vocabulary}",
            hint="use the tokenizer files that were published with the checkpoint",
        )
    beyond = {index: text for index, text in found.added.items() if index >= rows}
    if beyond:
        first = min(beyond)
        return (
            f"{len(beyond)} added tokens have no embedding row, the first is {beyond[first]!r} ({first}): "
            "the model cannot take them",
        )
    if without := rows - found.tokens + found.unused:
        return (f"{without} of {rows} embedding rows have no token (padding)",)
    return ()


def _items(value: object, where: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise MalformedError(f"{where} is no object", cause=f"found {type(value).__name__}")
    return value.items()


def _listed(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(token, Mapping) for token in value):
        raise MalformedError("tokenizer.json: added_tokens is no list of objects")
    return value


def _id(value: object, where: str) -> int:
    if type(value) is not int or value < 0:
        raise MalformedError(
            f"{where} holds a token without an id", cause=f"expected a number, found {quoted(value)}"
        )
    return value
