"""What porter refuses, one reason each: the error shown, the exit code, and that nothing is touched."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

K_PROJ = "model.layers.1.self_attn.k_proj.weight"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def to_litgpt(out):
    """The arguments that convert a source to LitGPT."""
    return lambda source, *more: ["convert", source, "--to", "litgpt", "-o", out, *more]


# --- tensors -----------------------------------------------------------------------------------------


def test_a_tensor_is_missing(refused, save, tensors, config, to_litgpt):
    del tensors[K_PROJ]
    refused(6, to_litgpt(save(tensors, config)), "1 tensor missing", f"{K_PROJ} [10, 22]", "hf.toml:")


def test_every_missing_tensor_is_listed(refused, save, tensors, config, to_litgpt):
    for layer in range(3):
        del tensors[f"model.layers.{layer}.mlp.up_proj.weight"]
    said = refused(6, to_litgpt(save(tensors, config)), "3 tensors missing")
    assert all(f"model.layers.{layer}.mlp.up_proj.weight [31, 22]" in said for layer in range(3))


def test_a_tensor_is_not_mapped(refused, save, tensors, config, to_litgpt):
    tensors["model.layers.0.adapter.weight"] = np.zeros((3, 4), np.float32)
    refused(
        5,
        to_litgpt(save(tensors, config)),
        "1 tensor of the source is not mapped by gemma/hf",
        "model.layers.0.adapter.weight",
        "--map FILE.toml",
    )


def test_a_layer_is_more_than_the_config_says(refused, save, tensors, config, to_litgpt):
    source = save(tensors, config | {"num_hidden_layers": 2})
    refused(5, to_litgpt(source), "9 tensors", "model.layers.2.mlp.up_proj.weight", "n_layer = 2")


def test_a_tensor_has_a_wrong_shape(refused, save, tensors, config, to_litgpt):
    tensors[K_PROJ] = np.ascontiguousarray(tensors[K_PROJ].T)
    refused(
        6,
        to_litgpt(save(tensors, config)),
        "model.safetensors",
        K_PROJ,
        "expected [10, 22]",
        "found [22, 10]",
    )


def test_two_tensors_are_sources_for_one_target(refused, save, tensors, config, to_litgpt):
    # A base model that was saved without its head has no `model.` in front; both at once is no model.
    tensors["embed_tokens.weight"] = tensors["model.embed_tokens.weight"] + 1
    refused(
        6,
        to_litgpt(save(tensors, config)),
        "two tensors",
        "sources for one target",
        "'model.embed_tokens.weight' and 'embed_tokens.weight'",
    )


def test_a_tied_head_differs_from_the_embedding(refused, save, tensors, config, to_litgpt):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["lm_head.weight"][-1, -1] += 1
    source = save(tensors, config | {"tie_word_embeddings": True})
    said = refused(3, to_litgpt(source), "model.embed_tokens.weight", "lm_head.weight", "differ")
    assert "byte" in said


def test_a_tensor_has_an_unknown_dtype(refused, gemma, to_litgpt):
    path = gemma / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F31"', 1))
    refused(5, to_litgpt(gemma), "model.safetensors", "model.embed_tokens.weight", "F31")


def test_names_with_control_characters(refused, save, tensors, config, to_litgpt):
    tensors["model.\x1b[2Jnorm.weight"] = np.zeros(3, np.float32)
    source = save(tensors, config)
    for arguments in (to_litgpt(source), ["inspect", source]):
        said = refused(6, arguments, "model.safetensors", "control characters")
        assert "\x1b" not in said


@pytest.mark.parametrize("name", ["../../etc/passwd", "[bold red]x[/]", "a\u202eb", "a b/{layer}"])
def test_odd_names_are_shown_escaped_and_are_unmapped(refused, call, save, tensors, config, to_litgpt, name):
    tensors[name] = np.zeros((3, 4), np.float32)
    source = save(tensors, config)
    said = refused(5, to_litgpt(source), "1 tensor of the source is not mapped")
    shown = call("inspect", source)
    assert shown.returncode == 0
    for text in (said, shown.stdout):
        assert name.replace("\u202e", "\\u202e") in text
        assert "\u202e" not in text


# --- files -------------------------------------------------------------------------------------------


def test_a_shard_is_cut_short(refused, save, tensors, config, to_litgpt):
    source = save(tensors, config, shards=3)
    shard = source / "model-00002-of-00003.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    refused(6, to_litgpt(source), shard.name, f"expected {len(whole)} bytes", f"found {len(whole) - 100}")


def test_a_header_is_cut_short(refused, gemma, to_litgpt):
    path = gemma / "model.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    refused(6, to_litgpt(gemma), "model.safetensors", "expected", "found 200")


@pytest.mark.parametrize("indexed", [True, False])
def test_a_shard_is_missing(refused, save, tensors, config, to_litgpt, indexed):
    source = save(tensors, config, shards=3)
    (source / "model-00002-of-00003.safetensors").unlink()
    if not indexed:
        (source / "model.safetensors.index.json").unlink()
    refused(6, to_litgpt(source), "model-00002-of-00003.safetensors", "missing")


def test_an_index_names_a_file_outside(refused, write, save, tensors, config, to_litgpt):
    source = save(tensors, config, shards=2)
    index = source / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    write(source.parent / "x.safetensors", {"model.norm.weight": tensors["model.norm.weight"]})
    content["weight_map"]["model.norm.weight"] = "../x.safetensors"
    index.write_text(json.dumps(content))
    refused(6, to_litgpt(source), index.name, "unsafe file name '../x.safetensors'", "model.norm.weight")


def test_a_link_leads_outside(refused, gemma, tmp_path, to_litgpt):
    path = gemma / "model.safetensors"
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    refused(6, to_litgpt(gemma), "model.safetensors", "out of the checkpoint", "elsewhere.safetensors")


def test_a_key_stands_twice_in_a_header(refused, gemma, to_litgpt):
    path = gemma / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    name = b'"model.norm.weight"'
    entry = json.dumps(json.loads(raw[8 : 8 + length])["model.norm.weight"]).encode()
    text = raw[8 : 8 + length].rstrip()[:-1] + b", " + name + b": " + entry + b"}"
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    refused(6, to_litgpt(gemma), "model.safetensors", "'model.norm.weight' twice")


def test_there_is_nothing_at_the_source(refused, tmp_path, to_litgpt):
    refused(2, to_litgpt(tmp_path / "nowhere"), "nowhere", "no such file")


def test_there_are_no_weights_in_the_source(refused, tmp_path, to_litgpt):
    (tmp_path / "empty").mkdir()
    refused(6, to_litgpt(tmp_path / "empty"), "holds no weights", "safetensors")


# --- configs -----------------------------------------------------------------------------------------


def test_the_family_is_unknown(refused, save, tensors, config, to_litgpt):
    source = save(tensors, config | {"model_type": "walrus"})
    refused(5, to_litgpt(source), "no mapping table", "model_type = 'walrus'", "gemma3_text", "--map")


def test_there_is_no_config(refused, save, tensors, to_litgpt):
    refused(5, to_litgpt(save(tensors, None)), "tiny-gemma has no config", "config.json", "--config")


def test_a_config_is_no_json(refused, gemma, to_litgpt):
    (gemma / "config.json").write_text('{"model_type": "gemma",')
    refused(6, to_litgpt(gemma), "config.json")


def test_a_field_is_missing(refused, save, tensors, config, to_litgpt):
    del config["hidden_size"]
    refused(6, to_litgpt(save(tensors, config)), "config.json", "'hidden_size' is missing", "d_model")


def test_heads_do_not_divide(refused, save, tensors, config, to_litgpt):
    refused(6, to_litgpt(save(tensors, config | {"num_key_value_heads": 4})), "6 / 4", "whole number")


@pytest.mark.parametrize("layers", [-1, 10**9])
@pytest.mark.parametrize("family", ["gemma", "gemma3_text"])
def test_a_number_of_layers_is_not_believed_without_bounds(
    refused, save, tensors, config, to_litgpt, family, layers
):
    source = save(tensors, config | {"model_type": family, "num_hidden_layers": layers})
    refused(6, to_litgpt(source), "config.json", f"n_layer = {layers}")


def test_litgpts_gemma_has_no_attention_biases(refused, save, tensors, config, to_litgpt):
    for layer in range(3):
        for name, size in (("q", 30), ("k", 10), ("v", 10), ("o", 22)):
            tensors[f"model.layers.{layer}.self_attn.{name}_proj.bias"] = np.ones(size, np.float32)
    source = save(tensors, config | {"attention_bias": True})
    refused(5, to_litgpt(source), "LitGPT cannot express", "bias", "model_config.yaml")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"use_bidirectional_attention": True}, "bidirectional"),
        ({"hidden_act": "relu"}, "activation"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type"),
    ],
)
def test_litgpt_has_no_word_for_it(refused, save, tensors, config, to_litgpt, change, word):
    refused(5, to_litgpt(save(tensors, config | change)), "LitGPT cannot express", word)


def test_quantised_weights_are_not_kept_as_plain_numbers(refused, tmp_path, out):
    source = quantised_gemma(tmp_path)
    said = refused(
        5,
        ["convert", source, "--to", "hf", "-o", out],
        "blk.0.attn_q.weight is quantised (Q8_0)",
        "--dtype float32",
    )
    assert "--dtype bfloat16" in said


def test_quantised_weights_are_converted_when_a_dtype_is_named(call, tmp_path, out):
    """The control: nothing else is wrong with that file."""
    source = quantised_gemma(tmp_path)
    done = call("convert", source, "--to", "hf", "-o", out, "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    assert (out / "model.safetensors").is_file()


def quantised_gemma(directory: Path) -> Path:
    """A GGUF of one layer, as llama.cpp would write it: matrices in Q8_0, norms in F32."""
    gguf = importlib.import_module("gguf")
    path = directory / "tiny-gemma.gguf"
    writer = gguf.GGUFWriter(path, "gemma")
    writer.add_block_count(1)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(32)
    writer.add_value_length(32)
    writer.add_context_length(128)
    writer.add_layer_norm_rms_eps(1e-6)
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"t{at}" for at in range(36))]
    types = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNKNOWN] + [gguf.TokenType.NORMAL] * 36
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(at) for at in range(40)])
    writer.add_token_types(types)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    matrices = {
        "token_embd": (40, 64),
        "blk.0.attn_q": (64, 64),
        "blk.0.attn_k": (32, 64),
        "blk.0.attn_v": (32, 64),
        "blk.0.attn_output": (64, 64),
        "blk.0.ffn_gate": (96, 64),
        "blk.0.ffn_up": (96, 64),
        "blk.0.ffn_down": (64, 96),
    }
    random = np.random.default_rng(5)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", random.standard_normal(64).astype(np.float32))
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, shape in matrices.items():
        values = random.standard_normal(shape).astype(np.float32)
        # The embedding stays as it is, so that the first quantised tensor is not the first of all.
        if name == "token_embd":
            writer.add_tensor(f"{name}.weight", values)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, q8), raw_dtype=q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# --- the request -------------------------------------------------------------------------------------


def test_the_output_is_not_empty(refused, gemma, out, to_litgpt):
    out.mkdir()
    (out / "thesis.txt").write_text("the only copy")
    refused(2, to_litgpt(gemma), str(out), "not empty", "--force")


def test_force_replaces_only_what_porter_wrote(refused, gemma, out, to_litgpt):
    out.mkdir()
    (out / "thesis.txt").write_text("the only copy")
    refused(2, to_litgpt(gemma, "--force"), str(out), "not written by porter", "porter-receipt.json")


def test_the_output_is_a_file(refused, gemma, out, to_litgpt):
    out.write_text("the only copy")
    refused(2, to_litgpt(gemma, "--force"), str(out), "no directory")


@pytest.mark.parametrize("place", ["inside", ".", ".."])
def test_the_output_and_the_source_lie_in_one_another(refused, gemma, place):
    arguments = ["convert", gemma, "--to", "litgpt", "--force", "-o", gemma / place]
    refused(2, arguments, "lie in one another", str(gemma))


def test_the_dialect_is_unknown(refused, gemma, out):
    said = refused(2, ["convert", gemma, "--to", "latin", "-o", out], "'latin'", "hf", "litgpt")
    assert "gguf" not in said, "it cannot be written"


def test_there_is_no_writer_for_the_dialect(refused, gemma, out):
    refused(5, ["convert", gemma, "--to", "gguf", "-o", out], "does not write", "GGUF")


def test_no_target_is_named(refused, gemma, out):
    refused(2, ["convert", gemma, "-o", out], "no target", "--to litgpt")


@pytest.mark.parametrize("dtype", ["int4", "F99", ""])
def test_the_dtype_is_unknown(refused, gemma, to_litgpt, dtype):
    refused(2, to_litgpt(gemma, "--dtype", dtype), repr(dtype), "bfloat16", "float32")


def test_tied_is_neither_write_nor_omit(refused, gemma, to_litgpt):
    refused(2, to_litgpt(gemma, "--tied", "perhaps"), "--tied", "write, omit or untie", "'perhaps'")


def test_an_untied_head_cannot_be_left_out(refused, save, tensors, config, to_litgpt):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    source = save(tensors, config | {"tie_word_embeddings": False})
    refused(5, to_litgpt(source, "--tied", "omit"), "no tied tensor", "not tied to the embedding")


def test_litgpt_reads_one_file(refused, gemma, to_litgpt):
    refused(5, to_litgpt(gemma, "--max-shard-size", "1KB"), "LitGPT", "one file", "--max-shard-size")


@pytest.mark.parametrize("size", ["many", "-5", "0"])
def test_a_shard_size_is_no_size(refused, gemma, out, size):
    arguments = ["convert", gemma, "--to", "hf", f"--max-shard-size={size}", "-o", out]
    refused(2, arguments, size)


def test_the_target_model_does_not_read_the_dialect(refused, gemma, to_litgpt):
    refused(2, to_litgpt(gemma, "--target-model", "transformers"), "transformers", "litgpt")


def test_a_config_or_table_is_not_there(refused, gemma, tmp_path, to_litgpt):
    refused(2, to_litgpt(gemma, "--config", tmp_path / "no.json"), "no.json")
    refused(2, to_litgpt(gemma, "--map", tmp_path / "no.toml"), "no.toml")


def test_a_table_has_an_unknown_key(refused, gemma, tmp_path, to_litgpt):
    table = tmp_path / "mine.toml"
    table.write_text('extends = "gemma/litgpt"\nfamily = "gemma"\ndialect = "mine"\ncolour = "green"\n')
    refused(2, to_litgpt(gemma, "--map", table), "mine.toml:4", "colour")
    refused(2, ["mappings", "check", table], "mine.toml:4", "colour")


@pytest.mark.parametrize(
    "arguments", [["convert", "--walrus"], ["walrus"], ["inspect", "a", "b"], ["mappings", "check"]]
)
def test_the_command_line_itself_is_wrong(run, arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
