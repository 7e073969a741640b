"""Gemma in the forms of Google's PyTorch and JAX implementations and of the old LitGPT, judged by logits.

Hugging Face's model is what transformers computes; what porter wrote is computed as the other framework does.
"""

from __future__ import annotations

import pytest
from safetensors.torch import load_file
from torch import equal

import porter

pytestmark = pytest.mark.peer

# Relative to max |logit|. Both sides compute in float64; what is left are float32 tables (RoPE's angles in
# transformers and LitGPT, the embedding's scale), of a resolution of 1.2e-7 each.
BOUND = 2e-6

CASES = [
    (name, dialect)
    for name in ("gemma-mqa", "gemma-gqa", "gemma-mha", "gemma2", "gemma3")
    for dialect in ("gemma_pytorch", "flax", "flax-transposed", "litgpt-legacy")
    if (dialect != "flax-transposed" or name == "gemma2") and (dialect != "litgpt-legacy" or name != "gemma3")
]


@pytest.mark.parametrize(("name", "dialect"), CASES)
def test_the_other_framework_computes_what_transformers_does(
    gemmas, configs, oracle, difference, tmp_path, name, dialect
):
    source = gemmas.path(name)
    porter.convert(source, tmp_path / "out", to=dialect)
    assert difference(oracle(dialect, tmp_path / "out", configs[name]), gemmas.logits(source)) <= BOUND


@pytest.mark.parametrize(("name", "dialect"), CASES)
def test_the_way_back_gives_the_same_tensors(gemmas, tmp_path, name, dialect):
    source = gemmas.path(name)
    porter.convert(source, tmp_path / "out", to=dialect)
    porter.convert(tmp_path / "out", tmp_path / "back", to="hf", target_model="transformers")
    expected, found = load_file(source / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert found.keys() == expected.keys()
    assert all(equal(found[key], expected[key]) for key in expected)
