"""The hyperparameters of `porter.models.gpt.GPT`, under the names and defaults of LitGPT's `Config`.

A `Config` that exists is one that the model computes exactly as LitGPT does: a field that LitGPT does not
know, and a value that the model does not implement, raise `UnsupportedError`; a value of the wrong type, or
one that contradicts another, raises `MalformedError`. Fields that LitGPT derives when they are left out
(`head_size`, `padded_vocab_size`, `n_query_groups`, `intermediate_size`, …) are resolved on construction.

Source of the names, defaults and derivations: `litgpt/config.py`, release 0.5.13.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from porter.errors import MalformedError, ModelLacksError, UnsupportedError
from porter.reading.regular import read_regular
from porter.reading.yaml_text import MAX_BYTES, parse_yaml

# Known to LitGPT, absent from the model: accepted only at the default, where they change nothing.
NOT_IMPLEMENTED = (
    "latent_attention",
    "n_shared_expert",
    "n_expert_groups",
    "n_topk_groups",
    "n_topk_scores_per_group",
    "first_k_dense_replace",
    "routed_scaling_factor",
)
CHOICES = {
    "norm_qk_type": ("default", "olmo2"),
    "norm_class_name": ("LayerNorm", "RMSNorm"),
    "mlp_class_name": ("GptNeoxMLP", "LLaMAMLP", "GemmaMLP", "LLaMAMoE"),
    "gelu_approximate": ("none", "tanh"),
}
LINEAR_ROPE = {"factor"}
LLAMA3_ROPE = {"factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """One model's hyperparameters; sizes in elements, positions in tokens."""

    name: str = ""
    hf_config: dict[str, Any] = field(default_factory=dict, hash=False)
    block_size: int = 4096
    n_layer: int = 16
    n_embd: int = 4096
    vocab_size: int = 50254
    padding_multiple: int = 512
    padded_vocab_size: int = None  # type: ignore[assignment]  # vocab_size, rounded up to padding_multiple
    norm_class_name: str = "LayerNorm"
    norm_eps: float = 1e-5
    norm_qk: bool = False
    norm_qk_type: str = "default"
    post_attention_norm: bool = False
    post_mlp_norm: bool = False
    parallel_residual: bool = True
    shared_attention_norm: bool = False
    n_head: int = 32
    head_size: int = None  # type: ignore[assignment]  # n_embd / n_head
    n_query_groups: int = None  # type: ignore[assignment]  # n_head
    attn_bias: bool = False
    attention_scores_scalar: float | None = None
    sliding_window_size: int | None = None
    sliding_window_indices: tuple[int, ...] | None = None
    attention_logit_softcapping: float | None = None
    rope_base: float = 10000
    rotary_percentage: float = 0.25
    rope_condense_ratio: float = 1
    rope_adjustments: dict[str, Any] | None = field(default=None, hash=False)
    rope_interleave: bool = False
    intermediate_size: int = None  # type: ignore[assignment]  # 4 n_embd, except for LLaMAMLP
    moe_intermediate_size: int | None = None
    bias: bool = True
    mlp_class_name: str = "GptNeoxMLP"
    gelu_approximate: str = "none"
    n_expert: int = 0
    n_shared_expert: int | None = None
    n_expert_groups: int | None = None
    n_topk_groups: int | None = None
    n_topk_scores_per_group: int | None = None
    n_expert_per_token: int = 0
    first_k_dense_replace: int | None = None
    routed_scaling_factor: float = 1.0
    norm_topk_prob: bool = False
    scale_embeddings: bool = False
    lm_head_bias: bool = False
    final_logit_softcapping: float | None = None
    norm_1: bool = True
    norm_2: bool = True
    latent_attention: dict[str, Any] | None = field(default=None, hash=False)
    rope_local_base_freq: float | None = None
    rope_indices: tuple[int, ...] | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> Config:
        """The config in a LitGPT `model_config.yaml`."""
        path = Path(path)
        try:
            text = read_regular(path, str(path), MAX_BYTES)
        except MalformedError as error:
            error.hint = error.hint or "a LitGPT checkpoint directory holds a model_config.yaml"
            raise
        values = parse_yaml(text, str(path))
        if not isinstance(values, dict):
            raise MalformedError(f"{path}: expected a mapping of fields, found {type(values).__name__}")
        return cls.from_mapping(values)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Config:
        """The config with these fields; what is left out has LitGPT's default."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown:
            raise UnsupportedError(
                f"model config: unknown field {', '.join(unknown)}",
                cause="a field that the model does not read might change what LitGPT computes",
                hint="remove the field if it is a misspelling or has no effect",
            )
        hints = typing.get_type_hints(cls)
        checked: dict[str, Any] = {}
        for key, value in values.items():
            value = tuple(value) if isinstance(value, list) else value
            if not (value is None and known[key].default is None) and not _fits(value, hints[key]):
                raise MalformedError(
                    f"model config: {key} = {value!r} has the wrong type",
                    cause=f"expected {known[key].type}, found {type(value).__name__}",
                    hint="YAML reads 1e-6 as text: write 1.0e-06" if isinstance(value, str) else None,
                )
            checked[key] = value
        return cls(**checked)

    def __post_init__(self) -> None:
        self._refuse_what_is_not_implemented()
        self._require(
            all(n > 0 for n in (self.block_size, self.n_layer, self.n_embd, self.vocab_size, self.n_head)),
            "block_size, n_layer, n_embd, vocab_size and n_head must be positive",
        )
        if not self.name:
            self._resolve(name=self.hf_config.get("name", ""))
        if self.head_size is None:
            self._require(
                self.n_embd % self.n_head == 0,
                f"n_embd {self.n_embd} does not divide by n_head {self.n_head}",
            )
            self._resolve(head_size=self.n_embd // self.n_head)
        if self.padded_vocab_size is None:
            multiples = -(-self.vocab_size // self.padding_multiple)
            self._resolve(padded_vocab_size=multiples * self.padding_multiple)
        self._resolve(vocab_size=min(self.vocab_size, self.padded_vocab_size))
        if self.n_query_groups is None:
            self._resolve(n_query_groups=self.n_head)
        self._require(
            self.n_query_groups > 0 and self.n_head % self.n_query_groups == 0,
            f"n_head {self.n_head} does not divide by n_query_groups {self.n_query_groups}",
        )
        if self.intermediate_size is None:
            self._require(self.mlp_class_name != "LLaMAMLP", "LLaMAMLP needs an intermediate_size")
            self._resolve(intermediate_size=4 * self.n_embd)
        self._require(self.rope_n_elem % 2 == 0, f"{self.rope_n_elem} rotary elements do not make pairs")
        if self.mlp_class_name == "LLaMAMoE":
            self._require(
                0 < self.n_expert_per_token <= self.n_expert,
                f"n_expert_per_token {self.n_expert_per_token} of n_expert {self.n_expert} cannot be chosen",
            )
        if self.sliding_window_size is not None:
            self._require(self.sliding_window_size > 0, "sliding_window_size must be positive")
            self._resolve(sliding_window_indices=self._per_layer("sliding_window_indices"))
        if self.rope_local_base_freq is not None:
            self._resolve(rope_indices=self._per_layer("rope_indices"))
        self._require(
            self.rope_indices is None or self.rope_local_base_freq is not None,
            "rope_indices choose between two RoPE bases, but rope_local_base_freq is not set",
        )

    @property
    def rope_n_elem(self) -> int:
        """How many leading elements of each head are rotated."""
        return int(self.rotary_percentage * self.head_size)

    @property
    def unit_offset_norm(self) -> bool:
        """Whether RMSNorm multiplies by `1 + weight`; LitGPT has no field for it and goes by the name."""
        return "Gemma" in self.name

    def window(self, layer: int) -> int | None:
        """How many positions, its own included, a token of this layer attends to; None for all before it."""
        if self.sliding_window_size is None or self.sliding_window_indices is None:
            return None
        return self.sliding_window_size if self.sliding_window_indices[layer] else None

    def local_rope(self, layer: int) -> bool:
        """Whether this layer rotates by `rope_local_base_freq` instead of `rope_base`."""
        return self.rope_indices is not None and self.rope_indices[layer] == 1

    def _refuse_what_is_not_implemented(self) -> None:
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        refused = [key for key in NOT_IMPLEMENTED if getattr(self, key) != defaults[key]]
        refused += [key for key, choices in CHOICES.items() if getattr(self, key) not in choices]
        if self.shared_attention_norm and not self.parallel_residual:
            # LitGPT refuses it as well.
            refused.append("shared_attention_norm")
        rope = self.rope_adjustments
        if rope and (
            set(rope) not in (LINEAR_ROPE, LLAMA3_ROPE) or not all(_fits(v, float) for v in rope.values())
        ):
            refused.append("rope_adjustments")
        if refused:
            raise ModelLacksError(
                "model config: not implemented: " + ", ".join(f"{k} = {getattr(self, k)!r}" for k in refused),
                cause=f"the model {self.name!r} would compute something else without it",
                hint="run this checkpoint with litgpt, or add the missing part to porter/models/gpt.py",
            )

    def _per_layer(self, key: str) -> tuple[int, ...]:
        flags: Sequence[int] | None = getattr(self, key)
        flags = (1,) * self.n_layer if flags is None else tuple(flags[: self.n_layer])
        self._require(
            len(flags) == self.n_layer and set(flags) <= {0, 1},
            f"{key} must hold a 0 or a 1 for each of {self.n_layer} layers, found {list(flags)}",
        )
        return flags

    def _require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise MalformedError(f"model config {self.name!r}: {otherwise}")

    def _resolve(self, **values: Any) -> None:
        for key, value in values.items():
            object.__setattr__(self, key, value)


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    if kind is tuple:
        return isinstance(value, tuple) and all(_fits(item, int) for item in value)
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)
