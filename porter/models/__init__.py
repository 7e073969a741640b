"""A readable PyTorch model with LitGPT's parameter names, its config, and greedy decoding.

`GPT`, `KVCache` and `greedy` import torch, when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from porter.models.config import Config
    from porter.models.generate import greedy
    from porter.models.gpt import GPT, KVCache

__all__ = ["GPT", "Config", "KVCache", "greedy"]

_HOMES = {
    "Config": "porter.models.config",
    "greedy": "porter.models.generate",
    "GPT": "porter.models.gpt",
    "KVCache": "porter.models.gpt",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'porter.models' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
