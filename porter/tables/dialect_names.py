"""What people call a dialect: `LitGPT`, `transformers`, `jax` beside porter's own `litgpt`, `hf`, `flax`.

A dialect that a table has under the very word that was said always goes before one that it stands for.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from porter.errors import UsageError
from porter.wording import option

# By the word in lower case, without `-`, `_`, `.` and blanks.
_SPOKEN = {
    "litgpt": "litgpt",
    "lightning": "litgpt",
    "lightningai": "litgpt",
    "transformers": "hf",
    "hf": "hf",
    "huggingface": "hf",
    "huggingfacetransformers": "hf",
    "keras": "keras",
    "kerashub": "keras",
    "kerasnlp": "keras",
    "flax": "flax",
    "jax": "flax",
    "orbax": "flax",
    "gemmapytorch": "gemma_pytorch",
    "gguf": "gguf",
    "llamacpp": "gguf",
    "ggml": "gguf",
}

# What is said of a dialect and names a container.
_CONTAINERS = {
    "safetensors": "safetensors is a container: hf and litgpt are written in it",
    "pth": "pth is a container: litgpt, with {container}, is written as lit_model.pth",
    "bin": "bin is a container, which porter reads and does not write",
    "pytorch": "hf, litgpt and gemma_pytorch are all PyTorch's",
    "torch": "hf, litgpt and gemma_pytorch are all PyTorch's",
}


def dialect_named(word: str, known: Collection[str]) -> str | None:
    """The dialect of `known` that is meant by a word, or None. Raises UsageError for what is no word."""
    if not isinstance(word, str):
        raise UsageError(f"{word!r:.80} is no dialect", hint=_one_of(known))
    if word in known:
        return word
    found = _SPOKEN.get(_plain(word))
    return found if found in known else next((name for name in known if _plain(name) == _plain(word)), None)


def unknown_dialect(word: str, known: Collection[str]) -> UsageError:
    """The error for a word that no table has, with what may be meant."""
    if cause := _CONTAINERS.get(_plain(word)):
        cause = cause.format(container=option("container", "pth"))
        return UsageError(f"there is no dialect called {word!r}", cause=cause, hint=_one_of(known))
    near = get_close_matches(word.lower(), sorted({*known, *_SPOKEN}), n=1, cutoff=0.6)
    meant = dialect_named(near[0], known) if near else None
    return UsageError(
        f"there is no dialect called {word!r}",
        hint=f"did you mean {meant}?" if meant else _one_of(known),
    )


def _one_of(known: Collection[str]) -> str:
    return f"one of {', '.join(sorted(known))}"


def _plain(word: str) -> str:
    return "".join(character for character in word.lower() if character.isalnum())
