"""A readable PyTorch model with LitGPT's parameter names, its config, and greedy decoding. Imports torch."""

from porter.models.config import Config
from porter.models.generate import greedy
from porter.models.gpt import GPT, KVCache

__all__ = ["GPT", "Config", "KVCache", "greedy"]
