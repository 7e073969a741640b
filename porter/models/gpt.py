"""A decoder-only transformer with LitGPT's parameter names, for all of its models but for latent attention.

It promises the names, shapes and float32 logits of LitGPT's `GPT` for every `Config` that can be made. It
holds no buffers: rotary angles and masks are computed for the positions at hand, so a model built under
`torch.device("meta")` is complete as soon as its weights are assigned. Prompts may be longer than the
sliding window, with and without a cache. It does not promise to be the fastest.

The file is meant to be changed by hand, top to bottom:

    activation → rope, mask → norms → Attention → MLPs, experts → Block → Transformer → GPT, KVCache → loading

In the shapes, B is the batch, T the new tokens, S all tokens so far, H the query heads, K the kv heads
(query groups), h the head size, D `n_embd`, F `intermediate_size`, E `n_expert`, V `padded_vocab_size`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from porter.errors import MalformedError, UsageError
from porter.models.config import Config
from porter.models.read_weights import read_tensors, weights_path


def activation(x: Tensor, config: Config) -> Tensor:
    """The MLP's nonlinearity. To try another, change the `return`: no name and no shape depends on it."""
    swish = config.mlp_class_name in ("LLaMAMLP", "LLaMAMoE")
    return F.silu(x) if swish else F.gelu(x, approximate=config.gelu_approximate)


def soft_cap(x: Tensor, cap: float | None) -> Tensor:
    """`x` squeezed smoothly into (-cap, cap)."""
    return x if cap is None else torch.tanh(x / cap) * cap


def rope_cos_sin(config: Config, positions: Tensor, *, local: bool) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles in float32, each (T, rope_n_elem), halves repeated."""
    n = config.rope_n_elem
    local_base = config.rope_local_base_freq if local else None
    base = config.rope_base if local_base is None else local_base
    frequency = 1.0 / (base ** (torch.arange(0, n, 2, device=positions.device).float() / n))
    # Context extension stretches the global angles only: a local layer never looks far.
    if config.rope_adjustments and not local:
        frequency = stretch(frequency, **config.rope_adjustments)
    angle = torch.outer(positions.float() / config.rope_condense_ratio, frequency).repeat(1, 2)
    return torch.cos(angle), torch.sin(angle)


def stretch(
    frequency: Tensor,
    factor: float,
    low_freq_factor: float | None = None,
    high_freq_factor: float | None = None,
    original_max_seq_len: int | None = None,
) -> Tensor:
    """Linear RoPE scaling by `factor`, or with all four values Llama 3's, which spares high frequencies."""
    if low_freq_factor is None or high_freq_factor is None or original_max_seq_len is None:
        return frequency / factor
    turns = original_max_seq_len / (2 * torch.pi / frequency)
    keep = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(min=0.0, max=1.0)
    return (1 - keep) * (frequency / factor) + keep * frequency


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool) -> Tensor:
    """`x` (B, heads, T, h) with its first `rope_n_elem` elements rotated, one half against the other.

    Where neighbours make pairs (`interleaved`), they are sorted into halves first: q and k alike, so that no
    score changes.
    """
    n = cos.shape[-1]
    turned, still = x[..., :n], x[..., n:]
    if interleaved:
        turned = torch.cat((turned[..., ::2], turned[..., 1::2]), dim=-1)
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned.to(x.dtype), still), dim=-1)


def causal_mask(start: int, total: int, window: int | None, device: torch.device) -> Tensor:
    """True where a query (T) may see a key (S): its own position and what is before it, `window` in all."""
    query = torch.arange(start, total, device=device)[:, None]
    key = torch.arange(total, device=device)
    seen = key <= query
    return seen if window is None else seen & (key > query - window)


class RMSNorm(nn.Module):
    """`x / rms(x)` times the weight, or times one plus the weight (Gemma)."""

    def __init__(self, size: int, eps: float, unit_offset: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size) if unit_offset else torch.ones(size))
        self.eps = eps
        self.unit_offset = unit_offset

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(torch.mean(wide * wide, dim=-1, keepdim=True) + self.eps)
        # Widen before adding one: in bfloat16 the sum would lose most of a small weight.
        weight = self.weight.float()
        return (normed * (1 + weight if self.unit_offset else weight)).to(x.dtype)


def make_norm(config: Config, size: int) -> nn.Module:
    if config.norm_class_name == "LayerNorm":
        # OLMo's has neither weight nor bias.
        return nn.LayerNorm(size, eps=config.norm_eps, elementwise_affine="OLMo" not in config.name)
    return RMSNorm(size, config.norm_eps, config.unit_offset_norm)


class Attention(nn.Module):
    """Causal self-attention; one kv head serves H / K query heads."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        h = config.head_size
        # Rows: all query heads, then all key heads, then all value heads.
        self.heads = (config.n_head, config.n_query_groups, config.n_query_groups)
        self.qkv = nn.Linear(config.n_embd, sum(self.heads) * h, bias=config.bias or config.attn_bias)
        self.proj = nn.Linear(config.n_head * h, config.n_embd, bias=config.bias)
        # OLMo 2 norms all heads together, others each head on its own.
        self.whole = config.norm_qk_type == "olmo2"
        q, k = (heads * h if self.whole else h for heads in self.heads[:2])
        self.norm_q = make_norm(config, q) if config.norm_qk else nn.Identity()
        self.norm_k = make_norm(config, k) if config.norm_qk else nn.Identity()

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        h = self.config.head_size
        q, k, v = self.qkv(x).split([heads * h for heads in self.heads], dim=-1)
        if self.whole:
            q, k = self.norm_q(q), self.norm_k(k)
        q, k, v = (part.unflatten(-1, (-1, h)).transpose(1, 2) for part in (q, k, v))  # (B, H or K, T, h)
        if not self.whole:
            q, k = self.norm_q(q), self.norm_k(k)
        q, k = (rotate(t, *rope, interleaved=self.config.rope_interleave) for t in (q, k))
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, K, S, h)
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        out: Tensor = self.proj(self.attend(q, k, v, mask).transpose(1, 2).flatten(2))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """(B, H, T, h) from q (B, H, T, h) and k, v (B, H, S, h); no mask means causal, T = S, no cap."""
        scale = 1.0 / math.sqrt(self.config.attention_scores_scalar or self.config.head_size)
        cap = self.config.attention_logit_softcapping
        if cap is None:
            return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale)
        assert mask is not None
        scores = soft_cap(q @ k.mT * scale, cap).masked_fill(~mask, -math.inf)
        return F.softmax(scores, dim=-1, dtype=torch.float).to(q.dtype) @ v


class GatedMLP(nn.Module):
    """SwiGLU or GeGLU: `fc_1` is the gate, `fc_2` goes up, `proj` comes down."""

    def __init__(self, config: Config, size: int | None = None) -> None:
        super().__init__()
        self.config = config
        size = size or config.intermediate_size
        self.fc_1 = nn.Linear(config.n_embd, size, bias=config.bias)
        self.fc_2 = nn.Linear(config.n_embd, size, bias=config.bias)
        self.proj = nn.Linear(size, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(activation(self.fc_1(x), self.config) * self.fc_2(x))
        return out


class PlainMLP(nn.Module):
    """GPT-NeoX's two layers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.fc = nn.Linear(config.n_embd, config.intermediate_size, bias=config.bias)
        self.proj = nn.Linear(config.intermediate_size, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(activation(self.fc(x), self.config))
        return out


class Experts(nn.Module):
    """Gated MLPs, of which each token takes the `n_expert_per_token` that the router (E, D) rates highest.

    Their outputs are added up by a softmax over the ratings of those that were chosen.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.gate = nn.Linear(config.n_embd, config.n_expert, bias=False)
        size = config.moe_intermediate_size
        self.experts = nn.ModuleList(GatedMLP(config, size) for _ in range(config.n_expert))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, -2)  # (B T, D)
        ratings, chosen = torch.topk(self.gate(tokens), self.config.n_expert_per_token)
        shares = F.softmax(ratings, dim=-1, dtype=torch.float).to(x.dtype)
        out = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            out[token] += shares[token, place, None] * expert(tokens[token])
        return out.view_as(x)


def make_mlp(config: Config) -> nn.Module:
    kinds: dict[str, type[PlainMLP] | type[Experts]] = {"GptNeoxMLP": PlainMLP, "LLaMAMoE": Experts}
    return kinds.get(config.mlp_class_name, GatedMLP)(config)


class Block(nn.Module):
    """Attention and MLP, one after the other, or side by side (`parallel_residual`).

    Side by side they may share one norm before them. Norms may stand before each, and behind each.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.config = config
        size = config.n_embd
        self.norm_1 = make_norm(config, size) if config.norm_1 else nn.Identity()
        self.attn = Attention(config, layer)
        self.post_attention_norm = make_norm(config, size) if config.post_attention_norm else nn.Identity()
        own = config.norm_2 and not config.shared_attention_norm
        self.norm_2 = make_norm(config, size) if own else nn.Identity()
        self.mlp = make_mlp(config)
        self.post_mlp_norm = make_norm(config, size) if config.post_mlp_norm else nn.Identity()

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        normed = self.norm_1(x)
        attended = self.post_attention_norm(self.attn(normed, rope, mask, cache)) + x
        if not self.config.shared_attention_norm:
            normed = self.norm_2(x if self.config.parallel_residual else attended)
        out: Tensor = self.post_mlp_norm(self.mlp(normed)) + attended
        return out


class Transformer(nn.Module):
    """Everything below the head: token ids (B, T) to normed hidden states (B, T, D)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = make_norm(config, config.n_embd)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        config = self.config
        start = 0 if cache is None else cache.length
        total = start + ids.shape[1]
        if total > config.block_size:
            raise UsageError(
                f"{total} tokens are more than the {config.block_size} that the model was made for",
                hint="block_size in model_config.yaml is this limit",
            )
        x = self.wte(ids)
        if config.scale_embeddings:
            # Rounded to the embedding's dtype, as in training: in bfloat16 sqrt(3072) is 55.5.
            x = x * torch.tensor(config.n_embd**0.5, dtype=x.dtype, device=x.device)

        layers = range(config.n_layer)
        positions = torch.arange(start, total, device=ids.device)
        ropes = {
            local: rope_cos_sin(config, positions, local=local)
            for local in set(map(config.local_rope, layers))
        }
        masks: dict[int | None, Tensor | None] = {
            window: causal_mask(start, total, window, ids.device)
            for window in set(map(config.window, layers))
        }
        if start == 0 and config.attention_logit_softcapping is None:
            masks[None] = None  # layers that see everything may then run the fast causal kernels
        for layer, block in enumerate(self.h):
            x = block(x, ropes[config.local_rope(layer)], masks[config.window(layer)], cache)
        out: Tensor = self.ln_f(x)
        return out


class GPT(nn.Module):
    """Token ids (B, T) to logits (B, T, V) of the next token at each position."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=config.lm_head_bias)
        self.transformer = Transformer(config)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """With a cache, `ids` continue what it has seen, and are added to it."""
        return soft_cap(self.lm_head(self.transformer(ids, cache)), self.config.final_logit_softcapping)

    @classmethod
    def from_checkpoint(
        cls, directory: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> GPT:
        """The model in a directory with `lit_model.safetensors` (or `.pth`) and `model_config.yaml`.

        Weights keep the file's dtype unless `dtype` is given. Where the file leaves `lm_head.weight` out, or
        lets it share the embedding's storage, the head is tied to the embedding. Raises `UnsupportedError`
        for a config that the model does not implement, `MalformedError` for a file whose names or shapes are
        not exactly the model's.
        """
        directory = Path(directory)
        config = Config.from_file(directory / "model_config.yaml")
        with torch.device("meta"):
            model = cls(config)
        path = weights_path(directory)
        tensors = read_tensors(path, device)
        if "transformer.wte.weight" in tensors:
            tensors.setdefault("lm_head.weight", tensors["transformer.wte.weight"])
        require_match(model.state_dict(), tensors, path)
        tied = tensors["lm_head.weight"] is tensors["transformer.wte.weight"]
        model.load_state_dict({name: t.to(dtype) for name, t in tensors.items()}, strict=True, assign=True)
        if tied:
            model.lm_head.weight = model.transformer.wte.weight
        return model


class KVCache:
    """The keys and values of the tokens seen so far, each (B, K, S, h) per layer.

    Layers with a sliding window keep every token too: the mask alone decides what they see, so a prompt may
    be any length and come in any number of pieces.
    """

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of this layer, the new ones last."""
        if layer in self.layers:
            past_k, past_v = self.layers[layer]
            k, v = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)
        self.layers[layer] = k, v
        return k, v


def require_match(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Raise `MalformedError`, which lists every tensor that is missing, unexpected or misshapen."""
    faults = [f"missing {name} {list(t.shape)}" for name, t in expected.items() if name not in found]
    faults += [f"unexpected {name} {list(t.shape)}" for name, t in found.items() if name not in expected]
    for name in expected.keys() & found.keys():
        want, got = expected[name], found[name]
        if want.shape != got.shape:
            faults.append(f"{name}: expected shape {list(want.shape)}, found {list(got.shape)}")
        elif not got.is_floating_point():
            faults.append(f"{name}: expected a floating-point dtype, found {got.dtype}")
    if faults:
        raise MalformedError(
            f"{path}: {len(faults)} tensors do not fit the model",
            cause="; ".join(sorted(faults)),
            hint="model_config.yaml and the weights must come from the same conversion",
        )
