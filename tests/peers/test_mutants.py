"""A sample of the tables' mutants, of every family; `make families` runs them all (`mutants.py`)."""

from __future__ import annotations

import pytest

from porter.layout import parse_layout
from porter.tables import load_families
from porter.tables.catalogue import family_names
from tests.peers import families, mutants


def test_every_family_with_a_table_has_its_mutants():
    assert sorted(families.every_family()) == family_names()


@pytest.mark.peer
@pytest.mark.parametrize("family", families.every_family())
def test_a_table_with_a_mistake_is_refused_or_changes_the_logits(family, tmp_path):
    bed = mutants.Bed(tmp_path, families.config_of(family, ""), families)
    for dialect in bed.dialects:
        tally = mutants.Tally()
        tally.add(bed, dialect, mutants.SAMPLE)
        assert tally.alive == []
        assert tally.tried == mutants.SAMPLE


@pytest.mark.peer
@pytest.mark.parametrize("family", families.KERAS)
def test_a_keras_table_with_a_mistake_is_refused_or_changes_the_logits(family, tmp_path):
    values = families.config_of(family, "") | families.KERAS[family]
    tally = mutants.Tally()
    tally.add(mutants.Bed(tmp_path, values, families), "keras", mutants.SAMPLE)
    assert tally.alive == []
    assert tally.tried == mutants.SAMPLE


def test_what_is_swapped_is_what_has_one_size():
    """By hand: the mutants of LitGPT's fused rows and of its two products, in a model of equal sizes."""
    family = load_families()["llama"]
    silent = {name: entry.neutral for name, entry in family.canonical.hyperparameters.items()}
    sizes = {"d_model": 64, "d_ff": 64, "n_head": 16, "n_kv_head": 4, "head_dim": 4, "vocab_size": 80}
    values = silent | dict(family.canonical.example) | sizes | {"n_layer": 1, "tie_embeddings": False}
    made = [mutant.what for mutant in mutants.mutants(family.dialect("litgpt"), family.canonical, values)]
    qkv = [what for what in made if "attn.qkv.weight" in what]
    k = "n_kv_head head_dim"
    q = "n_kv_head q_per_kv head_dim"
    turned = [
        f"(q_per_kv n_kv_head head_dim | {k} | {k}) d_model",
        f"(head_dim q_per_kv n_kv_head | {k} | {k}) d_model",
        f"(n_kv_head head_dim q_per_kv | {k} | {k}) d_model",
        f"({q} | head_dim n_kv_head | {k}) d_model",
        f"({q} | {k} | head_dim n_kv_head) d_model",
    ]
    assert [what.split(" → ")[1] for what in qkv] == turned
    assert all(str(parse_layout(layout)) == layout for layout in turned)
    assert any("attn.proj.weight: two dims" in what for what in made)
    for pair in (
        "{layer}.attn.k and {layer}.attn.v",
        "{layer}.mlp.gate and {layer}.mlp.up",
        "{layer}.attn.norm and {layer}.mlp.norm",
    ):
        assert pair in made
    # 80 is no 64: the embedding has no square to hide in.
    assert not any("wte" in what for what in made)


@pytest.mark.peer
def test_what_is_no_mistake_survives(tmp_path):
    """The control: mutants that are the same model, and that are left out for that, change nothing."""
    bed = mutants.Bed(tmp_path, families.config_of("phi", ""), families)
    (same,) = [mutant for mutant in bed.mutants("litgpt") if mutant.same]
    assert same.what == "{layer}.attn.o_bias and {layer}.mlp.down_bias"
    assert bed.apart(same.dialect) <= mutants.BOUND
