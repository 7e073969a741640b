"""Checkpoints as people publish them after training: extended, wrapped, untied, or only an adapter."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import porter
from porter.errors import DifferenceError, UnsupportedError

D, F, H, K, HEAD = 12, 7, 4, 2, 5


def weights(vocab=23, head=False):
    shapes = {
        "model.embed_tokens.weight": (vocab, D),
        "model.layers.0.input_layernorm.weight": (D,),
        "model.layers.0.self_attn.q_proj.weight": (H * HEAD, D),
        "model.layers.0.self_attn.k_proj.weight": (K * HEAD, D),
        "model.layers.0.self_attn.v_proj.weight": (K * HEAD, D),
        "model.layers.0.self_attn.o_proj.weight": (D, H * HEAD),
        "model.layers.0.post_attention_layernorm.weight": (D,),
        "model.layers.0.mlp.gate_proj.weight": (F, D),
        "model.layers.0.mlp.up_proj.weight": (F, D),
        "model.layers.0.mlp.down_proj.weight": (D, F),
        "model.norm.weight": (D,),
        **({"lm_head.weight": (vocab, D)} if head else {}),
    }
    generator = np.random.default_rng(1)
    return {name: generator.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def config(vocab=23, **changes):
    return {
        "model_type": "gemma",
        "vocab_size": vocab,
        "hidden_size": D,
        "intermediate_size": F,
        "num_hidden_layers": 1,
        "num_attention_heads": H,
        "num_key_value_heads": K,
        "head_dim": HEAD,
        **changes,
    }


@pytest.fixture
def write(tmp_path):
    def made(tensors, stated, name="my-own-model_v3"):
        folder = tmp_path / name
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(stated))
        return folder

    return made


def same(found, expected):
    return found.keys() == expected.keys() and all(np.array_equal(found[k], expected[k]) for k in expected)


def test_a_directorys_name_says_nothing(write):
    found = porter.inspect(write(weights(), config(), name="llama-7b-litgpt"))
    assert (found.family, found.dialect) == ("gemma", "hf")


def test_added_rows_of_the_vocabulary_are_carried(write, tmp_path):
    source = write(weights(vocab=31), config(vocab=31))
    porter.convert(source, tmp_path / "lit", to="litgpt")
    assert load_file(tmp_path / "lit" / "lit_model.safetensors")["transformer.wte.weight"].shape == (31, D)
    porter.convert(tmp_path / "lit", tmp_path / "back", to="hf")
    assert same(load_file(tmp_path / "back" / "model.safetensors"), weights(vocab=31))


def test_added_rows_that_the_config_does_not_know_are_an_error(write):
    with pytest.raises(porter.PorterError, match="wrong shape") as caught:
        porter.plan(write(weights(vocab=31), config(vocab=23)), to="litgpt")
    assert "[23, 12], found [31, 12]" in caught.value.cause


def test_an_untied_head_is_carried_as_its_own(write, tmp_path):
    tensors = weights(head=True)
    source = write(tensors, config(tie_word_embeddings=False))
    porter.convert(source, tmp_path / "lit", to="litgpt")
    lit = load_file(tmp_path / "lit" / "lit_model.safetensors")
    assert np.array_equal(lit["lm_head.weight"], tensors["lm_head.weight"])
    porter.convert(tmp_path / "lit", tmp_path / "back", to="hf")
    assert same(load_file(tmp_path / "back" / "model.safetensors"), tensors)


def test_an_untied_head_that_the_config_calls_tied_is_an_error(write, tmp_path):
    source = write(weights(head=True), config(tie_word_embeddings=True))
    with pytest.raises(DifferenceError, match="have to be equal"):
        porter.convert(source, tmp_path / "lit", to="litgpt")
    assert not (tmp_path / "lit").exists()


@pytest.mark.parametrize("dialect", ["keras", "gemma_pytorch", "flax"])
def test_an_untied_head_has_no_place_in_frameworks_that_tie(write, dialect):
    source = write(weights(head=True), config(tie_word_embeddings=False))
    with pytest.raises(UnsupportedError, match="tie_embeddings = False"):
        porter.plan(source, to=dialect)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_what_wrappers_put_before_all_names_is_taken_off(write, tmp_path, prefix):
    wrapped = {prefix + name: tensor for name, tensor in weights().items()}
    source = write(wrapped, config())
    assert porter.inspect(source).dialect == "hf"
    porter.convert(source, tmp_path / "out", to="hf")
    assert same(load_file(tmp_path / "out" / "model.safetensors"), weights())


def test_a_prefix_that_only_some_names_have_stays(write):
    mixed = weights()
    mixed["module.model.norm.weight"] = mixed.pop("model.norm.weight")
    with pytest.raises(UnsupportedError, match="not mapped") as caught:
        porter.plan(write(mixed, config()), to="litgpt")
    assert "module.model.norm.weight" in caught.value.cause


@pytest.mark.parametrize("whole", [False, True])
def test_an_adapter_is_no_model(tmp_path, whole):
    folder = tmp_path / "adapter"
    folder.mkdir()
    low = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": np.zeros((2, D), np.float32)}
    save_file(low, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    if whole:
        # transformers loads the base model that the adapter names, and the adapter on top of it.
        save_file(weights(), folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config()))
        with pytest.raises(UnsupportedError, match="not merged into it"):
            porter.inspect(folder)
        assert porter.inspect(folder / "model.safetensors").dialect == "hf"
        return
    for source in (folder, folder / "adapter_model.safetensors"):
        with pytest.raises(UnsupportedError, match="is an adapter") as caught:
            porter.inspect(source)
        assert "merge" in caught.value.hint
