"""Hyperparameters in a dialect's words, and the refusal of what it cannot say."""

import pytest

from porter.config.write import spell_name
from porter.errors import UnsupportedError


def test_gemma_2b_in_litgpts_words(configs, gemma_2b):
    found = configs.read("gemma", "hf", gemma_2b, label="google/gemma-2b")
    written = configs.write("gemma", "litgpt", found)
    expected = {
        "name": "Gemma-2b",
        "n_layer": 18,
        "n_embd": 2048,
        "n_head": 8,
        "n_query_groups": 1,
        "head_size": 256,
        "intermediate_size": 16384,
        "padded_vocab_size": 256000,
        "vocab_size": 256000,
        "block_size": 8192,
        "norm_class_name": "RMSNorm",
        "norm_eps": 1e-6,
        "mlp_class_name": "GemmaMLP",
        "gelu_approximate": "tanh",
        "scale_embeddings": True,
        "rotary_percentage": 1.0,
        "rope_base": 10000,
        "parallel_residual": False,
        "bias": False,
        "post_attention_norm": False,
    }
    assert {name: written[name] for name in expected} == expected


def test_gemma3_in_litgpts_words(configs, gemma3):
    written = configs.write("gemma3_text", "litgpt", configs.read("gemma3_text", "hf", gemma3))
    assert written["sliding_window_indices"] == written["rope_indices"] == [1, 1, 1, 1, 1, 0, 1, 1]
    assert (written["rope_base"], written["rope_local_base_freq"]) == (1000000, 10000)
    assert isinstance(written["rope_base"], int)
    assert written["norm_qk"] is written["post_attention_norm"] is written["post_mlp_norm"] is True


def test_llama3_in_litgpts_words(configs, llama):
    written = configs.write("llama", "litgpt", configs.read("llama", "hf", llama))
    assert written["rope_adjustments"] == {
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_seq_len": 8192,
    }
    assert "name" in written and "Gemma" not in written["name"]


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("google/gemma-2b", "Gemma-2b"),
        ("gemma", "Gemma"),
        ("CodeGemma-7b-it", "CodeGemma-7b-it"),
        ("my GEMMA tune", "my-Gemma-tune"),
        ("out", "Gemma-out"),
        ("/", "Gemma-model"),
        ("", "Gemma-model"),
    ],
)
def test_litgpt_finds_gemmas_norm_by_the_models_name(configs, name, spelled):
    assert spell_name(name, ["Gemma"], ()) == spelled
    written = configs.write("gemma", "litgpt", configs.example("gemma", model_name=name))
    assert written["name"] == spelled


def test_litgpt_finds_olmos_norm_by_the_models_name(configs):
    """A LayerNorm loses its weight by the word; where there is RMSNorm, the word does nothing."""
    spelled = {
        family: configs.write(family, "litgpt", configs.example(family, model_name="tiny-OLMo"))["name"]
        for family in ("olmo", "stablelm", "llama")
    }
    assert spelled == {"olmo": "tiny-OLMo", "stablelm": "tiny-olmo", "llama": "tiny-OLMo"}
    assert "OLMo" in configs.write("olmo", "litgpt", configs.example("olmo"))["name"]


def test_windows_on_no_layer_are_none(configs):
    wanted = configs.example("mistral", sliding_window=13, sliding_layers=[False] * 7)
    assert configs.write("mistral", "hf", wanted)["sliding_window"] is None
    kept = configs.example("mistral", sliding_window=13, sliding_layers=[True] * 7)
    assert configs.write("mistral", "hf", kept)["sliding_window"] == 13


@pytest.mark.parametrize("name", ["Gemma", "org/Llama-3-Gemma-merge"])
def test_a_llama_that_is_called_after_another_model_is_spelled_so_that_litgpt_is_not_misled(configs, name):
    written = configs.write("llama", "litgpt", configs.example("llama", model_name=name))
    assert "Gemma" not in written["name"]
    assert written["name"].lower() == name.rsplit("/", 1)[-1].lower()
    again = configs.read(
        "llama", "litgpt", written, configs.shapes("llama", "litgpt", configs.example("llama"))
    )
    assert again["norm_offset"] == 0


def test_the_dtype_of_the_weights_is_stated(configs):
    written = configs.write("llama", "hf", configs.example("llama"), weights_dtype="float16")
    assert written["torch_dtype"] == "float16"


# What is asked of the target, and a part of the answer.
INEXPRESSIBLE = {
    "gemma's attention biases in LitGPT": (
        "gemma",
        "litgpt",
        {"attention_bias": True, "attention_out_bias": True},
        "bias",
    ),
    "one bias of three in LitGPT": ("llama", "litgpt", {"attention_out_bias": True}, "mlp_bias"),
    "a bias on o but not on qkv in transformers": ("llama", "hf", {"attention_out_bias": True}, "attention"),
    "experts with GELU in LitGPT": ("mixtral", "litgpt", {"activation": "gelu"}, "activation = 'gelu'"),
    "a plain MLP with SiLU in LitGPT": ("phi", "litgpt", {"activation": "silu"}, "activation = 'silu'"),
    "experts that do not add up to 1 in LitGPT": (
        "qwen3_moe",
        "litgpt",
        {"norm_expert_weights": False},
        "norm_expert_weights",
    ),
    "ReLU in a Gemma of LitGPT": ("gemma", "litgpt", {"activation": "relu"}, "activation = 'relu'"),
    "exact GELU in a Gemma of transformers": ("gemma", "hf", {"activation": "gelu"}, "activation"),
    "YaRN in LitGPT": ("llama", "litgpt", {"rope_type": "yarn", "rope_factor": 4.0}, "rope_type = 'yarn'"),
    "LongRoPE in LitGPT": ("llama", "litgpt", {"rope_type": "longrope"}, "rope_type = 'longrope'"),
    "query_scale in Gemma 1 of transformers": ("gemma", "hf", {"query_scale": 144}, "query_scale = 144"),
    "query_scale in Llama of transformers": ("llama", "hf", {"query_scale": 7}, "query_scale = 7"),
    "a sliding window in Llama of transformers": (
        "llama",
        "hf",
        {"sliding_window": 13, "sliding_layers": [True] * 7},
        "sliding_window = 13",
    ),
    "soft-caps in Llama of transformers": ("llama", "hf", {"attn_softcap": 50.0}, "attn_softcap = 50.0"),
    "a partial rotary in Llama of transformers": (
        "llama",
        "hf",
        {"rotary_percentage": 0.5},
        "rotary_percentage",
    ),
    "positions condensed beside Llama 3's scaling in transformers": (
        "llama",
        "hf",
        {
            "rope_condense": 2,
            "rope_type": "llama3",
            "rope_factor": 8.0,
            "rope_low_freq_factor": 1.0,
            "rope_high_freq_factor": 4.0,
            "rope_original_context": 64,
        },
        "rope_condense = 2",
    ),
    "side by side in Llama of transformers": (
        "llama",
        "hf",
        {"parallel_residual": True},
        "parallel_residual",
    ),
    "LayerNorm in Llama of transformers": ("llama", "hf", {"norm_type": "layer"}, "norm_type = 'layer'"),
    "LayerNorm with 1 + w in LitGPT": ("stablelm", "litgpt", {"norm_offset": 1}, "norm_offset = 1"),
    "attention in both directions in LitGPT": (
        "gemma",
        "litgpt",
        {"bidirectional": True},
        "bidirectional = True",
    ),
    "local RoPE on layers of its own": (
        "gemma3_text",
        "hf",
        {"rope_local_layers": [False] * 7},
        "rope_local",
    ),
    "scaled local RoPE in LitGPT": (
        "gemma3_text",
        "litgpt",
        {"rope_local_type": "linear"},
        "rope_local_type",
    ),
    "scaled embeddings in Llama of transformers": (
        "llama",
        "hf",
        {"scale_embeddings": True},
        "scale_embeddings",
    ),
    "an MLP with biases in Gemma of transformers": ("gemma", "hf", {"mlp_bias": True}, "mlp_bias = True"),
    "no biases in GPT-NeoX of transformers": ("gpt_neox", "hf", {"mlp_bias": False}, "mlp_bias = False"),
}


@pytest.mark.parametrize("case", INEXPRESSIBLE)
def test_what_the_target_cannot_express_is_an_error_and_no_silence(configs, case):
    family, dialect, changes, part = INEXPRESSIBLE[case]
    shapes = configs.shapes(family, dialect, configs.example(family))
    with pytest.raises(UnsupportedError) as caught:
        configs.write(family, dialect, configs.example(family, **changes), shapes=shapes)
    assert caught.value.exit_code == 5
    assert "cannot express" in caught.value.message
    assert part in f"{caught.value.message} {caught.value.cause}"


def test_each_refusal_comes_of_its_change(configs):
    """Negative control: the examples themselves are expressed."""
    for family, dialect, _, _ in INEXPRESSIBLE.values():
        configs.write(family, dialect, configs.example(family))


def test_litgpts_own_scale_does_not_survive_in_gemma1_of_transformers(configs):
    raw = configs.write("gemma", "litgpt", configs.example("gemma")) | {"attention_scores_scalar": 144}
    found = configs.read("gemma", "litgpt", raw)
    assert found["query_scale"] == 144
    with pytest.raises(UnsupportedError, match="query_scale = 144") as caught:
        configs.write("gemma", "hf", found)
    assert "fixes it to 10" in caught.value.cause
    assert caught.value.hint


def test_names_and_token_ids_may_be_left_out(configs):
    """They do not change what is computed; a dialect without a place for them is no error."""
    named = configs.example("llama", model_name="x", bos_token_id=3, eos_token_id=[4, 5], pad_token_id=None)
    hf = configs.write("llama", "hf", named)
    assert (hf["bos_token_id"], hf["eos_token_id"]) == (3, [4, 5])
    assert "pad_token_id" not in hf
