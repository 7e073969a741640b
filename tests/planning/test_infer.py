"""Hyperparameters from shapes alone: what Keras' and Flax' kernels say, and what merged dims cannot."""

from __future__ import annotations

import itertools
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import porter
from porter.errors import MalformedError, UnsupportedError
from porter.recognition.infer import infer, missing_rules

FAMILIES = ("gemma", "gemma2", "gemma3_text")
SIZES = ("n_layer", "d_model", "n_head", "n_kv_head", "head_dim", "d_ff", "vocab_size")


def inferred(shipped, family, dialect, **changes):
    found = shipped.families[family]
    return infer(found.dialect(dialect), found.canonical, shipped.shapes(family, dialect, **changes))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dialect", ["keras", "flax"])
@pytest.mark.parametrize(("n_head", "n_kv_head"), [(6, 1), (6, 3), (6, 6)], ids=["mqa", "gqa", "mha"])
def test_kernels_say_every_size(shipped, family, dialect, n_head, n_kv_head):
    sizes = {"n_head": n_head, "n_kv_head": n_kv_head}
    found = inferred(shipped, family, dialect, **sizes)
    example = shipped.example(family, **sizes)
    assert found.unknown == ()
    assert {name: found.hyperparameters[name] for name in SIZES} == {name: example[name] for name in SIZES}


@given(
    kv=st.integers(1, 9),
    per_kv=st.integers(1, 9),
    head_dim=st.integers(1, 40),
    d_model=st.integers(1, 90),
    n_layer=st.integers(1, 12),
)
def test_whatever_the_sizes(shipped, kv, per_kv, head_dim, d_model, n_layer):
    """Equal sizes too: an equation that holds by chance may not stand for another."""
    sizes = {"n_head": kv * per_kv, "n_kv_head": kv, "head_dim": head_dim, "d_model": d_model}
    found = inferred(shipped, "gemma", "keras", **sizes, n_layer=n_layer)
    assert found.unknown == ()
    assert found.hyperparameters.items() >= {**sizes, "n_layer": n_layer}.items()


@pytest.mark.parametrize("family", ["gemma", "gemma2", "llama"])
@pytest.mark.parametrize("dialect", ["hf", "litgpt"])
def test_merged_heads_stay_unknown_and_are_named(shipped, family, dialect):
    found = inferred(shipped, family, dialect)
    assert found.unknown == ("n_head", "n_kv_head", "head_dim")
    assert found.hyperparameters["d_model"] == shipped.example(family)["d_model"]


def test_a_norm_of_each_head_tells_heads_apart(shipped):
    """Gemma 3's q_norm is of head_dim, so that its merged dims can be divided."""
    found = inferred(shipped, "gemma3_text", "hf")
    assert found.unknown == ()
    assert found.hyperparameters["n_head"] == shipped.example("gemma3_text")["n_head"]


def test_sums_are_solved_too(lab):
    family = lab.family(
        """
        family = "lab"
        version = 1
        [axes]
        a = "n_a"
        b = "n_b"
        [tensors]
        x = "a b"
        y = "b"
        [hyperparameters]
        n_a = "int"
        n_b = "int"
        """,
        mine='[[rule]]\ntheirs = "xy"\nours = ["x", "y"]\nlayout = "(a | 1) b"\n',
    )
    found = infer(family.dialect("mine"), family.canonical, {"xy": (8, 3)})
    assert found.hyperparameters == {"n_a": 7, "n_b": 3}
    assert infer(family.dialect("mine"), family.canonical, {}).unknown == ("n_a", "n_b")
    assert infer(family.dialect("mine"), family.canonical, {"xy": (3,)}).unknown == ("n_a", "n_b"), "rank"


def test_a_family_that_expects_more_misses_rules(shipped):
    shapes = shipped.shapes("gemma", "keras")
    families = [shipped.families[name] for name in ("gemma", "gemma2")]
    assert [missing_rules(f.dialect("keras"), f.canonical, shapes) for f in families] == [0, 2]


# --- bare weights ------------------------------------------------------------------------------------


@pytest.fixture
def bare(shipped, tmp_path):
    """Writes a `.weights.h5` and nothing else; `drop` and `add` make it a wrong one."""

    def write(family, drop=(), add=None, **changes):
        shapes = shipped.shapes(family, "keras", **changes)
        shapes = {n: s for n, s in shapes.items() if n != "layers/reversible_embedding/vars/1"}
        shapes = {n: s for n, s in shapes.items() if n not in drop} | (add or {})
        path = tmp_path / "bare.weights.h5"
        with h5py.File(path, "w") as file:
            for number, (name, shape) in enumerate(shapes.items()):
                file[name] = np.full(shape, number, np.float32)
        return path

    return write


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_is_found_and_what_is_assumed_is_said(shipped, bare, family):
    found = porter.inspect(bare(family))
    assert (found.family, found.dialect) == (family, "keras")
    example = shipped.example(family)
    assert {name: found.hyperparameters[name] for name in SIZES} == {name: example[name] for name in SIZES}
    (note,) = found.notes
    assert f"as in the published {family} models" in note
    assert "n_head =" not in note and "rope_theta =" not in note, "shapes, and code, leave no doubt"
    for said in {"gemma2": ["attn_softcap = 50.0", "final_softcap = 30.0", "sliding_window = 4096"]}.get(
        family, []
    ):
        assert said in note


# n_layer, what the published model of that size has.
PUBLISHED = [
    ("gemma2", 26, {"query_scale": 10, "sliding_window": 4096, "attn_softcap": 50.0}),
    ("gemma2", 46, {"query_scale": 66 // 6}),
    (
        "gemma3_text",
        26,
        {"query_scale": 10, "sliding_window": 512, "rope_factor": None, "context_length": 32768},
    ),
    (
        "gemma3_text",
        34,
        {"query_scale": 10, "sliding_window": 1024, "rope_factor": 8.0, "rope_type": "linear"},
    ),
    ("gemma3_text", 62, {"query_scale": 66 // 6, "rope_factor": 8.0, "context_length": 131072}),
]


@pytest.mark.parametrize(("family", "n_layer", "expected"), PUBLISHED)
def test_what_the_published_sizes_have(shipped, bare, family, n_layer, expected):
    layers = list(itertools.islice(itertools.cycle([True, False]), n_layer))
    found = porter.inspect(bare(family, n_layer=n_layer, sliding_layers=layers, rope_local_layers=layers))
    assert {name: found.hyperparameters[name] for name in expected} == expected
    period = 2 if family == "gemma2" else 6
    assert found.hyperparameters["sliding_layers"] == [(layer + 1) % period != 0 for layer in range(n_layer)]


def test_bare_weights_are_converted(bare, shipped):
    plan = porter.plan(bare("gemma2"), to="hf")
    assert {tensor.name: tensor.shape for tensor in plan.targets()} == {
        name: shape for name, shape in shipped.shapes("gemma2", "hf").items() if name != "lm_head.weight"
    }
    assert any("no config.json beside the weights" in note for note in plan.notes)


def test_a_lost_tensor_is_missing_and_makes_no_other_family(bare):
    lost = "layers/gemma_decoder_block_3/ffw_linear/vars/0"
    with pytest.raises(MalformedError, match="1 tensor missing") as caught:
        porter.plan(bare("gemma", drop=[lost]), to="hf")
    assert lost in caught.value.cause


def test_a_tensor_too_many_is_unmapped(bare):
    with pytest.raises(UnsupportedError, match="not mapped by gemma/keras"):
        porter.plan(bare("gemma", add={"layers/other/vars/0": (2, 3)}), to="hf")


def test_a_shape_that_disagrees_with_the_others_is_found(bare):
    name = "layers/gemma_decoder_block_2/attention/key_dense/vars/0"
    with pytest.raises(MalformedError, match="1 tensor with a wrong shape") as caught:
        porter.plan(bare("gemma", add={name: (3, 66, 11)}), to="hf")
    assert name in caught.value.cause


def test_weights_of_another_model_are_no_gemma(bare, shipped):
    """Negative control: some names in common do not make a family."""
    kernels = [name for name in shipped.shapes("gemma", "keras") if "attention" in name]
    with pytest.raises(UnsupportedError, match="no mapping table fits") as caught:
        porter.plan(bare("gemma", drop=kernels), to="hf")
    assert 'config="FILE"' in caught.value.hint


# --- what asks for a config --------------------------------------------------------------------------


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "porter", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("dialect", ["hf", "litgpt"])
def test_weights_with_merged_heads_ask_for_a_config(shipped, tmp_path, dialect):
    folder = shipped.write(tmp_path / "m", "gemma", dialect)
    file = shipped.families["gemma"].dialect(dialect).config.file
    (folder / file).rename(tmp_path / file)

    seen = command("inspect", folder)
    assert seen.returncode == 0 and "Tensor" in seen.stdout
    assert "no config beside its weights" in seen.stderr and "--config FILE" in seen.stderr

    refused = command("convert", folder, "--to", "keras", "--dry-run")
    assert refused.returncode == 5 and refused.stdout == ""
    assert "cannot separate the number of heads from head_dim" in refused.stderr
    assert "--config FILE" in refused.stderr

    found = porter.inspect(folder, config=tmp_path / file)
    assert (found.family, found.dialect) == ("gemma", dialect)
    assert all("all published gemma models have" in note for note in found.notes), "nothing is assumed"
