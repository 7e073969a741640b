"""GGUF models in several files, as gguf-py writes them: put together from any part, and checked."""

from __future__ import annotations

import shutil

import gguf
import numpy as np
import pytest

import porter
from porter.api.convert import prepare
from porter.containers.checkpoint import open_checkpoint
from porter.errors import MalformedError, UnsupportedError, UsageError
from porter.sources.local import locate

D, F, H, K, HEAD, VOCAB, LAYERS = 12, 7, 4, 2, 6, 23, 2


def weights():
    """Llama's, as GGUF names them; dims outermost first."""
    block = {
        "attn_norm": (D,),
        "attn_q": (H * HEAD, D),
        "attn_k": (K * HEAD, D),
        "attn_v": (K * HEAD, D),
        "attn_output": (D, H * HEAD),
        "ffn_norm": (D,),
        "ffn_gate": (F, D),
        "ffn_up": (F, D),
        "ffn_down": (D, F),
    }
    shapes = {"token_embd.weight": (VOCAB, D), "output_norm.weight": (D,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    generator = np.random.default_rng(4)
    return {name: generator.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def write(folder, tensors, most=0, architecture="gemma"):
    """A Gemma; with `most`, in parts of at most so many tensors."""
    folder.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(folder / "tiny.gguf", architecture, split_max_tensors=most)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(F)
    writer.add_head_count(H)
    writer.add_head_count_kv(K)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCAB)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


@pytest.fixture
def parts(tmp_path):
    folder = write(tmp_path / "split", weights(), most=7)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"tiny-0000{number}-of-00003.gguf" for number in (1, 2, 3)
    ]
    return folder


def test_all_parts_are_opened_from_any_and_from_the_directory(tmp_path, parts):
    whole = open_checkpoint(locate(write(tmp_path / "whole", weights())))
    expected = {name: (tensor.dtype, tensor.shape) for name, tensor in whole.tensors.items()}
    for place in (parts, *parts.iterdir()):
        found = open_checkpoint(locate(place))
        assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.tensors.items()} == expected
        assert found.metadata["general.architecture"] == "gemma", "of the first part, whichever was named"
        assert set(found.sizes) == {path.name for path in parts.iterdir()}


def test_the_values_are_those_of_the_whole(parts):
    tensors = weights()
    found = porter.load_state_dict(parts, to="hf")
    assert np.array_equal(found["model.embed_tokens.weight"].numpy(), tensors["token_embd.weight"])
    name = "model.layers.1.mlp.down_proj.weight"
    assert np.array_equal(found[name].numpy(), tensors["blk.1.ffn_down.weight"])


def test_a_missing_part_is_named(parts):
    (parts / "tiny-00002-of-00003.gguf").unlink()
    for place in (parts, parts / "tiny-00003-of-00003.gguf"):
        missing = r"1 of (3 shards|the 3 parts of tiny) are missing"
        with pytest.raises(MalformedError, match=missing) as caught:
            open_checkpoint(locate(place))
        assert "tiny-00002-of-00003.gguf" in caught.value.cause


def test_parts_of_two_downloads_are_no_model(tmp_path, parts):
    other = write(tmp_path / "other", {**weights(), "rope_freqs.weight": np.ones(3, np.float32)}, most=7)
    last = "tiny-00003-of-00003.gguf"
    names = {path.name for path in other.iterdir()}
    assert names == {path.name for path in parts.iterdir()}
    # The last part holds one tensor more than the first part says there are.
    shutil.copy(other / last, parts / last)
    with pytest.raises(MalformedError, match="does not fit the other parts") as caught:
        open_checkpoint(locate(parts))
    assert "expected 20 tensors in all parts (split.tensors.count), found 21" in caught.value.cause
    shutil.copy(other / "tiny-00001-of-00003.gguf", parts / last)
    with pytest.raises(MalformedError, match="does not fit the other parts") as caught:
        open_checkpoint(locate(parts))
    assert "expected split.no = 2" in caught.value.cause


def test_a_part_under_a_name_of_its_own_is_not_a_model(parts):
    (parts / "tiny-00001-of-00003.gguf").rename(parts.parent / "model.gguf")
    with pytest.raises(UnsupportedError, match="one of 3 parts"):
        open_checkpoint(locate(parts.parent / "model.gguf"))


def test_two_models_in_a_directory_are_not_one(tmp_path, parts):
    write(parts, weights())
    with pytest.raises(UsageError, match="holds more than one set of weights"):
        open_checkpoint(locate(parts))


def test_a_vision_tower_in_the_same_file_is_left_out_where_that_is_asked_for(tmp_path):
    """Ollama keeps Gemma 3's in one file with the language model."""
    language = weights()
    for layer in range(LAYERS):
        for name, size in (("attn_q", HEAD), ("attn_k", HEAD), ("post_attention", D), ("post_ffw", D)):
            language[f"blk.{layer}.{name}_norm.weight"] = np.full(size, 2, np.float32)
    vision = {
        "v.blk.0.attn_q.weight": np.ones((5, 5), np.float32),
        "mm.mm_input_projection.weight": np.ones(3, "f4"),
    }
    source = write(tmp_path / "both", {**language, **vision}, architecture="gemma3")
    with pytest.raises(
        UnsupportedError, match="2 tensors of the source belong to no language model"
    ) as caught:
        porter.plan(source, to="hf")
    assert "text_only=True" in caught.value.hint
    made = prepare(source, to="hf", weights_only=True, text_only=True).plan
    assert made.summary.dropped == 2
    assert any("v (1 tensor), mm (1 tensor)" in note for note in made.notes)
