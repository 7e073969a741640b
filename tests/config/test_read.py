"""Published configs, read into canonical hyperparameters: fields, defaults, what a dialect fixes in code."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porter.config.raw import get, load_mapping, put, shortest_float32
from porter.errors import MalformedError, UnsupportedError


def test_gemma_2b(configs, gemma_2b):
    found = configs.read("gemma", "hf", gemma_2b, label="google/gemma-2b")
    expected = {
        "n_layer": 18,
        "d_model": 2048,
        "n_head": 8,
        "n_kv_head": 1,
        "head_dim": 256,
        "d_ff": 16384,
        "vocab_size": 256000,
        "context_length": 8192,
        "norm_type": "rms",
        "norm_eps": 1e-6,
        "norm_offset": 1,
        "activation": "gelu_tanh",
        "query_scale": 256,
        "scale_embeddings": True,
        "tie_embeddings": True,
        "rope_theta": 10000.0,
        "rope_type": "default",
        "rope_local_theta": None,
        "sliding_window": None,
        "attn_softcap": None,
        "model_name": "google/gemma-2b",
        "bos_token_id": 2,
    }
    assert {name: found[name] for name in expected} == expected


def test_the_same_model_in_litgpts_words(configs, gemma_2b):
    """LitGPT's own entry for Gemma-2b, as its `model_config.yaml` would hold it."""
    litgpt = {
        "name": "Gemma-2b",
        "hf_config": {"org": "google", "name": "gemma-2b"},
        "scale_embeddings": True,
        "vocab_size": 256000,
        "padding_multiple": 64,
        "padded_vocab_size": 256000,
        "block_size": 8192,
        "n_embd": 2048,
        "n_layer": 18,
        "n_head": 8,
        "n_query_groups": 1,
        "head_size": 256,
        "rotary_percentage": 1.0,
        "parallel_residual": False,
        "bias": False,
        "norm_class_name": "RMSNorm",
        "norm_eps": 1e-6,
        "mlp_class_name": "GemmaMLP",
        "gelu_approximate": "tanh",
        "intermediate_size": 16384,
    }
    ours = configs.computing("gemma", configs.read("gemma", "litgpt", litgpt))
    theirs = configs.computing("gemma", configs.read("gemma", "hf", gemma_2b))
    assert ours == theirs
    # Negative control: a LitGPT entry that leaves the norm's epsilon out means another one.
    del litgpt["norm_eps"]
    assert configs.read("gemma", "litgpt", litgpt)["norm_eps"] == 1e-5


DEFAULTS = [
    ("gemma", "hf", "norm_eps", 1e-6),
    ("gemma", "hf", "n_kv_head", 16),
    ("gemma", "hf", "tie_embeddings", True),
    ("llama", "hf", "norm_eps", 1e-6),
    ("llama", "hf", "tie_embeddings", False),
    ("llama", "hf", "rope_theta", 10000.0),
    ("llama", "litgpt", "norm_eps", 1e-5),
    ("llama", "litgpt", "rotary_percentage", 0.25),
    ("llama", "litgpt", "parallel_residual", True),
    ("llama", "litgpt", "mlp_bias", True),
    ("gpt_neox", "hf", "norm_eps", 1e-5),
    ("gpt_neox", "hf", "rotary_percentage", 0.25),
    ("gpt_neox", "hf", "parallel_residual", True),
    ("gemma2", "hf", "query_scale", 256),
    ("gemma2", "hf", "sliding_window", 4096),
    ("gemma3_text", "hf", "rope_theta", 1e6),
    ("gemma3_text", "hf", "rope_local_theta", 10000.0),
]

SIZES = {
    "hf": {
        "num_hidden_layers": 3,
        "hidden_size": 64,
        "num_attention_heads": 16,
        "intermediate_size": 9,
        "vocab_size": 5,
        "max_position_embeddings": 7,
    },
    "litgpt": {"n_layer": 3, "n_embd": 64, "n_head": 16, "padded_vocab_size": 5, "name": "x"},
}


@pytest.mark.parametrize(("family", "dialect", "name", "value"), DEFAULTS)
def test_what_a_dialect_means_by_leaving_a_field_out(configs, family, dialect, name, value):
    assert configs.read(family, dialect, SIZES[dialect])[name] == value


def test_defaults_that_follow_from_other_fields(configs):
    found = configs.read("llama", "hf", SIZES["hf"])
    assert (found["n_kv_head"], found["head_dim"], found["query_scale"]) == (16, 4, 4)
    found = configs.read("llama", "litgpt", SIZES["litgpt"])
    assert (found["d_ff"], found["head_dim"]) == (4 * 64, 4)


def test_head_dim_that_does_not_divide_is_the_configs_fault(configs):
    with pytest.raises(MalformedError, match="head_dim cannot be derived") as caught:
        configs.read("llama", "hf", SIZES["hf"] | {"hidden_size": 65})
    assert "65 / 16 is not a whole number" in caught.value.cause


def test_gemma1_computes_the_tanh_gelu_whatever_the_config_calls_it(configs, gemma_2b):
    for word in ("gelu", "gelu_pytorch_tanh"):
        assert configs.read("gemma", "hf", gemma_2b | {"hidden_act": word})["activation"] == "gelu_tanh"
    # In Gemma 2 and in Llama the same word is taken at its word.
    assert configs.read("llama", "hf", SIZES["hf"] | {"hidden_act": "gelu"})["activation"] == "gelu"


def test_gemma3_rope_in_the_new_style_and_in_the_old(configs, gemma3):
    layers = ["sliding_attention"] * 5 + ["full_attention"] + ["sliding_attention"] * 2
    new = gemma3 | {
        "layer_types": layers,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    }
    old = gemma3 | {
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "sliding_window_pattern": 6,
    }
    found = configs.read("gemma3_text", "hf", new)
    assert found == configs.read("gemma3_text", "hf", old)
    assert found["sliding_layers"] == [True] * 5 + [False] + [True] * 2
    assert (found["rope_theta"], found["rope_local_theta"]) == (1e6, 1e4)
    # Negative control: another pattern is another model.
    assert configs.read("gemma3_text", "hf", old | {"sliding_window_pattern": 2}) != found


def test_gemma3_rope_scaled_on_the_global_layers_only(configs, gemma3):
    scaled = {"factor": 8.0, "rope_type": "linear"}
    old = configs.read("gemma3_text", "hf", gemma3 | {"rope_scaling": scaled})
    new = configs.read(
        "gemma3_text",
        "hf",
        gemma3
        | {
            "rope_parameters": {
                "full_attention": {**scaled, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    )
    assert old == new
    assert (old["rope_type"], old["rope_factor"], old["rope_local_type"]) == ("linear", 8.0, "default")


def test_gemma2_soft_caps_absent_and_null(configs, gemma2):
    """Left out they are the published values; null means that there are none."""
    absent = configs.read("gemma2", "hf", gemma2)
    assert (absent["attn_softcap"], absent["final_softcap"]) == (50.0, 30.0)
    nulls = gemma2 | {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    null = configs.read("gemma2", "hf", nulls)
    assert (null["attn_softcap"], null["final_softcap"]) == (None, None)
    written = configs.write("gemma2", "hf", null)
    assert written["attn_logit_softcapping"] is None


def test_gemma2_layers_alternate(configs, gemma2):
    assert configs.read("gemma2", "hf", gemma2)["sliding_layers"] == [True, False, True, False]


def test_llama3_rope(configs, llama):
    found = configs.read("llama", "hf", llama)
    names = (
        "rope_type",
        "rope_factor",
        "rope_low_freq_factor",
        "rope_high_freq_factor",
        "rope_original_context",
    )
    assert [found[name] for name in names] == ["llama3", 32.0, 1.0, 4.0, 8192]
    modern = dict(llama)
    modern["rope_parameters"] = {**modern.pop("rope_scaling"), "rope_theta": modern.pop("rope_theta")}
    assert configs.read("llama", "hf", modern) == found


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("num_hidden_layers", "18", "int"),
        ("num_hidden_layers", True, "int"),
        ("hidden_size", 2048.5, "int"),
        ("hidden_size", [2048], "int"),
        ("hidden_size", float("nan"), "int"),
        ("hidden_size", float("inf"), "int"),
        ("rms_norm_eps", "1e-06", "number"),
        ("rms_norm_eps", {"eps": 1}, "number"),
        ("attention_bias", 1, "bool"),
        ("attention_bias", "false", "bool"),
    ],
)
def test_a_wrong_type_names_file_and_field(configs, gemma_2b, field, value, kind):
    with pytest.raises(MalformedError) as caught:
        configs.read("gemma", "hf", gemma_2b | {field: value})
    assert caught.value.message == f"config.json: {field} must be of type {kind}"
    assert repr(value) in caught.value.cause


def test_a_number_beyond_all_floats_is_a_number(configs, gemma_2b):
    assert (
        configs.read("gemma", "hf", gemma_2b | {"max_position_embeddings": 10**400})["context_length"]
        == 10**400
    )


def test_whole_floats_are_whole_numbers(configs, gemma_2b):
    found = configs.read("gemma", "hf", gemma_2b | {"hidden_size": 2048.0})["d_model"]
    assert found == 2048 and isinstance(found, int)


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"])
@pytest.mark.parametrize("change", ["absent", "null"])
def test_a_missing_field_is_named_with_its_file(configs, gemma_2b, field, change):
    if change == "null":
        gemma_2b[field] = None
    else:
        del gemma_2b[field]
    with pytest.raises(MalformedError, match=f"config.json: the field '?{field}'? is missing") as caught:
        configs.read("gemma", "hf", gemma_2b)
    assert "gemma" in caught.value.cause


def test_lists_have_an_item_for_each_layer(configs, gemma2):
    with pytest.raises(MalformedError, match="one item per layer") as caught:
        configs.read("gemma2", "hf", gemma2 | {"layer_types": ["full_attention"] * 3})
    assert "3 items for 4 layers" in caught.value.cause


UNKNOWN_WORDS = [
    ("gemma", {"hidden_act": "swiglu"}, "hidden_act = 'swiglu'"),
    ("gemma2", {"hidden_activation": "mish"}, "hidden_activation = 'mish'"),
    ("gemma2", {"layer_types": ["sliding_attention", "chunked", "x", "y"]}, "layer_types = 'chunked'"),
    ("llama", {"hidden_act": "gelu_10"}, "hidden_act = 'gelu_10'"),
    ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
]


@pytest.mark.parametrize(("family", "change", "message"), UNKNOWN_WORDS)
def test_a_word_that_no_table_knows_is_unsupported(configs, family, change, message, gemma_2b, gemma2, llama):
    raw = {"gemma": gemma_2b, "gemma2": gemma2, "llama": llama}[family] | change
    with pytest.raises(UnsupportedError) as caught:
        configs.read(family, "hf", raw)
    assert caught.value.exit_code == 5
    assert caught.value.message.startswith("config.json: ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    "change",
    [
        {"rope_adjustments": {"factor": 4.0, "beta_fast": 32.0}},
        {"rope_adjustments": {"factor": 4.0, "mscale": 1.0}},
        {"mlp_class_name": "MyMLP"},
        {"norm_qk_type": "mine"},
    ],
)
def test_a_litgpt_model_that_computes_something_else_is_unsupported(configs, change):
    with pytest.raises(UnsupportedError, match=f"model_config.yaml: {next(iter(change))}"):
        configs.read("llama", "litgpt", SIZES["litgpt"] | change)


def test_neighbours_that_are_rotated_together_are_a_switch(configs):
    """LitGPT has it for all heads, Llama in transformers not at all."""
    raw = configs.write("llama", "litgpt", configs.example("llama"))
    assert "rope_interleave" not in raw
    found = configs.read("llama", "litgpt", raw | {"rope_interleave": True})
    assert found["rope_interleaved"] is True
    assert configs.write("llama", "litgpt", found)["rope_interleave"] is True
    with pytest.raises(UnsupportedError, match="cannot express rope_interleaved = True"):
        configs.write("llama", "hf", found)


def test_what_litgpt_reads_for_experts_alone_is_not_read_elsewhere(configs):
    plain = configs.read("llama", "litgpt", SIZES["litgpt"])
    idle = {"n_shared_expert": 8, "n_expert_groups": 2, "routed_scaling_factor": 2.5}
    assert configs.read("llama", "litgpt", SIZES["litgpt"] | idle) == plain


def test_unknown_fields_are_reported(configs, gemma_2b):
    assert configs.reader("gemma", "hf", gemma_2b).unknown_fields() == []
    strange = gemma_2b | {"head_dimm": 3, "generation_config": {}, "my_rope": 1}
    assert configs.reader("gemma", "hf", strange).unknown_fields() == ["head_dimm", "my_rope"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "config.json cannot be parsed"),
        ("config.json", "[1]", "config.json holds no mapping"),
        ("config.json", "null", "config.json holds no mapping"),
        ("config.json", "[" * 100_000, "config.json cannot be parsed"),
        ("model_config.yaml", "a: [", "model_config.yaml cannot be parsed"),
        ("model_config.yaml", "1: 2", "model_config.yaml holds no mapping"),
        ("model_config.yaml", "x: !!python/object/apply:os.system ['false']", "cannot be parsed"),
        ("model_config.yaml", "", "model_config.yaml holds no mapping"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MalformedError, match=message):
        load_mapping(path)


def test_a_file_that_is_no_text_or_far_too_large(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(MalformedError, match="expected UTF-8"):
        load_mapping(path)
    with path.open("wb") as file:
        file.truncate(2**25)
    with pytest.raises(MalformedError, match="too large"):
        load_mapping(path)


def test_dotted_paths():
    raw = {"a": {"b": {"c": 1}}, "d.e": 2, "n": None}
    assert get(raw, "a.b.c") == (True, 1)
    assert get(raw, "d.e") == (True, 2)
    assert get(raw, "n") == (True, None)
    assert get(raw, "n.x") == (False, None)
    assert get(raw, "a.x.c") == (False, None)
    put(raw, "a.x.c", 3)
    assert raw["a"] == {"b": {"c": 1}, "x": {"c": 3}}


@pytest.mark.parametrize(
    ("stored", "short"),
    [
        (9.999999974752427e-07, 1e-6),
        (0.10000000149011612, 0.1),
        (10000.0, 10000.0),
        (50.0, 50.0),
        (1e300, 1e300),
    ],
)
def test_float32_is_read_as_the_shortest_decimal(stored, short):
    assert shortest_float32(stored) == short


@given(st.floats(width=32))
def test_shortening_keeps_the_float32(value):
    found = shortest_float32(value)
    assert math.isnan(found) if math.isnan(value) else struct.pack("<f", found) == struct.pack("<f", value)


def test_ggufs_rotated_dims_are_read(configs):
    raw = {"embedding_length": 60, "attention.head_count": 6, "block_count": 2, "feed_forward_length": 5}
    raw |= {"context_length": 9, "attention.layer_norm_rms_epsilon": 1e-6, "attention.key_length": 10}
    shapes = {"token_embd.weight": (7, 60)}
    assert configs.read("gemma", "gguf", raw, shapes)["rotary_percentage"] == 1.0
    assert (
        configs.read("gemma", "gguf", raw | {"rope.dimension_count": 10}, shapes)["rotary_percentage"] == 1.0
    )
    assert (
        configs.read("gemma", "gguf", raw | {"rope.dimension_count": 4}, shapes)["rotary_percentage"] == 0.4
    )
    # Gemma 3 is meant with 1e-6 where nothing is said; of others nobody knows.
    del raw["attention.layer_norm_rms_epsilon"]
    with pytest.raises(MalformedError, match=r"attention\.layer_norm_rms_epsilon' is missing"):
        configs.read("gemma", "gguf", raw, shapes)
    raw["attention.layer_norm_rms_epsilon"] = 1e-6
    with pytest.raises(UnsupportedError, match=r"rope\.scaling\.attn_factor = 1\.5"):
        configs.read("gemma", "gguf", raw | {"rope.scaling.attn_factor": 1.5}, shapes)


def test_unknown_fields_are_found_inside_sections_too(configs):
    raw = {"class_name": "GemmaBackbone", "config": {"num_layers": 2, "new_switch": True, "dropout": 0}}
    assert configs.reader("gemma", "keras", raw).unknown_fields() == ["config.new_switch"]


def test_windows_that_gemma_1_has_no_place_for(configs):
    example = configs.example("gemma")
    raw = configs.write("gemma", "flax", example) | {"attention_types": ["LOCAL_SLIDING"] * 7}
    shapes = configs.shapes("gemma", "flax", example)
    found = configs.read("gemma", "flax", raw, shapes)
    with pytest.raises(UnsupportedError, match="cannot express sliding_"):
        configs.write("gemma", "hf", found)
    raw["attention_types"] = ["GLOBAL"] * 7
    assert configs.write("gemma", "hf", configs.read("gemma", "flax", raw, shapes))["model_type"] == "gemma"


def gemma4(configs, **changes):
    raw = configs.write("gemma4", "hf", configs.example("gemma4"))
    return configs.read(
        "gemma4", "hf", raw | changes, configs.shapes("gemma4", "hf", configs.example("gemma4"))
    )


def test_an_entry_that_a_closed_section_does_not_know_is_refused_by_name(configs):
    full = {"head_dim": 14, "num_key_value_heads": 1}
    wanted = gemma4(configs)
    assert gemma4(configs, per_layer_config={"2": full, "6": full}) == wanted
    assert gemma4(configs, per_layer_config={"2": full})["head_dims"] != wanted["head_dims"]
    with pytest.raises(UnsupportedError, match=r"per_layer_config\.6\.skip = \['mlp'\] is not known"):
        gemma4(configs, per_layer_config={"2": full, "6": {**full, "skip": ["mlp"]}})


def test_a_share_of_nothing_is_not_taken_for_silence(configs):
    local = {"rope_type": "default", "rope_theta": 10000.0}
    rope = {"rope_type": "proportional", "rope_theta": 1e6}
    found = [
        gemma4(configs, rope_parameters={"full_attention": entries, "sliding_attention": local})
        for entries in ({**rope, "partial_rotary_factor": 0.0}, rope)
    ]
    assert [values["rotary_percentage"] for values in found] == [0.0, 1.0]
    assert gemma4(configs, rope_parameters=None)["rotary_percentage"] == 0.25
