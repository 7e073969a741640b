"""GGUF files of families that llama.cpp stores as transformers does: names by gguf-py's map, same bytes."""

import json

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import porter
from porter.errors import PorterError

SIZES = {
    "vocab_size": 29,
    "hidden_size": 42,
    "intermediate_size": 17,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 400,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
}
# The configuration, gguf-py's architecture, and what the family stores besides Llama's tensors.
FAMILIES = {
    "qwen2": (SIZES, gguf.MODEL_ARCH.QWEN2, {"q_proj.bias": 42, "k_proj.bias": 14, "v_proj.bias": 14}),
    "qwen3": (SIZES | {"head_dim": 10}, gguf.MODEL_ARCH.QWEN3, {"q_norm.weight": 10, "k_norm.weight": 10}),
}


def weights(family):
    config, _, besides = FAMILIES[family]
    d, f, h = config["hidden_size"], config["intermediate_size"], config.get("head_dim", 7)
    layer = {
        "self_attn.q_proj.weight": (6 * h, d),
        "self_attn.k_proj.weight": (2 * h, d),
        "self_attn.v_proj.weight": (2 * h, d),
        "self_attn.o_proj.weight": (d, 6 * h),
        "mlp.gate_proj.weight": (f, d),
        "mlp.up_proj.weight": (f, d),
        "mlp.down_proj.weight": (d, f),
        "input_layernorm.weight": (d,),
        "post_attention_layernorm.weight": (d,),
        **{f"self_attn.{name}": (size,) for name, size in besides.items()},
    }
    shapes = {
        "model.embed_tokens.weight": (config["vocab_size"], d),
        "model.norm.weight": (d,),
        "lm_head.weight": (config["vocab_size"], d),
        **{f"model.layers.{n}.{name}": shape for n in range(2) for name, shape in layer.items()},
    }
    generator = np.random.default_rng(4)
    return {name: generator.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def written(family, path, tensors):
    config, arch, _ = FAMILIES[family]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for name, weight in tensors.items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.peer
@pytest.mark.parametrize("family", FAMILIES)
def test_a_gguf_is_what_transformers_would_have_stored(family, tmp_path):
    tensors = weights(family)
    source = written(family, tmp_path / "model.gguf", tensors)
    porter.convert(source, tmp_path / "hf", to="hf")
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name], weight) for name, weight in tensors.items())
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    wanted = FAMILIES[family][0] | {"model_type": family, "tie_word_embeddings": False}
    assert {key: config.get(key) for key in wanted} == wanted

    # LitGPT gets from it what it gets from transformers' own.
    own = tmp_path / "own"
    own.mkdir()
    save_file(tensors, own / "model.safetensors", metadata={"format": "pt"})
    (own / "config.json").write_text(json.dumps(wanted))
    for name, path in (("one", source), ("two", own)):
        porter.convert(path, tmp_path / name, to="litgpt")
    one, two = (load_file(tmp_path / name / "lit_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and all(np.array_equal(two[name], one[name]) for name in one)


@pytest.mark.peer
def test_a_tensor_that_is_missing_is_missed(tmp_path):
    """Negative control: what the family stores besides Llama's tensors is asked for."""
    tensors = weights("qwen3")
    del tensors["model.layers.1.self_attn.k_norm.weight"]
    with pytest.raises(PorterError, match="missing"):
        porter.convert(written("qwen3", tmp_path / "model.gguf", tensors), tmp_path / "hf", to="hf")
