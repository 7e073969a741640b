"""The model against the stock LitGPT `GPT`: same names, same shapes, same logits; and how it refuses.

Sizes are all different, and `n_head * head_size` is not `n_embd`, so that no transposed or misordered weight
can fit by accident. Prompts are far longer than the sliding window.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from porter.errors import MalformedError, UnsupportedError, UsageError
from porter.models import GPT, Config, KVCache, greedy
from porter.models import gpt as gpt_module

TOKENS = 600
WINDOW = 23

SIZES: dict[str, Any] = {
    "block_size": 640,
    "n_layer": 3,
    "n_embd": 40,
    "n_head": 6,
    "head_size": 10,
    "n_query_groups": 2,
    "intermediate_size": 56,
    "vocab_size": 97,
    "padded_vocab_size": 101,
}
RMS = {"norm_class_name": "RMSNorm", "bias": False, "parallel_residual": False, "rotary_percentage": 1.0}
GEMMA = RMS | {
    "norm_eps": 1e-6,
    "mlp_class_name": "GemmaMLP",
    "gelu_approximate": "tanh",
    "scale_embeddings": True,
}
MODELS: dict[str, dict[str, Any]] = {
    "gemma": SIZES | GEMMA | {"name": "Gemma-tiny", "n_query_groups": 1},
    "gemma2": SIZES
    | GEMMA
    | {
        "name": "Gemma-2-tiny",
        "post_attention_norm": True,
        "post_mlp_norm": True,
        "attention_scores_scalar": 14,
        "attention_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "sliding_window_size": WINDOW,
        "sliding_window_indices": [1, 0, 1],
    },
    "gemma3": SIZES
    | GEMMA
    | {
        "name": "Gemma-3-tiny",
        "n_layer": 7,
        "n_query_groups": 3,
        "post_attention_norm": True,
        "post_mlp_norm": True,
        "norm_qk": True,
        "attention_scores_scalar": 14,
        "sliding_window_size": WINDOW,
        "sliding_window_indices": [1, 1, 1, 1, 1, 0, 1],
        "rope_indices": [1, 1, 1, 1, 1, 0, 1],
        "rope_base": 1000000,
        "rope_local_base_freq": 10000,
        "rope_adjustments": {"factor": 8.0},
    },
    "llama3": SIZES
    | RMS
    | {
        "name": "Llama-3-tiny",
        "mlp_class_name": "LLaMAMLP",
        "rope_base": 500000,
        "rope_adjustments": {
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_seq_len": 64,
        },
    },
    "olmo": SIZES | RMS | {"name": "OLMo-tiny", "norm_class_name": "LayerNorm", "mlp_class_name": "LLaMAMLP"},
    "olmo2": SIZES
    | RMS
    | {
        "name": "OLMo-2-tiny",
        "mlp_class_name": "LLaMAMLP",
        "norm_1": False,
        "norm_2": False,
        "post_attention_norm": True,
        "post_mlp_norm": True,
        "norm_qk": True,
        "norm_qk_type": "olmo2",
    },
    "phi": SIZES
    | {
        "name": "phi-tiny",
        "shared_attention_norm": True,
        "lm_head_bias": True,
        "gelu_approximate": "tanh",
        "rotary_percentage": 0.4,
    },
    "mixtral": SIZES
    | RMS
    | {"name": "Mixtral-tiny", "mlp_class_name": "LLaMAMoE", "n_expert": 5, "n_expert_per_token": 2},
    "qwen3-moe": SIZES
    | RMS
    | {
        "name": "Qwen3-MoE-tiny",
        "mlp_class_name": "LLaMAMoE",
        "n_expert": 5,
        "n_expert_per_token": 3,
        "moe_intermediate_size": 31,
        "norm_qk": True,
    },
    "pythia": SIZES
    | {"name": "pythia-tiny", "n_query_groups": 6, "rotary_percentage": 0.4, "lm_head_bias": True},
}

# Float32 resolves 1.2e-7, and operations come in LitGPT's order: only a few roundings may differ.
TOLERANCE = 1e-6


def ids(count: int, vocab: int = SIZES["vocab_size"]) -> Tensor:
    return torch.randint(vocab, (1, count), generator=torch.Generator().manual_seed(7))


def weights(config: Config) -> dict[str, Tensor]:
    """Random weights that keep the residual stream, the attention and every norm far from trivial."""
    generator = torch.Generator().manual_seed(11)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in GPT(config).state_dict().items()}
    return {
        name: torch.randn(shape, generator=generator) * (0.4 if len(shape) == 1 else 2.0 / shape[-1] ** 0.5)
        for name, shape in shapes.items()
    }


def model(config: Config) -> GPT:
    with torch.device("meta"):
        made = GPT(config)
    made.load_state_dict(weights(config), strict=True, assign=True)
    return made


def litgpt_model(values: dict[str, Any]) -> Any:
    model_module = importlib.import_module("litgpt.model")
    config_module = importlib.import_module("litgpt.config")
    return model_module.GPT(config_module.Config(**values))


@functools.cache
def litgpt_logits(family: str) -> Tensor:
    peer = litgpt_model(MODELS[family])
    peer.load_state_dict(weights(Config.from_mapping(MODELS[family])), strict=True)
    with torch.inference_mode():
        logits: Tensor = peer(ids(TOKENS))
    return logits


@torch.inference_mode()
def difference_to_litgpt(family: str, **changes: Any) -> float:
    """max |Δ| / max |logit| over 600 tokens, with our config changed and the peer's not."""
    expected = litgpt_logits(family)
    config = Config.from_mapping(MODELS[family] | changes)
    logits = model(config)(ids(TOKENS))
    return float((logits - expected).abs().max() / expected.abs().max())


@pytest.mark.peer
@pytest.mark.parametrize("family", MODELS)
def test_names_and_shapes_are_litgpts(family: str) -> None:
    with torch.device("meta"):
        ours, theirs = GPT(Config.from_mapping(MODELS[family])), litgpt_model(MODELS[family])
    assert all(t.is_meta for t in ours.state_dict().values())
    assert {n: t.shape for n, t in ours.state_dict().items()} == {
        n: t.shape for n, t in theirs.state_dict().items()
    }


@pytest.mark.peer
@pytest.mark.parametrize("family", MODELS)
def test_logits_are_litgpts(family: str) -> None:
    assert difference_to_litgpt(family) <= TOLERANCE


@pytest.mark.peer
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_every_share_of_kv_heads_gives_litgpts_logits(groups: int) -> None:
    values = MODELS["gemma"] | {"n_query_groups": groups}
    config = Config.from_mapping(values)
    peer = litgpt_model(values)
    peer.load_state_dict(weights(config), strict=True)
    with torch.inference_mode():
        expected = peer(ids(TOKENS))
        difference = (model(config)(ids(TOKENS)) - expected).abs().max() / expected.abs().max()
    assert difference <= TOLERANCE


@pytest.mark.peer
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gemma", {"name": "tiny"}),  # the norm's +1 goes with the name
        ("gemma", {"norm_eps": 1e-2}),
        ("gemma", {"gelu_approximate": "none"}),
        ("gemma", {"mlp_class_name": "LLaMAMLP"}),
        ("gemma", {"scale_embeddings": False}),
        ("gemma", {"rope_base": 20000}),
        ("gemma2", {"attention_scores_scalar": None}),
        ("gemma2", {"attention_logit_softcapping": None}),
        ("gemma2", {"final_logit_softcapping": None}),
        ("gemma2", {"sliding_window_size": None}),
        ("gemma2", {"sliding_window_size": WINDOW + 1}),
        ("gemma2", {"sliding_window_indices": [0, 1, 0]}),
        ("gemma3", {"rope_base": 10000}),
        ("gemma3", {"rope_local_base_freq": 1000000}),
        ("gemma3", {"rope_indices": [1] * 7}),
        ("gemma3", {"rope_adjustments": None}),
        ("llama3", {"rope_adjustments": None}),
        ("llama3", {"rope_adjustments": {"factor": 32.0}}),
        ("pythia", {"parallel_residual": False}),
        ("pythia", {"rotary_percentage": 1.0}),
    ],
)
def test_one_wrong_hyperparameter_shows_in_the_logits(family: str, changes: dict[str, Any]) -> None:
    assert difference_to_litgpt(family, **changes) > 100 * TOLERANCE


@pytest.mark.peer
def test_swapped_gate_and_up_show_in_the_logits() -> None:
    swapped = model(Config.from_mapping(MODELS["gemma"]))
    for block in swapped.transformer.h:
        block.mlp.fc_1, block.mlp.fc_2 = block.mlp.fc_2, block.mlp.fc_1
    with torch.inference_mode():
        difference = (swapped(ids(TOKENS)) - litgpt_logits("gemma")).abs().max()
    assert difference > 100 * TOLERANCE * litgpt_logits("gemma").abs().max()


def test_the_embedding_scale_is_rounded_to_the_embeddings_dtype() -> None:
    made = model(Config.from_mapping(MODELS["gemma"])).to(torch.bfloat16)
    seen: list[Tensor] = []
    made.transformer.h[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    made(ids(5))
    embedded = made.transformer.wte(ids(5))
    assert torch.equal(seen[0], embedded * 6.3125)  # sqrt(40) = 6.3246 in eight significant bits
    assert not torch.equal(seen[0], embedded * 40**0.5)


@pytest.mark.parametrize("family", MODELS)
def test_a_token_never_sees_what_follows(family: str) -> None:
    made = model(Config.from_mapping(MODELS[family]))
    prompt = ids(50)
    other = prompt.clone()
    other[0, 40:] = 96 - other[0, 40:]
    with torch.inference_mode():
        left, right = made(prompt), made(other)
    torch.testing.assert_close(left[:, :40], right[:, :40], rtol=0, atol=1e-5)
    assert not torch.allclose(left[:, 40:], right[:, 40:], atol=1e-2)


@pytest.mark.parametrize("family", MODELS)
def test_a_cache_fed_in_pieces_gives_the_logits_of_the_whole_prompt(family: str) -> None:
    made = model(Config.from_mapping(MODELS[family]))
    cache = KVCache()
    with torch.inference_mode():
        whole = made(ids(200))
        pieces = torch.cat([made(piece, cache) for piece in ids(200).split([150, 1, 49], dim=1)], dim=1)
    # Looser than against the peer: a masked and a plain causal kernel sum in different orders.
    assert (whole - pieces).abs().max() <= 1e-5 * whole.abs().max()


@pytest.mark.parametrize("family", MODELS)
def test_greedy_takes_the_most_likely_token_each_time(family: str) -> None:
    made = model(Config.from_mapping(MODELS[family]))
    prompt = ids(3 * WINDOW)[0].tolist()
    expected: list[int] = []
    with torch.inference_mode():
        for _ in range(30):
            expected.append(int(made(torch.tensor([prompt + expected]))[0, -1].argmax()))
    assert greedy(made, prompt, 30) == expected
    stop = expected[4]
    assert greedy(made, prompt, 30, stop=[stop]) == expected[: expected.index(stop)]


def test_greedy_refuses_what_it_cannot_continue() -> None:
    made = model(Config.from_mapping(MODELS["gemma"]))
    with pytest.raises(UsageError, match="one id or more"):
        greedy(made, [], 1)
    with pytest.raises(UsageError, match="0 to 100"):
        greedy(made, [101], 1)
    with pytest.raises(UsageError, match="block_size 640"):
        greedy(made, [1], 640)
    with pytest.raises(UsageError, match="641 tokens"):
        made(ids(641))


def test_another_activation_moves_no_name_and_no_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    before = model(Config.from_mapping(MODELS["gemma"]))
    logits = before(ids(9))
    monkeypatch.setattr(gpt_module, "activation", lambda x, config: torch.relu(x))
    after = model(Config.from_mapping(MODELS["gemma"]))
    assert {n: t.shape for n, t in before.state_dict().items()} == {
        n: t.shape for n, t in after.state_dict().items()
    }
    assert not torch.allclose(after(ids(9)), logits, atol=1e-3)


def test_gradients_reach_every_weight() -> None:
    made = model(Config.from_mapping(MODELS["gemma3"]))
    made(ids(2 * WINDOW)).logsumexp(-1).sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


# --- checkpoints -------------------------------------------------------------------------------------


def checkpoint(directory: Path, family: str = "gemma", **replaced: Tensor | None) -> Path:
    tensors = weights(Config.from_mapping(MODELS[family])) | replaced
    save_file({n: t for n, t in tensors.items() if t is not None}, directory / "lit_model.safetensors")
    (directory / "model_config.yaml").write_text(yaml.safe_dump(MODELS[family]))
    return directory


@pytest.mark.parametrize("family", MODELS)
def test_a_checkpoint_loads_to_the_same_logits(tmp_path: Path, family: str) -> None:
    loaded = GPT.from_checkpoint(checkpoint(tmp_path, family))
    assert not any(t.is_meta for t in (*loaded.parameters(), *loaded.buffers()))
    with torch.inference_mode():
        assert torch.equal(loaded(ids(50)), model(Config.from_mapping(MODELS[family]))(ids(50)))


def test_a_checkpoint_keeps_its_dtype_unless_told(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    assert {p.dtype for p in GPT.from_checkpoint(tmp_path).parameters()} == {torch.float32}
    loaded = GPT.from_checkpoint(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


def test_a_head_left_out_is_tied_to_the_embedding(tmp_path: Path) -> None:
    loaded = GPT.from_checkpoint(checkpoint(tmp_path, **{"lm_head.weight": None}))
    assert loaded.lm_head.weight is loaded.transformer.wte.weight


def test_a_head_that_is_there_is_not_tied(tmp_path: Path) -> None:
    loaded = GPT.from_checkpoint(checkpoint(tmp_path))
    assert not torch.equal(loaded.lm_head.weight, loaded.transformer.wte.weight)


def test_every_tensor_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    replaced = {
        "transformer.h.1.norm_2.weight": None,
        "transformer.h.0.attn.proj.weight": torch.zeros(60, 40),
        "transformer.h.2.mlp.proj.weight": torch.zeros(40, 56, dtype=torch.int8),
        "transformer.h.0.attn.rotary.inv_freq": torch.zeros(5),
    }
    with pytest.raises(MalformedError) as caught:
        GPT.from_checkpoint(checkpoint(tmp_path, **replaced))
    cause = caught.value.cause or ""
    assert "missing transformer.h.1.norm_2.weight [40]" in cause
    assert "transformer.h.0.attn.proj.weight: expected shape [40, 60], found [60, 40]" in cause
    assert "transformer.h.2.mlp.proj.weight: expected a floating-point dtype, found torch.int8" in cause
    assert "unexpected transformer.h.0.attn.rotary.inv_freq [5]" in cause
    assert cause.count(";") == 3


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match=r"model_config\.yaml"):
        GPT.from_checkpoint(tmp_path)
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(MODELS["gemma"]))
    with pytest.raises(MalformedError, match=r"lit_model\.safetensors: no such file"):
        GPT.from_checkpoint(tmp_path)
    (tmp_path / "lit_model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(MalformedError, match=r"lit_model\.safetensors is malformed"):
        GPT.from_checkpoint(tmp_path)


# --- configs -----------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize(
    "values",
    [{}, *MODELS.values(), {"n_embd": 24, "n_head": 3, "vocab_size": 1000, "padding_multiple": 64}],
)
def test_fields_and_what_is_derived_from_them_are_litgpts(values: dict[str, Any], tmp_path: Path) -> None:
    config_module = importlib.import_module("litgpt.config")
    theirs = config_module.Config(**values)
    saved = tmp_path / "model_config.yaml"
    saved.write_text(yaml.dump(dataclasses.asdict(theirs)))
    ours = Config.from_mapping(values)
    for f in dataclasses.fields(theirs):
        value = getattr(theirs, f.name)
        assert getattr(ours, f.name) == (tuple(value) if isinstance(value, list) else value), f.name
    assert ours.rope_n_elem == theirs.rope_n_elem
    assert Config.from_file(saved) == ours


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="unknown field slidding_window_size"):
        Config.from_mapping(MODELS["gemma"] | {"slidding_window_size": 8})


@pytest.mark.parametrize(
    "changes",
    [
        {"n_shared_expert": 2},
        {"n_expert_groups": 2},
        {"first_k_dense_replace": 1},
        {"routed_scaling_factor": 2.5},
        {"latent_attention": {"q_lora_rank": 4}},
        {"rope_adjustments": {"factor": 4.0, "beta_fast": 32, "beta_slow": 1, "original_max_seq_len": 64}},
        {"rope_adjustments": {"low_freq_factor": 1.0}},
        {"rope_adjustments": {"factor": "8"}},
        {"norm_qk_type": "olmo3"},
        {"norm_class_name": "GroupNorm"},
        {"shared_attention_norm": True},
        {"gelu_approximate": "sigmoid"},
    ],
)
def test_what_the_model_does_not_implement_is_refused_by_field_and_value(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError) as caught:
        Config.from_mapping(MODELS["gemma"] | changes)
    field, value = next(iter(changes.items()))
    assert f"{field} = {value!r}" in caught.value.message


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"norm_eps": "1e-6"}, "norm_eps = '1e-6' has the wrong type"),
        ({"bias": 1}, "bias = 1 has the wrong type"),
        ({"n_layer": True}, "n_layer = True has the wrong type"),
        ({"n_layer": 0}, "must be positive"),
        ({"n_query_groups": 4}, "n_head 6 does not divide by n_query_groups 4"),
        ({"head_size": None}, "n_embd 40 does not divide by n_head 6"),
        ({"mlp_class_name": "LLaMAMLP", "intermediate_size": None}, "needs an intermediate_size"),
        ({"rotary_percentage": 0.5}, "5 rotary elements"),
        ({"sliding_window_size": 8, "sliding_window_indices": [1, 0]}, "each of 3 layers"),
        ({"sliding_window_size": 8, "sliding_window_indices": [1, 0, 2]}, "a 0 or a 1"),
        ({"mlp_class_name": "LLaMAMoE"}, "n_expert_per_token 0 of n_expert 0"),
        ({"rope_indices": [1, 0, 1]}, "rope_local_base_freq is not set"),
    ],
)
def test_a_contradictory_config_is_malformed(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(MalformedError, match=complaint):
        Config.from_mapping(MODELS["gemma"] | changes)


@pytest.mark.parametrize("text", ["", "- a list\n", "n_layer: [1\n"])
def test_a_config_file_must_hold_a_mapping(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_config.yaml").write_text(text)
    with pytest.raises(MalformedError, match=r"model_config\.yaml"):
        Config.from_file(tmp_path / "model_config.yaml")
