"""Checkpoints as people publish them after training: extended, wrapped, untied, or only an adapter."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import porter
from porter.errors import DifferenceError, PorterError, UnsupportedError, UsageError

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


def test_a_dialect_that_it_is_not_in_is_named(write):
    source = write(weights(), config())
    with pytest.raises(UsageError, match="is not in the dialect litgpt") as caught:
        porter.plan(source, to="hf", source_dialect="litgpt")
    assert "gemma/hf" in caught.value.cause
    # Negative control: the one that it is in.
    assert porter.inspect(source, source_dialect="hf").dialect == "hf"


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
    with pytest.raises(DifferenceError, match="have to be equal") as caught:
        porter.convert(source, tmp_path / "lit", to="litgpt")
    assert not (tmp_path / "lit").exists()
    assert 'tied="untie" keeps both' in caught.value.hint
    porter.convert(source, tmp_path / "lit", to="litgpt", tied="untie")
    lit = load_file(tmp_path / "lit" / "lit_model.safetensors")
    assert np.array_equal(lit["lm_head.weight"], weights(head=True)["lm_head.weight"])
    porter.convert(tmp_path / "lit", tmp_path / "back", to="hf")
    assert same(load_file(tmp_path / "back" / "model.safetensors"), weights(head=True))
    assert json.loads((tmp_path / "back" / "config.json").read_text())["tie_word_embeddings"] is False


def test_litgpt_trains_the_head_apart(write, tmp_path):
    """LitGPT's finetune of what porter has ported: the config still says tied, and the head has moved."""
    porter.convert(write(weights(), config()), tmp_path / "lit", to="litgpt")
    file = tmp_path / "lit" / "lit_model.safetensors"
    trained = {name: array.copy() for name, array in load_file(file).items()}
    trained["lm_head.weight"] += 1
    save_file(trained, file)
    with pytest.raises(DifferenceError, match="LitGPT itself trains the two apart") as caught:
        porter.convert(tmp_path / "lit", tmp_path / "out", to="hf")
    assert 'tied="untie"' in caught.value.hint
    porter.convert(tmp_path / "lit", tmp_path / "out", to="hf", tied="untie")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert np.array_equal(found["lm_head.weight"], trained["lm_head.weight"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("to", ["litgpt", "hf"])
def test_the_head_alone_may_be_stored(write, tmp_path, to):
    tensors = weights(head=True)
    embed = tensors.pop("model.embed_tokens.weight")
    porter.convert(write(tensors, config()), tmp_path / "out", to=to)
    found = load_file(next((tmp_path / "out").glob("*.safetensors")))
    names = {"litgpt": ("transformer.wte.weight", "lm_head.weight"), "hf": ("model.embed_tokens.weight",)}[to]
    assert all(np.array_equal(found[name], tensors["lm_head.weight"]) for name in names)
    assert not np.array_equal(embed, tensors["lm_head.weight"])


@pytest.mark.parametrize("near", [0.0, 1e-3])
def test_copies_of_two_dtypes_are_equal_by_value(write, tmp_path, near):
    tensors = weights()
    half = tensors["model.embed_tokens.weight"].astype(np.float16)
    tensors["model.embed_tokens.weight"] = half
    tensors["lm_head.weight"] = half.astype(np.float32) + np.float32(near)
    source = write(tensors, config())
    if near:
        with pytest.raises(DifferenceError, match="against"):
            porter.convert(source, tmp_path / "out", to="litgpt", dtype="float32")
        return
    porter.convert(source, tmp_path / "out", to="litgpt", dtype="float32")
    found = load_file(tmp_path / "out" / "lit_model.safetensors")
    assert np.array_equal(found["lm_head.weight"], half.astype(np.float32))


@pytest.mark.parametrize("dialect", ["keras", "gemma_pytorch", "flax"])
def test_an_untied_head_has_no_place_in_frameworks_that_tie(write, dialect):
    source = write(weights(head=True), config(tie_word_embeddings=False))
    with pytest.raises(UnsupportedError, match="tie_embeddings = False"):
        porter.plan(source, to=dialect)


def in_int8(tensors, factors=".SCB"):
    """Matrices as bitsandbytes stores them: whole numbers, and a factor for each row beside them."""
    made = dict(tensors)
    for name, tensor in tensors.items():
        if "_proj" in name:
            largest = np.abs(tensor).max(axis=1)
            made[name] = np.round(tensor / largest[:, None] * 127).astype(np.int8)
            if factors:
                made[name.removesuffix(".weight") + factors] = largest
    return made


@pytest.mark.parametrize("dtype", ["keep", "float32"])
@pytest.mark.parametrize(
    ("factors", "allowed", "words"),
    [
        (".SCB", (), "quantised to int8 by bitsandbytes"),
        (".SCB", ("*.SCB",), "quantised to int8 by bitsandbytes"),
        (None, (), "quantised to int8, as bitsandbytes does it, without its scales"),
        (".weight_scale", ("*_scale",), "FP8 or integers with scales"),
    ],
)
def test_whole_numbers_are_no_weights(write, dtype, factors, allowed, words):
    source = write(in_int8(weights(), factors), config())
    with pytest.raises(UnsupportedError, match=words) as caught:
        porter.plan(source, to="hf", dtype=dtype, allow_unmapped=allowed)
    assert "allow-unmapped" not in caught.value.hint
    assert caught.value.exit_code == 5


def test_the_factors_of_eight_bit_floats_are_not_dropped(write, tmp_path):
    import torch
    from safetensors import torch as in_torch

    name = "model.layers.0.mlp.up_proj.weight"
    tensors = {key: torch.from_numpy(value) for key, value in weights().items()}
    tensors[name.removesuffix("weight") + "weight_scale_inv"] = torch.full((1, 1), 0.5)
    source = write({}, config())
    in_torch.save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    # Negative control: beside a plain float nothing reads them.
    porter.plan(source, to="hf", allow_unmapped=("*_scale_inv",))
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    in_torch.save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    for dtype in ("keep", "float32"):
        with pytest.raises(UnsupportedError, match="whose factors were to be dropped") as caught:
            porter.plan(source, to="hf", dtype=dtype, allow_unmapped=("*_scale_inv",))
        assert "dequantize" in caught.value.hint


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ("model.layers.0.mlp.up_proj.weight.absmax", "4 bits by bitsandbytes"),
        ("model.layers.0.mlp.up_proj.g_idx", "GPTQ"),
        ("model.layers.0.mlp.up_proj.qzeros", "AWQ"),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", "FP8"),
        ("model.layers.0.mlp.up_proj.weight_packed", "compressed-tensors"),
        ("model.layers.0.mlp.up_proj.lora_A.default.weight", "not been merged"),
    ],
)
def test_what_is_stored_otherwise_is_named_and_never_offered_to_be_dropped(write, beside, words):
    source = write({**weights(), beside: np.ones((3, 2), np.float32)}, config())
    with pytest.raises(UnsupportedError, match=words) as caught:
        porter.plan(source, to="hf")
    assert "allow-unmapped" not in caught.value.hint


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "merge_and_unload"),
        ("transformer.h.0.attn.qkv.lora_A", "litgpt merge_lora"),
        ("_layer_checkpoint_dependencies/backbone/layers/x/lora_kernel_a", "enable_lora"),
    ],
)
def test_a_lone_adapter_is_named_with_the_way_to_merge_it(write, name, way):
    source = write({name: np.ones((3, 2), np.float32)}, config())
    with pytest.raises(UnsupportedError, match="no whole model") as caught:
        porter.plan(source, to="litgpt")
    assert way in caught.value.hint


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


def test_an_adapter_is_not_dropped_unmerged(write):
    low = {
        f"model.layers.0.self_attn.q_proj.lora_{part}.weight": np.ones(shape, np.float32)
        for part, shape in (("A", (2, D)), ("B", (D, 2)))
    }
    with pytest.raises(UnsupportedError, match="LoRA") as caught:
        porter.plan(write(weights() | low, config()), to="hf", allow_unmapped="*lora*")
    assert "merge it first" in caught.value.hint
    # Negative control: what is no part of the model is dropped.
    other = {"value_head.weight": np.ones((1, D), np.float32)}
    plan = porter.plan(write(weights() | other, config(), "other"), to="hf", allow_unmapped="value_head.*")
    assert plan.summary.unmapped == 1


def test_a_family_that_is_named_and_not_the_configs_is_said(write):
    source = write(weights(), config(model_type="other"))
    said = "config.json says model_type = 'other'; read as gemma, as asked"
    assert said in porter.plan(source, to="hf", family="gemma").notes
    # Negative control.
    own = porter.plan(write(weights(), config(), "own"), to="hf", family="gemma")
    assert not any("as asked" in note for note in own.notes)


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
        named = porter.inspect(folder / "model.safetensors")
        assert named.dialect == "hf"
        assert any("adapter_model.safetensors is left out" in note for note in named.notes)
        for asked in ({"source_dialect": "hf"}, {"key": "model"}, {"allow_unmapped": "*"}):
            with pytest.raises(PorterError, match="not merged into it"):
                porter.plan(folder, to="litgpt", **asked)
        # Without its config nothing loads it: it is left out, and said.
        (folder / "adapter_config.json").unlink()
        assert "adapter_model.safetensors is an adapter, and left out" in porter.inspect(folder).notes
        # Negative control: the adapter moved away, nothing is said.
        (folder / "adapter_model.safetensors").unlink()
        assert not any("adapter" in note for note in porter.inspect(folder / "model.safetensors").notes)
        return
    for source in (folder, folder / "adapter_model.safetensors"):
        with pytest.raises(UnsupportedError, match="is an adapter") as caught:
            porter.inspect(source)
        assert "merge" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "way"),
    [
        ("lit_model.pth.lora", "litgpt merge_lora"),
        ("lit_model.pth.adapter_v2", "cannot be merged"),
        ("adapter_model.safetensors", "merge_and_unload"),
        ("model.lora.h5", "load_lora_weights"),
    ],
)
def test_an_adapters_file_is_named_with_the_way_to_merge_it(write, tmp_path, file, way):
    """Alone, and as the only weights of a directory; not beside a whole model."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / file).write_bytes(b"PK\x03\x04")
    (folder / "config.json").write_text(json.dumps(config()))
    for place in (folder, folder / file):
        with pytest.raises(UnsupportedError, match="is an adapter, not a whole model") as caught:
            porter.inspect(place)
        assert way in caught.value.hint
        assert file in caught.value.cause
    whole = write(weights(), config())
    (whole / "lit_model.pth.lora").write_bytes(b"PK\x03\x04")
    assert porter.inspect(whole).dialect == "hf"


@pytest.mark.parametrize(
    "options", [{"compression": "gzip", "shuffle": True}, {"chunks": True, "fletcher32": True}]
)
def test_keras_weights_that_were_saved_again_compressed(write, tmp_path, options):
    import h5py

    porter.convert(write(weights(), config()), tmp_path / "keras", to="keras", dtype="float32")
    file = tmp_path / "keras" / "model.weights.h5"
    file.rename(tmp_path / "before.h5")
    with h5py.File(tmp_path / "before.h5") as before, h5py.File(file, "w") as after:

        def again(name, item):
            if isinstance(item, h5py.Dataset):
                after.create_dataset(name, data=item[...], **options).attrs.update(item.attrs)

        before.visititems(again)
    porter.convert(tmp_path / "keras", tmp_path / "back", to="hf")
    assert same(load_file(tmp_path / "back" / "model.safetensors"), weights())
    with h5py.File(file, "a") as changed:
        name = "layers/rms_normalization/vars/0"
        del changed[name]
        changed.create_dataset(name, (D,), "<f4", chunks=(D,))
    with pytest.raises(porter.PorterError, match="not complete") as caught:
        porter.convert(tmp_path / "keras", tmp_path / "other", to="hf")
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "options", [{"compression": "gzip", "shuffle": True}, {"chunks": True, "fletcher32": True}]
)
def test_an_archive_whose_weights_were_saved_again_compressed(write, tmp_path, options):
    """The datasets are read out of the HDF5 file inside the archive; a chunk never written is no weight."""
    import h5py

    def archive(path, harm):
        with h5py.File(tmp_path / "keras" / "model.weights.h5") as before, h5py.File(path, "w") as after:

            def again(name, item):
                if not isinstance(item, h5py.Dataset):
                    return
                if harm and name == "layers/rms_normalization/vars/0":
                    after.create_dataset(name, (D,), "<f4", chunks=(D // 2,))[: D // 2] = 1
                else:
                    after.create_dataset(name, data=item[...], **options).attrs.update(item.attrs)

            before.visititems(again)
        folder = tmp_path / path.stem
        folder.mkdir()
        with zipfile.ZipFile(folder / "model.keras", "w") as file:
            file.write(tmp_path / "keras" / "config.json", "config.json")
            file.write(path, "model.weights.h5")
        return folder / "model.keras"

    porter.convert(write(weights(), config()), tmp_path / "keras", to="keras", dtype="float32")
    whole = archive(tmp_path / "whole.h5", harm=False)
    porter.convert(whole, tmp_path / "back", to="hf")
    assert same(load_file(tmp_path / "back" / "model.safetensors"), weights())
    with pytest.raises(porter.PorterError, match="not complete") as caught:
        porter.convert(archive(tmp_path / "holes.h5", harm=True), tmp_path / "other", to="hf")
    assert caught.value.exit_code == 6
    assert str([D // 2]) in caught.value.cause
    assert not (tmp_path / "other").exists()
