"""What is written is read back: for every family and dialect, and from one dialect through another."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from porter.config.write import dump_config
from porter.errors import UnsupportedError
from porter.tables import load_families

WRITABLE = [
    (family.name, dialect.name)
    for family in load_families().values()
    for dialect in family.dialects.values()
    if dialect.files.writable
]
GENERAL = [(family, dialect) for family, dialect in WRITABLE if dialect in ("hf", "litgpt")]


@st.composite
def hyperparameters(draw, configs, family):
    """The family's example with other sizes and settings that every writable dialect can express."""
    n_layer = draw(st.integers(2 if family == "gemma4" else 1, 7))  # its last layer never slides
    n_kv_head = draw(st.integers(1, 4))
    # A quarter of it is rotated in GPT-NeoX; an odd number of dims is rotated differently by each framework.
    partly = ("gpt_neox", "phi", "phi3", "stablelm", "glm", "glm4")
    head_dim = (8 if family in partly else 2) * draw(st.integers(1, 9))
    merged = family in ("gpt_neox", "gpt2", "phi", "phi3", "falcon", "stablelm", "olmoe")  # d_model / n_head
    example = configs.example(family)
    latent = example["attention_kind"] == "latent"
    alone = latent or family in ("gpt_neox", "gpt2")
    per_kv = 1 if alone else draw(st.integers(1, 4))
    n_head = n_kv_head * per_kv
    if latent:
        head_dim = example["qk_rope_dim"]
    changes = {
        "n_layer": n_layer,
        "n_kv_head": n_kv_head,
        "n_head": n_head,
        "head_dim": head_dim,
        "d_model": n_head * (head_dim if merged else draw(st.integers(1, 99))),
        "d_ff": draw(st.integers(1, 999)),
        "vocab_size": draw(st.integers(1, 999)),
        "context_length": draw(st.integers(1, 10**6)),
        "norm_eps": draw(st.sampled_from([1e-5, 1e-6, 1e-12, 0.001])),
        "rope_theta": draw(st.sampled_from([10000, 10000.0, 500000.0, 1e6, 12345.5])),
        "tie_embeddings": draw(st.booleans()),
    }
    if family == "olmo":
        changes["norm_eps"] = 1e-5
    if latent:
        changes["norm_eps"] = example["latent_norm_eps"]
    scaled = {name: draw(st.integers(1, 300)) for name in ("gemma2", "gemma3_text", "vaultgemma")}
    changes["query_scale"] = example["query_scale"] if latent else scaled.get(family, head_dim)
    for name in ("sliding_layers", "rope_local_layers"):
        if example[name] is not None:
            every = family in ("mistral", "mixtral", "phi3", "starcoder2", "qwen3_moe")
            flags = draw(st.lists(st.booleans(), min_size=n_layer, max_size=n_layer))
            # Windows on no layer would be none at all.
            flags[0] = True
            if family == "gemma4":
                flags[-1] = False
            changes[name] = [True] * n_layer if every else flags
    if changes.get("rope_local_layers") is not None:
        changes["rope_local_layers"] = changes["sliding_layers"]
    if family == "llama":
        changes["attention_bias"] = changes["attention_out_bias"] = draw(st.booleans())
        changes["mlp_bias"] = changes["attention_bias"]
        kind = draw(st.sampled_from(["default", "linear", "llama3"]))
        changes["rope_type"] = kind
        if kind != "default":
            changes["rope_factor"] = draw(st.sampled_from([2.0, 8.0, 32.0]))
        if kind == "llama3":
            changes |= {
                "rope_low_freq_factor": 1.0,
                "rope_high_freq_factor": 4.0,
                "rope_original_context": 8192,
            }
    if family == "gemma2":
        changes["attn_softcap"] = draw(st.sampled_from([None, 50.0, 30.0]))
    if family in ("gemma2", "gemma3_text"):
        changes["final_softcap"] = draw(st.sampled_from([None, 30.0, 20.0]))
    if family in partly:
        changes["rotary_percentage"] = draw(st.sampled_from([0.25, 0.5, 0.75]))
    if example["learned_positions"]:
        del changes["rope_theta"]
    if family in ("mixtral", "olmoe", "gpt_oss"):
        changes["d_expert"] = changes["d_ff"]
    if family == "gpt_neox":
        changes["parallel_residual"] = draw(st.booleans())
        changes["rotary_percentage"] = draw(st.sampled_from([0.25, 0.5, 1.0]))
        changes["activation"] = draw(st.sampled_from(["gelu", "gelu_tanh"]))
    if family in ("gemma3n", "gemma4"):
        changes |= _layer_by_layer(draw, family, changes)
    return {**example, **changes}


def _layer_by_layer(draw, family, sizes):
    """What Gemma 3n and 4 state for each layer: hidden units in 3n, and in 4 other heads in full layers."""
    n_layer, slides = sizes["n_layer"], sizes["sliding_layers"]
    shared = draw(st.integers(0, n_layer))
    changes = {"query_scale": 1, "n_kv_shared": shared, "final_softcap": draw(st.sampled_from([30.0, 20.0]))}
    if family == "gemma3n":
        d_ffs = draw(st.lists(st.integers(1, 999), min_size=n_layer, max_size=n_layer))
        shares = st.sampled_from([0.0, 0.95])
        return changes | {
            "head_dims": [sizes["head_dim"]] * n_layer,
            "n_kv_heads": [sizes["n_kv_head"]] * n_layer,
            "d_ffs": d_ffs,
            "d_ff": d_ffs[0],
            "sparsity": draw(st.lists(shares, min_size=n_layer, max_size=n_layer)),
        }
    same_kv, wide = draw(st.booleans()), draw(st.booleans())
    full_heads = draw(st.sampled_from([1, sizes["n_kv_head"]])) if same_kv else sizes["n_kv_head"]
    full_dim = 2 * draw(st.integers(1, 9))
    kind = draw(st.sampled_from(["default", "linear", "proportional"]))
    share = draw(st.sampled_from([0.0, 0.25, 0.5])) if kind == "proportional" else 1.0
    return changes | {
        "k_eq_v": same_kv,
        "double_wide": wide,
        "head_dims": [sizes["head_dim"] if slide else full_dim for slide in slides],
        "n_kv_heads": [sizes["n_kv_head"] if slide else full_heads for slide in slides],
        "d_ffs": [sizes["d_ff"] * (2 if wide and at >= n_layer - shared else 1) for at in range(n_layer)],
        "rope_type": kind,
        "rope_factor": draw(st.sampled_from([None, 8.0]))
        if kind == "proportional"
        else 8.0
        if kind == "linear"
        else None,
        "rotary_percentage": share,
        "no_rotation": int(share * full_dim) < 2,
        "attends_to": draw(st.sampled_from([None, "all", "vision"])),
    }


@pytest.mark.parametrize(("family", "dialect"), GENERAL)
def test_the_example_is_written_and_read_back(configs, family, dialect):
    wanted = configs.example(family)
    raw = configs.write(family, dialect, wanted)
    found = configs.read(family, dialect, raw, configs.shapes(family, dialect, wanted))
    assert configs.computing(family, found, dialect) == configs.computing(family, wanted, dialect)


@pytest.mark.parametrize(("family", "dialect"), WRITABLE)
@settings(max_examples=25)
@given(st.data())
def test_any_model_is_refused_or_written_and_read_back(configs, family, dialect, data):
    wanted = data.draw(hyperparameters(configs, family))
    try:
        raw = configs.write(family, dialect, wanted)
    except UnsupportedError:
        assert (family, dialect) not in GENERAL, "these express whatever is drawn"
        return
    file = configs.families[family].dialect(dialect).config.file
    text = dump_config(raw, file)
    parsed = yaml.safe_load(text) if file.endswith(".yaml") else json.loads(text)
    found = configs.read(family, dialect, parsed, configs.shapes(family, dialect, wanted))
    assert configs.computing(family, found, dialect) == configs.computing(family, wanted, dialect)
    assert configs.reader(family, dialect, parsed).unknown_fields() == []


def test_a_changed_config_reads_differently(configs):
    """Negative control: the comparison above sees a changed field."""
    wanted = configs.example("gemma")
    raw = configs.write("gemma", "hf", wanted)
    found = configs.read("gemma", "hf", raw | {"rms_norm_eps": 1e-5})
    assert configs.computing("gemma", found) != configs.computing("gemma", wanted)


def test_text_is_the_same_whatever_the_order(configs):
    raw = configs.write("gemma", "hf", configs.example("gemma"))
    backwards = dict(reversed(raw.items()))
    assert list(backwards) != list(raw)
    assert dump_config(backwards, "config.json") == dump_config(raw, "config.json")
    assert dump_config(backwards, "x.yaml") == dump_config(raw, "x.yaml")


def test_numbers_of_a_yaml_are_numbers_to_every_reader(configs):
    """YAML 1.1 reads `1e-06` as text; what is written must not be taken for it."""
    raw = configs.write("gemma", "litgpt", configs.example("gemma", norm_eps=1e-6))
    parsed = yaml.safe_load(dump_config(raw, "model_config.yaml"))
    assert parsed["norm_eps"] == 1e-6 and isinstance(parsed["norm_eps"], float)
    assert isinstance(parsed["rope_base"], int)
