"""The example in `examples/fused`, by the commands of its README, on a Gemma that transformers has saved."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import porter

EXAMPLE = Path(__file__).parents[2] / "examples" / "fused"
LAYERS = 3


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two tiny Gemmas, with one kv head and with two, by that number."""
    transformers = importlib.import_module("transformers")
    root = tmp_path_factory.mktemp("gemmas")
    for kv_heads in (1, 2):
        torch.manual_seed(kv_heads)
        config = transformers.GemmaConfig(
            vocab_size=97,
            hidden_size=66,
            intermediate_size=101,
            num_hidden_layers=LAYERS,
            num_attention_heads=6,
            num_key_value_heads=kv_heads,
            head_dim=10,
            max_position_embeddings=700,
        )
        model = transformers.GemmaForCausalLM(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_()
        model.save_pretrained(root / str(kv_heads))
    return {kv_heads: root / str(kv_heads) for kv_heads in (1, 2)}


@pytest.fixture
def commands(sources, tmp_path, monkeypatch):
    """The README's commands, as written there, with SRC, `out` and `back` put in their places."""
    monkeypatch.chdir(EXAMPLE.parents[1])
    text = (EXAMPLE / "README.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^    porter (.+)$", text, flags=re.MULTILINE)

    def spelled(kv_heads: int) -> list[list[str]]:
        places = {"SRC": sources[kv_heads], "out": tmp_path / "out", "back": tmp_path / "back"}
        return [[str(places.get(word, word)) for word in shlex.split(line)] for line in lines]

    return spelled


def module(config):
    spec = importlib.util.spec_from_file_location("fused_gemma", EXAMPLE / "fused_gemma.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    with torch.device("meta"):
        return loaded.FusedGemma(config)


@pytest.mark.peer
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_the_readmes_commands_fuse_and_take_apart_again(commands, sources, run, tmp_path, kv_heads):
    spelled = commands(kv_heads)
    assert [words[0] for words in spelled] == ["mappings", "mappings", "convert", "convert"]
    for words in spelled:
        done = run(*words, cwd=EXAMPLE.parents[1])
        assert done.returncode == 0, done.stderr

    source = load_file(sources[kv_heads] / "model.safetensors")
    fused = load_file(tmp_path / "out" / "model.safetensors")
    plain = {
        "input_layernorm": "attn_norm",
        "self_attn.o_proj": "o_proj",
        "post_attention_layernorm": "mlp_norm",
        "mlp.down_proj": "down_proj",
    }
    expected = {
        "embed.weight": source["model.embed_tokens.weight"],
        "norm.weight": source["model.norm.weight"],
    }
    for layer in range(LAYERS):
        theirs, ours = f"model.layers.{layer}", f"layers.{layer}"
        expected |= {f"{ours}.{to}.weight": source[f"{theirs}.{name}.weight"] for name, to in plain.items()}
        expected[f"{ours}.qkv_proj.weight"] = torch.cat(
            [source[f"{theirs}.self_attn.{part}_proj.weight"] for part in "qkv"]
        )
        expected[f"{ours}.gate_up_proj.weight"] = torch.cat(
            [source[f"{theirs}.mlp.{part}_proj.weight"] for part in ("gate", "up")]
        )
    assert fused.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(fused[name], tensor), name

    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["kind"] == "fused-gemma"
    module(config).load_state_dict(fused, strict=True, assign=True)

    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == source.keys()
    for name, tensor in source.items():
        assert back[name].numpy().tobytes() == tensor.numpy().tobytes(), name
    model_config = json.loads((tmp_path / "back" / "config.json").read_text())
    for field in ("model_type", "hidden_size", "num_key_value_heads", "head_dim", "rms_norm_eps"):
        assert model_config[field] == json.loads((sources[kv_heads] / "config.json").read_text())[field]


def other_module(directory: Path, old: str, new: str) -> str:
    text = (EXAMPLE / "fused_gemma.py").read_text()
    assert old in text
    path = directory / "other_gemma.py"
    path.write_text(text.replace(old, new))
    return f"{path}:FusedGemma"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "nn.Linear(dim, 2 * hidden, bias=False)",
            "nn.Linear(2 * dim, hidden, bias=False)",
            [
                "3 tensors differ",
                "misshapen layers.2.gate_up_proj.weight: the model has [31, 44], the plan [62, 22]",
            ],
        ),
        (
            "self.gate_up_proj =",
            "self.wi =",
            [
                "6 tensors differ",
                "missing layers.0.wi.weight [62, 22]",
                "unexpected layers.0.gate_up_proj.weight [62, 22] (fused/fused.toml:",
            ],
        ),
        (
            "(heads + 2 * kv_heads) * size, bias=False",
            "(heads + 2 * kv_heads) * size, bias=True",
            ["3 tensors differ", "missing layers.1.qkv_proj.bias [50]"],
        ),
    ],
)
def test_a_module_that_is_made_otherwise_is_refused(refused, gemma, tmp_path, old, new, words):
    options = ["--to", "fused", "--map", EXAMPLE / "fused.toml", "-o", tmp_path / "out"]
    spec = other_module(tmp_path, old, new)
    refused(5, ["convert", gemma, *options, "--target-model", spec], "does not accept the plan", *words)


def test_a_checkpoint_with_biases_is_refused(refused, save, tensors, config, tmp_path):
    for layer in range(3):
        for part in "qkvo":
            projection = f"model.layers.{layer}.self_attn.{part}_proj"
            tensors[f"{projection}.bias"] = tensors[f"{projection}.weight"][:, 0].copy()
    source = save(tensors, config | {"attention_bias": True})
    options = ["--to", "fused", "--map", EXAMPLE / "fused.toml", "-o", tmp_path / "out"]
    refused(5, ["convert", source, *options], "Fused Gemma cannot express attention_bias", "no place for it")


def test_gate_and_up_are_not_told_apart_by_shape(gemma, tmp_path):
    """What the README warns of: the proof shows coverage and shapes, not meaning."""
    swapped = (EXAMPLE / "fused.toml").read_text()
    right = '["{layer}.mlp.gate", "{layer}.mlp.up"]'
    assert right in swapped
    table = tmp_path / "swapped.toml"
    table.write_text(swapped.replace(right, '["{layer}.mlp.up", "{layer}.mlp.gate"]'))
    model = f"{EXAMPLE / 'fused_gemma.py'}:FusedGemma"
    made = {}
    for name, path in (("right", EXAMPLE / "fused.toml"), ("wrong", table)):
        out = tmp_path / name
        porter.convert(gemma, out, to="fused", maps=[path], target_model=model)
        made[name] = load_file(out / "model.safetensors")["layers.0.gate_up_proj.weight"]
    assert torch.equal(made["right"].roll(31, 0), made["wrong"])
    assert not torch.equal(made["right"], made["wrong"])
