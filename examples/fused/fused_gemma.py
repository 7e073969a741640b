"""A Gemma decoder with fused projections: what an inference kernel wants, and no framework stores.

One matrix makes q, k and v, another gate and up, so that each is one multiplication. Only parameters stand
here: enough for a strict load. `porter convert --target-model examples/fused/fused_gemma.py:FusedGemma`
builds it from the config that `fused.toml` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Norm(nn.Module):
    """RMSNorm's weight (size,); Gemma stores w and applies 1 + w."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))


class Block(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim, hidden, size = config["dim"], config["mlp_dim"], config["head_dim"]
        heads, kv_heads = config["heads"], config["kv_heads"]
        self.attn_norm = Norm(dim)
        self.qkv_proj = nn.Linear(dim, (heads + 2 * kv_heads) * size, bias=False)  # rows: all q, all k, all v
        self.o_proj = nn.Linear(heads * size, dim, bias=False)
        self.mlp_norm = Norm(dim)
        self.gate_up_proj = nn.Linear(dim, 2 * hidden, bias=False)  # rows: gate, then up
        self.down_proj = nn.Linear(hidden, dim, bias=False)


class FusedGemma(nn.Module):
    """`config` is fused.toml's config.json; the head is tied to the embedding and has no tensor."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.embed = nn.Embedding(config["vocab"], config["dim"])
        self.layers = nn.ModuleList(Block(config) for _ in range(config["layers"]))
        self.norm = Norm(config["dim"])
