"""Models on Kaggle: how they are named, which of them are KerasHub's presets of Gemma, and the local cache.

No network, and no need of `kagglehub`: what it has put into its cache (KAGGLEHUB_CACHE) is found without it.
Source of the table: `gemma_presets.py` and `gemma3_presets.py` of KerasHub 0.32.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from porter.errors import UsageError
from porter.sources.names import ALIASES

SCHEME = "kaggle://"

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_])?")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class KaggleReference:
    """One variation of a model; `version` is counted from 1, None for the newest."""

    owner: str
    model: str
    framework: str
    variation: str
    version: int | None = None

    @property
    def name(self) -> str:
        """The variation without its version, as Kaggle writes it."""
        return f"{self.owner}/{self.model}/{self.framework}/{self.variation}"

    @property
    def handle(self) -> str:
        return self.name if self.version is None else f"{self.name}/{self.version}"

    @property
    def label(self) -> str:
        return SCHEME + self.handle

    @property
    def page(self) -> str:
        """Where the licence is accepted: consent is given once for all variations of a model."""
        return f"https://www.kaggle.com/models/{self.owner}/{self.model}"


def parse(source: str) -> KaggleReference | None:
    """`kaggle://owner/model/framework/variation[/version]`; None for what begins otherwise.

    Raises UsageError for an address that is none.
    """
    if not source.startswith(SCHEME):
        return None
    *parts, last = source.removeprefix(SCHEME).split("/")
    version = None
    if len(parts) == 4 and _VERSION.fullmatch(last):
        version = int(last)
    else:
        parts.append(last)
    if len(parts) != 4 or not all(map(_PART.fullmatch, parts)):
        raise UsageError(
            f"{source!r} is no address of a model on Kaggle",
            cause="expected kaggle://owner/model/framework/variation or …/variation/version",
            hint="for example kaggle://keras/gemma/keras/gemma_2b_en",
        )
    owner, model, framework, variation = parts
    return KaggleReference(owner, model, framework, variation, version)


_PRESETS = {
    "gemma-2b": "gemma/keras/gemma_2b_en/3",
    "gemma-2b-it": "gemma/keras/gemma_instruct_2b_en/3",
    "gemma-7b": "gemma/keras/gemma_7b_en/4",
    "gemma-7b-it": "gemma/keras/gemma_instruct_7b_en/4",
    "gemma-1.1-2b-it": "gemma/keras/gemma_1.1_instruct_2b_en/4",
    "gemma-1.1-7b-it": "gemma/keras/gemma_1.1_instruct_7b_en/5",
    "codegemma-2b": "codegemma/keras/code_gemma_2b_en/2",
    "codegemma-7b": "codegemma/keras/code_gemma_7b_en/3",
    "codegemma-7b-it": "codegemma/keras/code_gemma_instruct_7b_en/3",
    "codegemma-1.1-2b": "codegemma/keras/code_gemma_1.1_2b_en/2",
    "codegemma-1.1-7b-it": "codegemma/keras/code_gemma_1.1_instruct_7b_en/3",
    "gemma-2-2b": "gemma2/keras/gemma2_2b_en/2",
    "gemma-2-2b-it": "gemma2/keras/gemma2_instruct_2b_en/2",
    "gemma-2-9b": "gemma2/keras/gemma2_9b_en/4",
    "gemma-2-9b-it": "gemma2/keras/gemma2_instruct_9b_en/4",
    "gemma-2-27b": "gemma2/keras/gemma2_27b_en/3",
    "gemma-2-27b-it": "gemma2/keras/gemma2_instruct_27b_en/3",
    "gemma-3-270m": "gemma3/keras/gemma3_270m/3",
    "gemma-3-270m-it": "gemma3/keras/gemma3_instruct_270m/4",
    "gemma-3-1b": "gemma3/keras/gemma3_1b/3",
    "gemma-3-1b-pt": "gemma3/keras/gemma3_1b/3",
    "gemma-3-1b-it": "gemma3/keras/gemma3_instruct_1b/3",
    # The language models of the multimodal sizes, which the Hub has no repositories of.
    "gemma-3-4b-pt": "gemma3/keras/gemma3_4b_text/2",
    "gemma-3-4b-it": "gemma3/keras/gemma3_instruct_4b_text/3",
    "gemma-3-12b-pt": "gemma3/keras/gemma3_12b_text/3",
    "gemma-3-12b-it": "gemma3/keras/gemma3_instruct_12b_text/3",
    "gemma-3-27b-pt": "gemma3/keras/gemma3_27b_text/4",
    "gemma-3-27b-it": "gemma3/keras/gemma3_instruct_27b_text/3",
}
# Presets by the short names that porter has for releases.
KERAS_PRESETS: dict[str, KaggleReference] = {
    alias: reference
    for alias, handle in _PRESETS.items()
    if (reference := parse(f"{SCHEME}keras/{handle}")) is not None
}

# Presets that lie on the Hugging Face Hub too.
_ON_THE_HUB = {
    "gemma_2b_en": "google/gemma-2b-keras",
    "gemma2_instruct_9b_en": "google/gemma-2-instruct-9b-keras",
}


def on_the_hub(reference: KaggleReference) -> str | None:
    """The Hub's repository with the same preset, where one is known."""
    return _ON_THE_HUB.get(reference.variation) if reference.owner == "keras" else None


def keras_preset(source: str) -> KaggleReference | None:
    """The preset of a short name, of KerasHub's own name, or of a release's repository on the Hub.

    None for other repositories (`org/name`). Raises UsageError for a release that has no preset and for a
    name that is none.
    """
    if (reference := parse(source)) is not None:
        return reference
    by_repo = {alias.repo: alias.alias for alias in ALIASES.values()}
    name = source.removeprefix("hf://")
    name = by_repo.get(name, name)
    if name in KERAS_PRESETS:
        return KERAS_PRESETS[name]
    for reference in KERAS_PRESETS.values():
        if reference.variation == name:
            return reference
    if "/" in name:
        return None
    near = get_close_matches(name.lower(), KERAS_PRESETS, n=3, cutoff=0.6)
    raise UsageError(
        f"no Keras preset is known for {source!r}",
        cause=f"there are {len(KERAS_PRESETS)}: {', '.join(KERAS_PRESETS)}",
        hint=f"did you mean {' or '.join(near)}?"
        if near
        else "or name it as kaggle://owner/model/keras/variation",
    )


def cache_root() -> Path:
    """Where `kagglehub` keeps models; it need not exist."""
    root = os.environ.get("KAGGLEHUB_CACHE")
    return Path(root) / "models" if root is not None else Path.home() / ".cache" / "kagglehub" / "models"


def cached(reference: KaggleReference) -> tuple[KaggleReference, Path] | None:
    """The complete copy in the cache, of the newest version there if none is named. No network."""
    folder = cache_root() / reference.name
    if reference.version is not None:
        versions = [reference.version]
    elif folder.is_dir():
        numbers = (path.name for path in folder.iterdir())
        versions = sorted((int(name) for name in numbers if _VERSION.fullmatch(name)), reverse=True)
    else:
        versions = []
    for version in versions:
        # The client's own mark of a download that came to its end.
        mark = folder / f"{version}.complete"
        if mark.is_file() and (folder / str(version)).is_dir():
            return replace(reference, version=version), folder / str(version)
    return None
