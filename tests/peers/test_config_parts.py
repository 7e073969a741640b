"""Parts of a config that change logits: what transformers computes from them is computed after a port too.

Each case changes the config of a tiny model; the negative control is that transformers' logits change.
"""

import inspect
import json
import os
import re
import shutil

import gguf
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from porter import convert, plan
from porter.errors import PorterError

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 64,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4],
    "long_factor": [1.5, 2.5, 3.5, 4.5, 5.5],
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
FULL = {"rope_type": "default", "rope_theta": 1e6}

# The model, what its config says instead (None: nothing), and the dialects that can say it too.
CASES = {
    "yarn": ("llama", {"rope_parameters": None, "rope_scaling": YARN}, ["hf"]),
    "yarn's attention factor": ("llama", {"rope_parameters": YARN | {"attention_factor": 1.7}}, ["hf"]),
    "yarn's beta_fast": ("llama", {"rope_parameters": YARN | {"beta_fast": 8}}, ["hf"]),
    "yarn's beta_slow": ("llama", {"rope_parameters": YARN | {"beta_slow": 3.0}}, ["hf"]),
    "yarn's mscale": (
        "llama",
        {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3}},
        ["hf"],
    ),
    "yarn's truncate": ("llama", {"rope_parameters": YARN | {"truncate": False}}, ["hf"]),
    "yarn in Gemma 2": ("gemma2", {"rope_parameters": YARN | {"beta_fast": 8}}, ["hf"]),
    "longrope": ("llama", {"rope_parameters": LONG}, ["hf"]),
    "longrope's factors": (
        "llama",
        {"rope_parameters": LONG | {"attention_factor": 1.2, "factor": 3.0}},
        ["hf"],
    ),
    "dynamic": (
        "llama",
        {"max_position_embeddings": 100, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
        ["hf"],
    ),
    "llama3 without an original context": (
        "llama",
        {"rope_parameters": {k: v for k, v in LLAMA3.items() if k != "original_max_position_embeddings"}},
        ["hf", "litgpt"],
    ),
    "an original context beside llama3's dict": (
        "llama",
        {"rope_scaling": LLAMA3, "original_max_position_embeddings": 16},
        ["hf", "litgpt"],
    ),
    "an original context beside longrope's dict": (
        "llama",
        {"rope_scaling": LONG, "original_max_position_embeddings": 16, "max_position_embeddings": 100},
        ["hf"],
    ),
    "rope_scaling before rope_parameters": (
        "llama",
        {"rope_scaling": LINEAR, "rope_parameters": LLAMA3 | {"rope_theta": 500.0}},
        ["hf", "litgpt"],
    ),
    "an empty rope_scaling": ("llama", {"rope_scaling": {}, "rope_parameters": LINEAR}, ["hf", "litgpt"]),
    "rope_theta inside rope_scaling": (
        "llama",
        {"rope_parameters": None, "rope_scaling": LINEAR | {"rope_theta": 500.0}, "rope_theta": 77.0},
        ["hf", "litgpt"],
    ),
    "type for rope_type": ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}, ["hf", "litgpt"]),
    "rope_type before type": (
        "llama",
        {"rope_scaling": {"type": "llama3", "rope_type": "linear", "factor": 4.0}},
        ["hf", "litgpt"],
    ),
    "GPT-NeoX, rope_scaling before rope_parameters": (
        "gpt-neox",
        {"rope_scaling": LINEAR, "rope_parameters": {"rope_theta": 77.0}, "rotary_pct": 0.6},
        ["hf", "litgpt"],
    ),
    "Gemma 3's sliding layers": (
        "gemma3",
        {"rope_parameters": {"sliding_attention": LINEAR | {"rope_theta": 1e4}, "full_attention": FULL}},
        ["hf"],
    ),
    "both kinds of Gemma 3's layers": (
        "gemma3",
        {
            "rope_parameters": {
                "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0},
                "full_attention": LINEAR | {"rope_theta": 500.0},
            }
        },
        ["hf", "litgpt"],
    ),
    "Gemma 3, yarn on its full layers": (
        "gemma3",
        {"rope_parameters": {"full_attention": YARN | {"rope_theta": 500.0, "beta_fast": 8.0}}},
        ["hf"],
    ),
    "Gemma 3, rope_scaling into rope_parameters": (
        "gemma3",
        {
            "rope_scaling": LINEAR | {"rope_theta": 77.0},
            "rope_parameters": {"full_attention": FULL},
            "rope_theta": 500.0,
        },
        ["hf", "litgpt"],
    ),
    "Gemma 3, flat fields": (
        "gemma3",
        {
            "rope_parameters": None,
            "rope_scaling": LINEAR,
            "rope_theta": 500.0,
            "rope_local_base_freq": 77.0,
        },
        ["hf", "litgpt"],
    ),
    "exact GELU in Gemma 2": ("gemma2", {"hidden_activation": "gelu"}, ["hf", "litgpt"]),
    "exact GELU in Gemma 3": ("gemma3", {"hidden_activation": "gelu"}, ["hf", "litgpt"]),
}


def changed(models, tmp_path, name, changes):
    """The model with another config.json; its weights are those that were there."""
    path = tmp_path / "changed"
    path.mkdir(parents=True)
    source = models.path(name)
    for file in source.iterdir():
        if file.suffix == ".safetensors":
            os.link(file, path / file.name)
        else:
            shutil.copy(file, path)
    config = json.loads((source / "config.json").read_text())
    for key in changes:
        config.pop(key, None)
    config |= {key: value for key, value in changes.items() if value is not None}
    (path / "config.json").write_text(json.dumps(config))
    return path


def null(models, tmp_path, name, field):
    """The model with null in the place of a field's value."""
    path = changed(models, tmp_path, name, {})
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {field: None}))
    (path / "generation_config.json").unlink(missing_ok=True)
    return path


@pytest.mark.parametrize("case", CASES)
def test_what_is_computed_stays(models, difference, tmp_path, case):
    name, changes, targets = CASES[case]
    source = changed(models, tmp_path, name, changes)
    expected = models.hf(source)
    assert difference(models.hf(models.path(name)), expected) > 1e-4, "the change makes no difference"
    for target in ("hf", "litgpt"):
        out = tmp_path / target
        if target not in targets:
            with pytest.raises(PorterError, match=r"cannot express|not known"):
                convert(source, out, to=target)
            continue
        convert(source, out, to=target)
        found = models.hf(out) if target == "hf" else models.litgpt(out)
        assert difference(found, expected) < 1e-5


ODD = {"rope_parameters": None, "rotary_pct": 0.5}
CAPPED = {"attn_logit_softcapping": 1.5}


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("gpt-neox", ODD, ["odd_rotary = 'hf'", "int(rotary_pct * head_dim) is odd"]),
        ("gemma3", CAPPED, ["idle_softcap = 1.5", "does not apply attn_logit_softcapping"]),
    ],
)
def test_a_framework_that_computes_something_else_from_the_same_words(
    models, difference, tmp_path, name, changes, words
):
    """To LitGPT and back to transformers they are refused; transformers' own stay what they are."""
    source = changed(models, tmp_path, name, changes)
    with pytest.raises(PorterError) as refused:
        plan(source, to="litgpt")
    assert all(word in f"{refused.value} {refused.value.cause}" for word in words)
    convert(source, tmp_path / "hf", to="hf")
    assert difference(models.hf(tmp_path / "hf"), models.hf(source)) < 1e-6
    # Negative control: with the same words, LitGPT does compute something else.
    convert(models.path(name), tmp_path / "lit", to="litgpt")
    config = tmp_path / "lit" / "model_config.yaml"
    words_of_litgpt = {"attention_logit_softcapping": 1.5} if name == "gemma3" else {"rotary_percentage": 0.5}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | words_of_litgpt))
    assert difference(models.litgpt(tmp_path / "lit"), models.hf(source)) > 1e-3
    with pytest.raises(PorterError, match=r"odd_rotary = 'litgpt'|attn_softcap = 1\.5"):
        plan(tmp_path / "lit", to="hf")


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt-neox"])
def test_condensed_positions_are_a_linear_factor(models, difference, tmp_path, name):
    convert(models.path(name), tmp_path / "lit", to="litgpt")
    before = models.litgpt(tmp_path / "lit")
    condensed = tmp_path / "condensed"
    shutil.copytree(tmp_path / "lit", condensed)
    config = yaml.safe_load((condensed / "model_config.yaml").read_text())
    config |= {"rope_condense_ratio": 4, "rope_adjustments": {"factor": 2.0}}
    (condensed / "model_config.yaml").write_text(yaml.safe_dump(config))
    expected = models.litgpt(condensed)
    assert difference(before, expected) > 1e-3
    convert(condensed, tmp_path / "hf", to="hf")
    assert difference(models.hf(tmp_path / "hf"), expected) < 1e-5
    convert(tmp_path / "hf", tmp_path / "again", to="litgpt")
    assert difference(models.litgpt(tmp_path / "again"), expected) < 1e-5
    # Together with Llama 3's adjustments they say something that transformers has no words for.
    config["rope_adjustments"] = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config["rope_adjustments"]["original_max_seq_len"] = 64
    (condensed / "model_config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(PorterError, match=r"cannot express rope_condense = 4|its code fixes it"):
        plan(condensed, to="hf")


def gemma3_gguf(source, path, metadata):
    """The weights of transformers' model as llama.cpp and Ollama name them, the norms' +1 folded in."""
    writer = gguf.GGUFWriter(path, "gemma3")
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(f"gemma3.{key}", value)
        else:
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
            add(f"gemma3.{key}", value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, metadata["block_count"])
    for name, tensor in load_file(source / "model.safetensors").items():
        stored = tensor + 1 if name.endswith("norm.weight") else tensor
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), stored.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_ollamas_gemma3(models, difference, tmp_path):
    """Its own words for the two bases, a list for the windows, no epsilon, a factor without a type."""
    windows = [True, False, True, True, False, True, False]
    layers = ["sliding_attention" if sliding else "full_attention" for sliding in windows]
    changes = {
        "rope_parameters": None,
        "rope_theta": 500.0,
        "rope_local_base_freq": 77.0,
        "rope_scaling": LINEAR,
        "layer_types": layers,
        "query_pre_attn_scalar": 10,
    }
    source = changed(models, tmp_path, "gemma3", changes)
    expected = models.hf(source)
    metadata = {
        "block_count": 7,
        "embedding_length": 66,
        "feed_forward_length": 101,
        "context_length": 700,
        "attention.head_count": 6,
        "attention.head_count_kv": 2,
        "attention.key_length": 10,
        "attention.value_length": 10,
        "attention.sliding_window": 23,
        "attention.sliding_window_pattern": windows,
        "rope.global.freq_base": 500.0,
        "rope.local.freq_base": 77.0,
        "rope.scaling.factor": 4.0,
    }
    gemma3_gguf(source, tmp_path / "model.gguf", metadata)
    convert(tmp_path / "model.gguf", tmp_path / "hf", to="hf")
    assert difference(models.hf(tmp_path / "hf"), expected) < 1e-5
    # Negative control: each of them is read.
    for number, change in enumerate(
        [
            {"rope.global.freq_base": 5e5},
            {"rope.local.freq_base": 5e5},
            {"attention.sliding_window_pattern": windows[::-1]},
            {"attention.layer_norm_rms_epsilon": 1e-2},
            {"rope.scaling.type": "none"},
        ]
    ):
        gemma3_gguf(source, tmp_path / f"{number}.gguf", metadata | change)
        convert(tmp_path / f"{number}.gguf", tmp_path / f"hf-{number}", to="hf")
        assert difference(models.hf(tmp_path / f"hf-{number}"), expected) > 1e-3, change


def test_a_leftover_quantization_config_is_left_out_of_plain_floats(models, difference, tmp_path):
    leftover = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    source = changed(models, tmp_path, "llama", {"quantization_config": leftover})
    for target in ("hf", "litgpt"):
        done = convert(source, tmp_path / target, to=target)
        assert any("quantization_config is left out" in note for note in done.plan.notes)
    assert "quantization_config" not in json.loads((tmp_path / "hf" / "config.json").read_text())
    expected = models.hf(models.path("llama"))
    assert difference(models.hf(tmp_path / "hf"), expected) < 1e-6
    # Negative control: weights that are whole numbers need it.
    tensors = load_file(source / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = (tensors[name] * 100).to(torch.int8)
    (source / "model.safetensors").unlink()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PorterError, match="quantization_config says 'bitsandbytes'"):
        plan(source, to="hf")


def test_layers_that_transformers_takes_another_class_for(models, difference, tmp_path):
    """Its auto classes load a Mistral with `layer_types` as Ministral, whose layers slide in turns."""
    window = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 8}
    source = changed(models, tmp_path / "all", "llama", window)
    layers = ["sliding_attention", *["full_attention"] * 6]
    layers = layers[: json.loads((source / "config.json").read_text())["num_hidden_layers"]]
    turns = changed(models, tmp_path / "turns", "llama", window | {"layer_types": layers})
    assert difference(models.hf(source), models.hf(turns)) > 1e-3
    with pytest.raises(PorterError, match="layer_types"):
        plan(turns, to="litgpt")
    # Negative control: without them, a window on all layers is carried.
    convert(source, tmp_path / "lit", to="litgpt")
    assert difference(models.litgpt(tmp_path / "lit"), models.hf(source)) < 1e-5


@pytest.mark.parametrize(
    ("config", "beside", "words", "way"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ".absmax", "to 4 bits by", "dequantize()"),
        ({"load_in_4bit": True}, ".absmax", "to 4 bits by", "dequantize()"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, ".SCB", "to int8 by", "dequantize()"),
        ({"quant_method": "gptq", "bits": 4}, ".qweight", "by GPTQ", "was quantised from"),
        ({"quant_method": "awq", "bits": 4}, ".qweight", "by AWQ$", "was quantised from"),
        ({"quant_method": "fp8"}, ".weight_scale_inv", "FP8 with", "FineGrainedFP8Config(dequantize=True)"),
        ({"quant_method": "mxfp4"}, "_blocks", "MXFP4", "Mxfp4Config(dequantize=True)"),
        (
            {"quant_method": "compressed-tensors"},
            ".weight_packed",
            "by compressed-tensors",
            "CompressedTensorsConfig(dequantize=True)",
        ),
        ({"quant_method": "hqq"}, ".SCB", "by hqq", "was quantised from"),
        ({}, ".qzeros", "by AWQ or GPTQ", "was quantised from"),
    ],
)
def test_the_way_a_model_was_quantised_is_named_from_its_config(models, tmp_path, config, beside, words, way):
    source = changed(models, tmp_path, "llama", {"quantization_config": config or {"bits": 4}})
    tensors = load_file(source / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    tensors[name + beside] = (tensors.pop(f"{name}.weight") * 100).to(torch.int8)
    (source / "model.safetensors").unlink()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PorterError) as caught:
        plan(source, to="hf")
    assert re.search(words, caught.value.message)
    assert way in caught.value.hint
    assert caught.value.exit_code == 5


def test_the_ways_back_that_are_named_are_transformers_own():
    from transformers import CompressedTensorsConfig, FineGrainedFP8Config, Mxfp4Config
    from transformers.quantizers import (
        base,
        quantizer_awq,
        quantizer_bnb_4bit,
        quantizer_bnb_8bit,
        quantizer_gptq,
        quantizer_higgs,
    )

    def undoes(kind):
        return kind._dequantize is not base.HfQuantizer._dequantize

    assert FineGrainedFP8Config(dequantize=True).dequantize
    assert Mxfp4Config(dequantize=True).dequantize
    assert "dequantize" in inspect.signature(CompressedTensorsConfig.__init__).parameters
    assert undoes(quantizer_bnb_4bit.Bnb4BitHfQuantizer)
    assert undoes(quantizer_bnb_8bit.Bnb8BitHfQuantizer)
    assert undoes(quantizer_higgs.HiggsHfQuantizer)
    assert not undoes(quantizer_gptq.GptqHfQuantizer)
    assert not undoes(quantizer_awq.AwqQuantizer)


@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id", "pad_token_id"])
@pytest.mark.parametrize("family", ["gemma-gqa", "llama", "gemma2", "gemma3"])
def test_no_token_is_not_the_frameworks_default(models, tmp_path, family, name):
    source = null(models, tmp_path, family, name)
    convert(source, tmp_path / "null", to="hf")
    assert json.loads((tmp_path / "null" / "config.json").read_text())[name] is None
    # Negative control: a field that is left out is what transformers makes of it.
    config = json.loads((source / "config.json").read_text())
    del config[name]
    (source / "config.json").write_text(json.dumps(config))
    convert(source, tmp_path / "absent", to="hf")
    before, after = (AutoConfig.from_pretrained(path) for path in (source, tmp_path / "absent"))
    assert getattr(before, name) == getattr(after, name)


@pytest.mark.parametrize("family", ["gemma-gqa", "gemma2", "gemma3", "llama"])
def test_a_tie_that_is_null_is_refused_as_transformers_refuses_it(models, tmp_path, family):
    source = null(models, tmp_path, family, "tie_word_embeddings")
    with pytest.raises(Exception, match="tie_word_embeddings"):
        AutoConfig.from_pretrained(source)
    with pytest.raises(PorterError, match="tie_word_embeddings must be true or false") as caught:
        plan(source, to="hf")
    assert caught.value.exit_code == 6


def test_an_unknown_part_of_rope_is_refused_by_name(models, tmp_path):
    mrope = {"rope_type": "default", "mrope_section": [1, 2, 2]}
    source = changed(models, tmp_path, "llama", {"rope_parameters": None, "rope_scaling": mrope})
    with pytest.raises(PorterError, match=r"config\.json: rope_scaling\.mrope_section = \[1, 2, 2\]"):
        plan(source, to="hf")
    # A factor that this type does not read is passed over, and said, as transformers passes over it.
    source = changed(models, tmp_path / "second", "llama", {"rope_scaling": {"factor": 8.0}})
    assert any("rope_scaling.factor: passed over" in note for note in plan(source, to="litgpt").notes)
    # The file that was named, and the field in it.
    other = tmp_path / "other.json"
    config = json.loads((source / "config.json").read_text()) | {"hidden_act": "quick_gelu"}
    other.write_text(json.dumps(config))
    with pytest.raises(PorterError, match=r"other\.json: hidden_act = 'quick_gelu'"):
        plan(source, to="litgpt", config=other)


def test_a_cast_is_what_transformers_reads(models, tmp_path):
    """`dtype`, which newer configs have and transformers reads first, does not keep the source's word."""
    assert json.loads((models.path("llama") / "config.json").read_text())["dtype"] == "float32"
    convert(models.path("llama"), tmp_path / "out", to="hf", dtype="bfloat16")
    from transformers import AutoConfig

    assert AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    assert AutoConfig.from_pretrained(models.path("llama")).dtype == torch.float32


def test_what_no_table_speaks_of_is_said_and_stays_where_it_can(models, tmp_path):
    source = changed(models, tmp_path, "llama", {"my_field": 3})
    for target, words in (("hf", "copied as they are: my_field"), ("litgpt", "left out: my_field")):
        done = convert(source, tmp_path / target, to=target)
        assert [note for note in done.plan.notes if "my_field" in note] == [
            f"config.json: unknown to porter and {words}"
        ]
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["my_field"] == 3
    # Negative control: without the field nothing is said.
    assert not any("unknown to porter" in note for note in plan(models.path("llama"), to="hf").notes)
