"""What each parser refuses for its size alone, and what a lone piece of bad text does."""

import json
import struct
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

import porter
from porter.containers.gguf.gguf_header import read_header as read_gguf
from porter.containers.safetensors.safetensors_header import parse_header
from porter.containers.torch.torch_pickle import FREE_STEPS, STEPS_EACH, unpickle
from porter.containers.torch.torch_state import unwrapped
from porter.errors import MalformedError, UnsupportedError
from porter.tokenizers.hub_json import merges
from porter.tokenizers.spm_model import model_facts
from porter.tokenizers.vocabulary import vocabulary as make_vocabulary


def header(text: bytes):
    return parse_header(struct.pack("<Q", len(text)) + text, 8 + len(text), "w")


def empty(name):
    return {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}


def test_a_safetensors_header_has_limits_of_values_names_and_metadata():
    assert header(json.dumps(empty("x" * 4_096)).encode()).tensors[0].name == "x" * 4_096
    for text, why in (
        (json.dumps(empty("x" * 4_097)).encode(), "at most 4,096 characters"),
        (b'{"a":[' + b"[]," * 2_000_000 + b"[]]}", "at most 3,000,000 values"),
        (b'{"a":' * 9 + b"1" + b"}" * 9, "at most 8 levels"),
        (json.dumps({"__metadata__": {"a": "x" * 4_000_001}}).encode(), "at most 4,000,000 characters"),
    ):
        with pytest.raises(MalformedError) as refused:
            header(text)
        assert why in refused.value.cause


def test_an_index_lists_tensors_and_not_too_many_shards(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    for weight_map, why in (
        ({}, "expected tensors in its weight_map"),
        ({f"t{n}": f"s{n}.safetensors" for n in range(2_001)}, "at most 2,000 shards"),
    ):
        path.write_text(json.dumps({"weight_map": weight_map}), "utf-8")
        began = time.process_time()
        with pytest.raises(MalformedError) as refused:
            porter.inspect(tmp_path)
        assert why in refused.value.cause and time.process_time() - began < 1


def test_a_pickle_has_steps_for_what_its_file_holds():
    many = b"\x80\x02(" + b"]" * (FREE_STEPS + 10) + b"t."
    with pytest.raises(MalformedError) as refused:
        unpickle(many, "m")
    assert "steps" in refused.value.cause
    assert len(unpickle(many, "m", 1 + 10 // STEPS_EACH).value) == FREE_STEPS + 10
    with pytest.raises(MalformedError) as refused:
        unpickle(b"\x80\x02X" + struct.pack("<I", (8 << 20) + 1) + b"x" * ((8 << 20) + 1) + b".", "m")
    assert "a text of at most" in refused.value.cause


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_wrappers_that_are_repeated_take_linear_time(prefix):
    names = [prefix * 100_000 + "a", prefix * 99_999 + "b"]
    began = time.process_time()
    bare = unwrapped(names)
    assert time.process_time() - began < 1
    assert list(bare.values()) == (["module.a", "b"] if prefix == "module." else ["a", "b"])
    # Something is left of each.
    assert unwrapped(["module.", "module.module.x"]) == {
        "module.": "module.",
        "module.module.x": "module.module.x",
    }


def gguf(path, value: bytes):
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + value)
    return read_gguf(path, "m.gguf")


def test_a_gguf_has_limits_of_strings(tmp_path):
    path = tmp_path / "m.gguf"
    good = gguf(path, struct.pack("<IQ", 8, 5) + b"hello")
    assert good.metadata == {"a": "hello"}
    with pytest.raises(MalformedError, match="the length of"):
        gguf(path, struct.pack("<IQ", 8, (4 << 20) + 1) + bytes((4 << 20) + 1))
    with pytest.raises(MalformedError, match="too many strings"):
        gguf(path, struct.pack("<IIQ", 9, 8, (1 << 20) + 1) + bytes(8 * ((1 << 20) + 1)))


def test_a_gguf_is_read_across_the_pieces_that_it_is_read_in(tmp_path):
    strings = [b"x" * (n % 700) for n in range(20_000)]
    every = b"".join(struct.pack("<Q", len(word)) + word for word in strings)
    found = gguf(tmp_path / "m.gguf", struct.pack("<IIQ", 9, 8, len(strings)) + every)
    assert [word.encode() for word in found.metadata["a"]] == strings


def test_a_gguf_that_is_cut_short_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    """A map of it would end the process by a signal."""
    import porter.containers.gguf.gguf_bytes as gguf_bytes

    path = tmp_path / "m.gguf"
    value = struct.pack("<IQ", 8, 3_000_000) + b"x" * 3_000_000
    assert gguf(path, value).metadata["a"] == "x" * 3_000_000
    real = gguf_bytes.os.pread

    def cut(fd, length, offset):
        content = real(fd, length, offset)
        with path.open("r+b") as stream:
            stream.truncate(1_000)
        return content

    monkeypatch.setattr(gguf_bytes.os, "pread", cut)
    with pytest.raises(MalformedError, match="cut short while it was read"):
        read_gguf(path, "m.gguf")


def test_merges_that_outgrow_their_vocabulary_are_refused():
    """1,550 pieces of one letter (1.2 MB) made 4.8 GB of merges."""
    pieces = ["a" * (n + 1) for n in range(512)]

    def vocabulary(pieces):
        metadata = {
            "tokenizer.ggml.model": "llama",
            "general.architecture": "gemma",
            "tokenizer.ggml.tokens": pieces,
            "tokenizer.ggml.token_type": [1] * len(pieces),
        }
        return make_vocabulary(metadata)

    began = time.process_time()
    with pytest.raises(UnsupportedError, match="far more merges than pieces"):
        merges(vocabulary(pieces))
    with pytest.raises(MalformedError, match="token 512"):
        vocabulary([*pieces, "a" * 513])
    assert time.process_time() - began < 1
    assert len(merges(vocabulary(pieces[:100]))) == sum(range(100))


def test_a_sentencepiece_model_of_bad_text_or_of_too_many_bytes(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\x0a\x09\x0a\x02\xff\xfe\x15" + bytes(4))
    with pytest.raises(MalformedError, match="no SentencePiece model"):
        model_facts(path, "tokenizer.model")
    with path.open("wb") as stream:
        stream.truncate(9 << 20)
    with pytest.raises(MalformedError, match="too large"):
        model_facts(path, "tokenizer.model")


def test_a_config_of_too_many_layers_is_refused_at_once(tmp_path):
    save_file({"model.embed_tokens.weight": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
    stated = {"model_type": "llama", "num_hidden_layers": 16_385, "hidden_size": 2, "num_attention_heads": 1}
    sizes = {"intermediate_size": 3, "vocab_size": 2, "max_position_embeddings": 4}
    (tmp_path / "config.json").write_text(json.dumps(stated | sizes), "utf-8")
    with pytest.raises(MalformedError, match="out of range"):
        porter.plan(tmp_path, to="litgpt")


def test_absent_chunks_are_found_at_once_however_many_are_stated():
    from porter.containers.orbax.zarr_chunks import missing_chunks

    began = time.process_time()
    for shape, chunks, there, absent in (
        ([2**31], [1], ["0", "1"], "2"),
        ([2**40, 2**40], [1, 1], ["0.0"], "0.1"),
        ([2**40, 2], [1, 1], ["0.0", "0.1", "1.0"], "1.1"),
        ([4], [2], ["0", "1"], None),
    ):
        stated = {"shape": shape, "chunks": chunks}
        assert missing_chunks(stated, "a", {f"a/{key}" for key in there}) == ([absent] if absent else [])
    assert time.process_time() - began < 0.5


def test_a_config_of_many_unknown_entries_is_refused_in_linear_time(tmp_path):
    save_file({"model.norm.weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    for content in (
        {f"k{number}": number for number in range(40_000)},
        {f"k{number}": {} for number in range(40_000)},
        {"model_type": "gemma", **{f"k{number}": number for number in range(90_000)}},
    ):
        (tmp_path / "config.json").write_text(json.dumps(content))
        began = time.process_time()
        assert porter.inspect(tmp_path).family is None
        assert time.process_time() - began < 3
