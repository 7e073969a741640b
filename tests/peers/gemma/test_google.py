"""Gemma in the forms of Google's PyTorch and JAX implementations and of the old LitGPT, judged by logits.

Hugging Face's model is what transformers computes; what porter wrote is computed as the other framework does.
"""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file
from torch import equal

import porter
from porter.errors import UnsupportedError

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


@pytest.mark.parametrize(
    ("name", "field"),
    [("gemma2", "use_pre_ffw_norm"), ("gemma2", "use_post_ffw_norm"), ("gemma3", "use_qk_norm")],
)
def test_a_norm_that_gemma_pytorchs_config_leaves_out_is_not_computed(gemmas, tmp_path, name, field):
    """GemmaConfig takes it for false (`gemma/config.py`), and `load_weights` passes over what is left."""
    source, out = gemmas.path(name), tmp_path / "out"
    porter.convert(source, out, to="gemma_pytorch")
    assert porter.verify(source, out).right
    config = json.loads((out / "config.json").read_text())
    assert config.pop(field) is True
    (out / "config.json").write_text(json.dumps(config))
    assert [one.name for one in porter.verify(source, out).config.differences] == [field]
    with pytest.raises(UnsupportedError, match=field):
        porter.plan(out, to="hf")
