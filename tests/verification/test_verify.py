"""`porter verify`: sound ports are said to be sound, and each kind of difference is seen and told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from handmade import CONFIG, LITGPT, hf_weights, litgpt_weights, write
from safetensors.torch import save_file

import porter
from porter.errors import PorterError, UnsupportedError

LAYER = "transformer.h.1."


def command(*arguments):
    ran = subprocess.run(
        [sys.executable, "-m", "porter", "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran


def test_a_port_written_by_hand_is_equal(original, port):
    verdict = porter.verify(original, port())
    assert (verdict.outcome, verdict.right) == ("equal", True)
    assert (verdict.source_dialect, verdict.out_dialect, verdict.family) == ("hf", "litgpt", "gemma")
    assert verdict.weights.tensors == 3 + 3 * 7
    assert verdict.weights.differing == verdict.config.differences == ()
    assert verdict.says == "equal: 24 tensors and config; tokenizer could not be compared"


def test_and_its_original_is_a_port_of_it(original, port):
    """LitGPT holds the head that Hugging Face leaves out: the tie may be read either way."""
    verdict = porter.verify(port(), original)
    assert verdict.outcome == "equal", verdict


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_is_a_verdict_of_its_own(original, port, dtype):
    def cast(weights):
        weights.update({name: torch.from_numpy(value).to(dtype) for name, value in weights.items()})

    verdict = porter.verify(original, port(cast))
    assert verdict.outcome == "rounded"
    assert verdict.says.startswith(f"equal after rounding to {str(dtype).removeprefix('torch.')}: 24 tensors")


def test_every_value_is_held_against_the_one_correct_rounding(original, port):
    """Cutting the lower half of a float32 off is what many scripts do, and it is not rounding."""

    def cut(weights):
        for name, value in weights.items():
            upper = (value.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
            weights[name] = torch.from_numpy(upper).view(torch.bfloat16)

    verdict = porter.verify(original, port(cut))
    assert verdict.outcome == "differs"
    assert len(verdict.weights.differing) == 24
    found = {tensor.name: tensor.elements / tensor.of for tensor in verdict.weights.differing}
    assert 0.4 < found["transformer.wte.weight"] < 0.6, "half of all values round up"


def test_widened_values_are_equal(tmp_path, original, port):
    """Every bfloat16 is a float32: nothing is rounded on that way."""
    narrow = {name: torch.from_numpy(value).bfloat16() for name, value in hf_weights().items()}
    source = write(tmp_path / "narrow", narrow, CONFIG)
    wide = {name: value.float().numpy() for name, value in narrow.items()}
    assert set(litgpt_weights(wide)) == set(litgpt_weights(hf_weights()))

    def widened(weights):
        weights.update(litgpt_weights(wide))

    assert porter.verify(source, port(widened)).outcome == "equal"


def test_one_value_in_one_tensor_is_found(original, port):
    def change(weights):
        weights[LAYER + "attn.qkv.weight"][73, 5] += 1e-6

    verdict = porter.verify(original, port(change))
    assert verdict.outcome == "differs"
    (tensor,) = verdict.weights.differing
    assert (tensor.name, tensor.elements, tensor.first) == (LAYER + "attn.qkv.weight", 1, (73, 5))


def test_missing_and_extra_tensors_are_named_and_hide_nothing(original, port):
    """LitGPT's own converter once gave a Gemma 1 the names of a Gemma 2."""

    def rename(weights):
        for layer in range(3):
            name = f"transformer.h.{layer}."
            weights[name + "post_attention_norm.weight"] = weights.pop(name + "norm_2.weight")
        weights["transformer.ln_f.weight"][7] = 0

    weights = porter.verify(original, port(rename)).weights
    assert [tensor.name for tensor in weights.missing] == [
        f"transformer.h.{n}.norm_2.weight" for n in (0, 1, 2)
    ]
    assert weights.extra == tuple(f"transformer.h.{n}.post_attention_norm.weight" for n in (0, 1, 2))
    assert [tensor.name for tensor in weights.differing] == ["transformer.ln_f.weight"]


def test_a_tensor_of_another_shape_is_told(original, port):
    def cut(weights):
        weights["transformer.wte.weight"] = weights["transformer.wte.weight"][:27]

    (tensor,) = porter.verify(original, port(cut)).weights.misshapen
    assert (tensor.name, tensor.expected, tensor.found) == ("transformer.wte.weight", (29, 42), (27, 42))


def test_a_port_may_leave_a_tied_head_out(original, port):
    verdict = porter.verify(original, port(lambda weights: weights.pop("lm_head.weight")))
    assert verdict.outcome == "equal"
    assert verdict.weights.omitted == ("lm_head.weight",)


def test_a_wrong_config_makes_no_port_unreadable(original, port):
    """It would be another family by its own config, or none at all; and one error hides no other."""
    out = port(norm_eps=1e-5, parallel_residual=True, rope_base=[1], name="tiny")
    verdict = porter.verify(original, out)
    assert (verdict.outcome, verdict.weights.outcome) == ("differs", "equal")
    found = {difference.name: difference.found for difference in verdict.config.differences}
    assert found["norm_eps"] == 1e-5 and found["parallel_residual"] is True
    assert found["norm_offset"] == 0, "LitGPT adds 1 to norms where the model's name says Gemma"
    assert "rope_theta" in found


def test_a_broken_config_is_a_difference_and_no_error(original, port):
    out = port()
    (out / "model_config.yaml").write_text("n_layer: [\n", encoding="utf-8")
    verdict = porter.verify(original, out)
    assert (verdict.outcome, verdict.weights.outcome) == ("differs", "equal")


def test_the_weights_alone_can_be_compared(original, port):
    out = port()
    (out / "model_config.yaml").unlink()
    verdict = porter.verify(original, out)
    assert (verdict.outcome, verdict.config.outcome) == ("equal", "not compared")


def test_floats_are_compared_as_the_containers_keep_them(original, port):
    """A GGUF's 1e-6 reads as 9.99999997e-07."""
    assert porter.verify(original, port(norm_eps=float(np.float32(1e-6)))).outcome == "equal"
    assert porter.verify(original, port(norm_eps=1.0001e-6)).outcome == "differs"


def test_another_model_is_no_port(tmp_path, original):
    other = write(
        tmp_path / "other", {"conv1.weight": np.zeros((3, 3), np.float32)}, {"model_type": "resnet"}
    )
    with pytest.raises(UnsupportedError, match="not those of gemma"):
        porter.verify(original, other)


def gpt2(folder):
    """Two of its names, the embedding's and the last norm's, are LitGPT's too."""
    wide, heads = 42, 6
    weights = {
        "transformer.wte.weight": np.ones((29, wide), np.float32),
        "transformer.wpe.weight": np.ones((16, wide), np.float32),
        "transformer.ln_f.weight": np.ones(wide, np.float32),
        "transformer.ln_f.bias": np.ones(wide, np.float32),
    }
    for layer in range(2):
        stem = f"transformer.h.{layer}."
        for name, rows, columns in (
            ("attn.c_attn", wide, 3 * wide),
            ("attn.c_proj", wide, wide),
            ("mlp.c_fc", wide, 17),
            ("mlp.c_proj", 17, wide),
        ):
            weights[f"{stem}{name}.weight"] = np.ones((rows, columns), np.float32)
            weights[f"{stem}{name}.bias"] = np.ones(columns, np.float32)
        for name in ("ln_1", "ln_2"):
            weights |= {f"{stem}{name}.{part}": np.ones(wide, np.float32) for part in ("weight", "bias")}
    config = {"model_type": "gpt2", "vocab_size": 29, "n_embd": wide, "n_head": heads, "n_layer": 2}
    return write(folder, weights, {**config, "n_inner": 17, "n_positions": 16})


def test_another_architecture_is_called_by_its_name(tmp_path, original, port):
    other = gpt2(tmp_path / "gpt2")
    verdict = porter.verify(original, other)
    assert verdict.says == "differs: it is gpt2 (hf), another architecture than gemma"
    assert (verdict.out_dialect, verdict.weights.missing, verdict.weights.extra) == ("hf", (), ())
    assert porter.verify(other, original).says.endswith("it is gemma (hf), another architecture than gpt2")
    assert porter.verify(other, port()).says.endswith("it is gemma (litgpt), another architecture than gpt2")
    assert command(original, other).returncode == 3


def test_a_wrong_model_type_is_a_wrong_config_and_no_other_architecture(tmp_path, original):
    """Llama's names are Gemma's."""
    other = write(tmp_path / "other", hf_weights(), {**CONFIG, "model_type": "llama"})
    verdict = porter.verify(original, other)
    assert (verdict.outcome, verdict.weights.outcome) == ("differs", "equal")
    assert "model_type" in {difference.name for difference in verdict.config.differences}


def test_one_shard_of_several_is_called_that(tmp_path, original):
    weights = list(hf_weights().items())
    folder = write(tmp_path / "shards", dict(weights), CONFIG)
    (folder / "model.safetensors").unlink()
    for at, part in enumerate((weights[:9], weights[9:]), 1):
        tensors = {name: torch.from_numpy(value) for name, value in part}
        save_file(tensors, folder / f"model-0000{at}-of-00002.safetensors")
    assert porter.verify(original, folder).right
    shard = folder / "model-00001-of-00002.safetensors"
    told = "model-00001-of-00002.safetensors is one shard of 2; for the whole model name its directory"
    assert told in porter.verify(original, shard).notes
    assert told in porter.diff(original, shard).notes
    for refused in (lambda: porter.verify(shard, original), lambda: porter.fingerprint(shard)):
        with pytest.raises(PorterError) as caught:
            refused()
        assert told in (caught.value.hint or "")
    with pytest.raises(PorterError, match="is a file"):
        porter.check(shard)


def with_generation(folder, **ids):
    (folder / "generation_config.json").write_text(json.dumps(ids), encoding="utf-8")
    return folder


def test_the_ids_are_those_that_generation_goes_by(tmp_path, original):
    """A chat model's config may name one id that ends a text, and its generation_config.json two."""
    source = write(tmp_path / "chat", hf_weights(), {**CONFIG, "eos_token_id": 1, "bos_token_id": 2})
    with_generation(source, eos_token_id=[1, 5], bos_token_id=2)
    out = tmp_path / "out"
    porter.convert(source, out, to="litgpt")
    assert porter.verify(source, out).right
    back = tmp_path / "back"
    porter.convert(out, back, to="hf")
    assert porter.verify(source, back).right
    assert porter.diff(source, back).same
    # LitGPT has one place for them, whose ids are those of generation.
    assert porter.verify(out, source).right and porter.diff(out, source).same
    for dialect in ("flax", "gemma_pytorch"):
        porter.convert(source, tmp_path / dialect, to=dialect)
        assert json.loads((tmp_path / dialect / "generation_config.json").read_text())["eos_token_id"] == [
            1,
            5,
        ]
        assert porter.verify(source, tmp_path / dialect).right
        assert porter.verify(tmp_path / dialect, source).right
    with_generation(out, eos_token_id=[5, 1], bos_token_id=2)
    assert porter.verify(source, out).right, "each of them ends a text, in whatever order"
    with_generation(out, eos_token_id=[1, 7], bos_token_id=2)
    assert porter.verify(source, out).says.endswith("(eos_token_id is [1, 7], not [1, 5])")
    assert [field.name for field in porter.diff(source, out).config or ()] == ["eos_token_id"]
    # What generation goes by is right, and the config is not.
    config = json.loads((back / "config.json").read_text())
    (back / "config.json").write_text(json.dumps({**config, "eos_token_id": 8}), encoding="utf-8")
    assert porter.verify(source, back).says.endswith("(eos_token_id is 8, not 1)")
    (out / "generation_config.json").unlink()
    verdict = porter.verify(source, out)
    assert verdict.right
    assert any("which id ends a text" in note for note in verdict.notes)
    # Some dialects have no place for the file: the config's own id is enough, and it is said.
    (back / "config.json").write_text(json.dumps({**config, "eos_token_id": 1}), encoding="utf-8")
    (back / "generation_config.json").unlink()
    verdict = porter.verify(source, back)
    assert verdict.right and any("by the original's eos_token_id = [1, 5]" in n for n in verdict.notes)
    assert porter.verify(back, source).right
    (back / "config.json").write_text(json.dumps({**config, "eos_token_id": 9}), encoding="utf-8")
    assert not porter.verify(source, back).right


def test_what_no_table_knows_is_said_not_to_be_compared(tmp_path, original, port):
    assert porter.verify(original, port()).notes == ()
    out = port(other_key=3)
    assert any("not compared: other_key" in note for note in porter.verify(original, out).notes)
    same = write(tmp_path / "same", hf_weights(), {**CONFIG, "other_key": 3})
    assert not any("other_key" in note for note in porter.verify(same, same).notes)


def test_names_that_the_framework_does_not_look_for_are_said(tmp_path, original):
    """transformers finds none of these, and starts with random weights."""
    for around in ("module.", "_orig_mod.", "net.model."):
        named = {f"{around}{name}": weight for name, weight in hf_weights().items()}
        verdict = porter.verify(original, write(tmp_path / f"out-{around}", named, CONFIG))
        (note,) = verdict.notes
        assert verdict.right
        assert note.startswith(f"Hugging Face transformers does not look for names such as '{around}model.")
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    named = {f"module.{name}": torch.from_numpy(weight) for name, weight in hf_weights().items()}
    torch.save(named, folder / "pytorch_model.bin")
    assert any("names such as 'module.model." in note for note in porter.verify(original, folder).notes)
    bare = {name.removeprefix("model."): weight for name, weight in hf_weights().items()}
    assert porter.verify(original, write(tmp_path / "bare", bare, CONFIG)).notes == (), "these it knows"


def test_a_config_that_names_another_class_is_said(tmp_path, original):
    out = write(tmp_path / "other", hf_weights(), {**CONFIG, "architectures": ["LlamaForCausalLM"]})
    (note,) = porter.verify(original, out).notes
    assert "architectures is ['LlamaForCausalLM'], and this model's is ['GemmaForCausalLM']" in note
    assert porter.verify(out, out).notes == (), "it is the original's"
    own = write(tmp_path / "own", hf_weights(), {**CONFIG, "architectures": ["GemmaForCausalLM"]})
    assert porter.verify(out, own).notes == porter.verify(original, own).notes == ()


def test_a_config_that_says_another_dtype_is_said(tmp_path, original):
    """transformers casts to it."""
    out = write(tmp_path / "other", hf_weights(), {**CONFIG, "dtype": "float16"})
    (note,) = porter.verify(original, out).notes
    assert note.startswith("config.json: dtype is float16, and the weights are stored in float32")


def test_local_rope_layers_without_a_base_are_what_litgpt_cannot_run(original, port):
    verdict = porter.verify(original, port(rope_indices=[1, 0, 1]))
    assert (verdict.outcome, verdict.weights.outcome) == ("differs", "equal")
    assert "rope_indices" in verdict.says
    assert porter.verify(original, port(rope_indices=[0, 0, 0], rope_local_base_freq=10000.0)).right


def test_zeros_are_called_zeros(original, port):
    """Of bytes in the other order float16 makes zeros, too."""

    def zero(weights):
        weights[LAYER + "attn.proj.weight"] *= 0

    assert "is all zeros" in porter.verify(original, port(zero)).says


def test_a_sum_of_two_layers_is_told_from_what_was_trained_further(original, port):
    names = ("attn.proj.weight", "norm_1.weight")

    def merge(weights):
        for name in names:
            one, other = weights[LAYER + name], weights["transformer.h.2." + name]
            weights[LAYER + name] = 0.75 * one + 0.25 * other

    said = porter.verify(original, port(merge)).says
    assert "layer 1: `norm_1` and `attn.proj`: is 0.75 of its own and 0.25 of layer 2's" in said

    def train(weights):
        for name in names:
            one, other = weights[LAYER + name], weights["transformer.h.2." + name]
            noise = np.random.default_rng(1).standard_normal(one.shape, np.float32)
            weights[LAYER + name] = 0.75 * one + 0.25 * other + 0.05 * noise

    assert "of its own" not in porter.verify(original, port(train)).says


def test_strided_views_of_a_torch_file_are_read_as_torch_reads_them(tmp_path, original, port):
    weights = {name: torch.from_numpy(value) for name, value in litgpt_weights(hf_weights()).items()}
    name = LAYER + "mlp.fc_1.weight"
    for turned, outcome in (
        (weights[name].t().contiguous().t(), "equal"),
        (weights[name].flip(0), "differs"),
    ):
        folder = tmp_path / outcome
        folder.mkdir()
        (folder / "model_config.yaml").write_text(yaml.safe_dump(LITGPT))
        torch.save({**weights, name: turned}, folder / "lit_model.pth")
        assert porter.verify(original, folder).outcome == outcome


def test_the_command_tells_it_in_one_line_and_by_its_exit_code(original, port):
    right = command(original, port())
    assert (right.returncode, right.stdout.splitlines()[0][:17]) == (0, "equal: 24 tensors")
    wrong = command(original, port(lambda weights: weights.pop(LAYER + "norm_1.weight")))
    assert wrong.returncode == 3
    assert wrong.stdout.splitlines()[0] == "differs: 1 tensor is missing"
    as_json = command(original, port(norm_eps=1e-5), "--json")
    assert as_json.returncode == 3
    told = json.loads(as_json.stdout)
    assert (told["schema"], told["outcome"], told["right"]) == (1, "differs", False)
    assert told["config"]["differences"][0]["name"] == "norm_eps"


def test_no_torch_where_nothing_is_computed(original, port):
    program = "import sys, porter; v = porter.verify(*sys.argv[1:]); print(v.outcome, 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program, original, port()], capture_output=True, text=True)
    assert told.stdout.split() == ["equal", "False"], told.stderr


def test_tokenizers_are_compared_by_ids(tmp_path, original, port):
    import sentencepiece

    from porter.verification.page import lines

    text = tmp_path / "text.txt"
    text.write_text("\n".join(lines()[-24:-19] * 30), encoding="utf-8")
    for name, size in (("one", 80), ("other", 90)):
        sentencepiece.SentencePieceTrainer.train(
            input=str(text),
            model_prefix=str(tmp_path / name),
            vocab_size=size,
            model_type="bpe",
            character_coverage=1.0,
            minloglevel=2,
        )
    source = tmp_path / "source"
    shutil.copytree(original, source)
    outs = [port(), port()]
    for folder, name in ((source, "one"), (outs[0], "one"), (outs[1], "other")):
        shutil.copy(tmp_path / f"{name}.model", folder / "tokenizer.model")
    same, other = (porter.verify(source, out) for out in outs)
    assert (same.tokenizer.outcome, same.says) == ("equal", "equal: 24 tensors, config and tokenizer")
    assert (other.tokenizer.outcome, other.outcome) == ("differs", "differs")
    assert "gives other ids for" in other.tokenizer.says


def _renamed(tokenizer, settings):
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["never"] = vocabulary.pop("zz")


def _exchanged(tokenizer, settings):
    vocabulary, added = tokenizer["model"]["vocab"], tokenizer["added_tokens"]
    vocabulary["<s>"], vocabulary["</s>"] = vocabulary["</s>"], vocabulary["<s>"]
    added[0]["content"], added[1]["content"] = added[1]["content"], added[0]["content"]


CUT = {"direction": "Right", "max_length": 600, "strategy": "LongestFirst", "stride": 0}


def _pair(tokenizer, settings):
    tokenizer["post_processor"]["pair"].append({"SpecialToken": {"id": "<s>", "type_id": 1}})


TOKENIZER_CHANGES = {
    "a token that is found in a text": (
        lambda t, c: t["added_tokens"][1].update(single_word=True),
        "finds '</s>' otherwise where it stands in a text",
    ),
    "a token that is not special": (
        lambda t, c: t["added_tokens"][1].update(special=False),
        "has '</s>' as a token that is not special",
    ),
    "what is put around a pair": (_pair, "puts other special tokens around a text"),
    "long texts are cut": (
        lambda t, c: t.update(truncation=CUT),
        "cuts texts (direction right, max_length 600",
    ),
    "letters and their marks": (
        lambda t, c: t.update(normalizer={"type": "Sequence", "normalizers": [{"type": "StripAccents"}]}),
        "gives other ids for 1 of",
    ),
    "a token": (_renamed, "has another token for an id: 3 is 'never', not 'zz'"),
    "BOS and EOS": (_exchanged, "has another token for 2 ids: 0 is '</s>', not '<s>'"),
    "BOS left out": (lambda t, c: t.update(post_processor=None), "puts other special tokens around a text"),
    "decoder": (lambda t, c: t.update(decoder={"type": "Fuse"}), "makes other text of the same ids"),
    "eos_token": (lambda t, c: c.update(eos_token="<s>"), "eos_token is '<s>', not '</s>'"),
    "add_bos_token": (lambda t, c: c.update(add_bos_token=False), "add_bos_token is False, not True"),
    "chat template": (lambda t, c: c.update(chat_template="{{ 1 }}"), "the chat template is another"),
}
SAME_TOKENIZER = {
    "nothing": lambda t, c: None,
    "another way to write a token": lambda t, c: c.update(eos_token={"content": "</s>", "lstrip": False}),
    "less is stated": lambda t, c: c.pop("chat_template"),
    "another order": lambda t, c: t.update(version=t.pop("version")),
}


def _with_tokenizer(folder, change):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2, "zz": 3, "the": 4, "of": 5}, "<unk>")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    made.add_special_tokens(["<s>", "</s>"])
    content = json.loads(made.to_str())
    settings = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "chat_template": "{{ 2 }}"}
    change(content, settings)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _judged(tmp_path, original, out, change):
    source = tmp_path / "source"
    shutil.copytree(original, source)
    _with_tokenizer(source, lambda tokenizer, settings: None)
    _with_tokenizer(out, change)
    return porter.verify(source, out).tokenizer


@pytest.mark.parametrize("name", TOKENIZER_CHANGES)
def test_a_tokenizer_that_gives_the_same_ids_need_not_be_the_same(tmp_path, original, port, name):
    change, says = TOKENIZER_CHANGES[name]
    found = _judged(tmp_path, original, port(), change)
    assert found.outcome == "differs" and says in found.says, found.says


@pytest.mark.parametrize("name", SAME_TOKENIZER)
def test_what_says_the_same_is_the_same_tokenizer(tmp_path, original, port, name):
    found = _judged(tmp_path, original, port(), SAME_TOKENIZER[name])
    assert found.outcome == "equal", found.says


def test_settings_that_are_not_compared_are_said(tmp_path, original, port):
    source, out = tmp_path / "source", port()
    shutil.copytree(original, source)
    for folder in (source, out):
        _with_tokenizer(folder, lambda tokenizer, settings: settings.update(model_max_length=8))
        (folder / "generation_config.json").write_text('{"temperature": 0.7, "top_k": 5}')

    def noted():
        verdict = porter.verify(source, out)
        assert verdict.right
        return [note for note in verdict.notes if "not compared" in note or "chat template" in note]

    assert noted() == []
    _with_tokenizer(out, lambda tokenizer, settings: settings.update(model_max_length=9))
    (out / "generation_config.json").write_text('{"temperature": 0.3, "do_sample": true}')
    assert noted() == [
        "generation_config.json: not compared, and not alike: do_sample, temperature, top_k",
        "tokenizer_config.json: not compared, and not alike: model_max_length",
    ]
    (out / "generation_config.json").unlink()
    _with_tokenizer(out, lambda tokenizer, settings: settings.pop("chat_template"))
    assert noted() == ["the original has a chat template, and the port has none"]


def test_a_source_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(PorterError):
        porter.verify(tmp_path, tmp_path)


def untied(tmp_path, change=lambda head: None):
    """The original with a head of its own, the same matrix until `change`, and a config that says so."""
    weights = hf_weights()
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    change(weights["lm_head.weight"])
    name = f"untied-{len(list(tmp_path.iterdir()))}"
    return write(tmp_path / name, weights, {**CONFIG, "tie_word_embeddings": False})


def apart(folder, tied, head=lambda weights: weights["model.embed_tokens.weight"][::-1].copy()):
    """A config that ties, or not, beside an embedding and a head that differ."""
    weights = hf_weights()
    if (other := head(weights)) is not None:
        weights["lm_head.weight"] = other
    return write(folder, weights, {**CONFIG, "tie_word_embeddings": tied})


def test_two_that_differ_are_two_whatever_the_config_says(tmp_path):
    source = apart(tmp_path / "source", True)
    for name, tied in (("itself", True), ("untied", False)):
        verdict = porter.verify(source, apart(tmp_path / name, tied))
        assert (verdict.outcome, verdict.weights.outcome) == ("equal", "equal"), verdict.says
        assert any("stores two that differ" in note for note in verdict.notes)
    lost = porter.verify(source, apart(tmp_path / "lost", True, lambda weights: None))
    assert (lost.outcome, [item.name for item in lost.weights.missing]) == ("differs", ["lm_head.weight"])
    other = porter.verify(
        source, apart(tmp_path / "other", True, lambda weights: weights["model.embed_tokens.weight"] + 1)
    )
    assert other.outcome == "differs"


def test_a_head_that_equals_the_embedding_may_be_tied_in_the_port(tmp_path, original):
    verdict = porter.verify(untied(tmp_path), original)
    assert (verdict.outcome, verdict.config.outcome) == ("equal", "equal"), verdict
    assert any("both hold the same values" in note for note in verdict.notes)


def test_but_not_one_that_differs_in_one_value(tmp_path, original):
    def change(head):
        head[28, 41] += 1e-6

    verdict = porter.verify(untied(tmp_path, change), original)
    assert verdict.outcome == "differs"
    assert [difference.name for difference in verdict.config.differences] == ["tie_embeddings"]


@pytest.mark.parametrize("there", [np.inf, 65504.0, np.nan, -1.0])
def test_values_out_of_range_are_a_verdict_whatever_stands_there(tmp_path, port, there):
    """float16 ends at 65504. What a cast makes of more is no value of the original."""
    weights = hf_weights()
    weights["model.layers.1.mlp.gate_proj.weight"][3, 2] = 70000
    source = write(tmp_path / "large", weights, CONFIG)

    def cast(ported):
        ported.update(litgpt_weights(weights))
        ported[LAYER + "mlp.fc_1.weight"] = ported[LAYER + "mlp.fc_1.weight"].copy()
        ported[LAYER + "mlp.fc_1.weight"][3, 2] = there
        ported.update({name: torch.from_numpy(value).half() for name, value in ported.items()})

    ran = command(source, port(cast))
    assert ran.returncode == 3, ran.stderr
    said = "1 value is out of float16's range, the first at [3, 2] of transformer.h.1.mlp.fc_1.weight"
    assert ran.stdout.splitlines()[0].startswith("differs: ") and said in ran.stdout
    (tensor,) = porter.verify(source, port(cast)).weights.differing
    assert (tensor.elements, tensor.first) == (1, (3, 2))
    assert "out of float16's range" in tensor.says


def test_how_far_values_are_apart(original, port):
    def change(weights):
        weights[LAYER + "mlp.fc_1.weight"][3, 2] += 0.5

    (tensor,) = porter.verify(original, port(change)).weights.differing
    assert tensor.largest == pytest.approx(0.5)
    largest = float(np.abs(hf_weights()["model.layers.1.mlp.gate_proj.weight"]).max())
    assert tensor.relative == pytest.approx(0.5 / largest)


def test_no_torch_where_values_are_rounded_or_explained_either(original, port):
    def cast(weights):
        weights["transformer.ln_f.weight"] = weights["transformer.ln_f.weight"] + 1
        weights.update({name: torch.from_numpy(value).bfloat16() for name, value in weights.items()})

    program = (
        "import sys, porter; v = porter.verify(*sys.argv[1:]); print(v.says, '|', 'torch' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, original, port(cast)], capture_output=True, text=True
    )
    assert told.stdout.strip().endswith("| False"), told
    assert "+1 is folded in" in told.stdout


def test_both_sides_may_be_in_buckets(bucket, original, port):
    """The same verdicts as on a disk; what was done wrong is looked for only there, and that is said."""
    there = bucket.fill(original, "original")
    verdict = porter.verify(there, bucket.fill(port(), "port"))
    assert (verdict.outcome, verdict.weights.tensors) == ("equal", 24)

    def swap(weights):
        weights[LAYER + "mlp.fc_1.weight"], weights[LAYER + "mlp.fc_2.weight"] = (
            weights[LAYER + "mlp.fc_2.weight"],
            weights[LAYER + "mlp.fc_1.weight"],
        )

    wrong = port(swap)
    for source, out in ((there, wrong), (original, bucket.fill(wrong, "wrong"))):
        verdict = porter.verify(source, out)
        assert [tensor.elements for tensor in verdict.weights.differing] == [17 * 42] * 2
        assert not verdict.mistakes and any("porter download" in note for note in verdict.notes)
        ran = bucket.porter("verify", source, out)
        assert ran.returncode == 3 and "files on this machine alone" in ran.stderr
        found = porter.diff(source, out)
        assert not found.same and {item.name for item in found.values} == {"1.mlp.gate", "1.mlp.up"}
    ran = bucket.porter("verify", there, wrong, "--quick")
    assert ran.returncode == 2 and "--quick" in ran.stderr
