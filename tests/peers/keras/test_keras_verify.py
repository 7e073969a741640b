"""What KerasHub's own exporter to transformers makes of presets, as `porter verify` tells it."""

from __future__ import annotations

import pytest

import porter

pytestmark = pytest.mark.peer


def exported(presets, tmp_path, name):
    out = tmp_path / "exported"
    presets.build(name).export_to_transformers(str(out))
    return porter.verify(presets.path(name), out)


@pytest.mark.parametrize("name", ["gemma-square", "gemma3"])
def test_where_its_exporter_is_right_it_is_said_to_be(presets, tmp_path, name):
    """One kv head and heads * head_dim = hidden_dim, as Gemma 2B has; a linear RoPE scaling by 1 is none."""
    verdict = exported(presets, tmp_path, name)
    assert (verdict.outcome, verdict.config.outcome) == ("equal", "equal"), verdict


def test_it_scrambles_queries_that_are_not_as_wide_as_the_model(presets, tmp_path):
    verdict = exported(presets, tmp_path, "gemma-mqa")
    (mistake,) = verdict.mistakes
    assert mistake.says == (
        "`model.layers.{n}.self_attn.q_proj.weight`: has the shape of its transpose, and other values"
    )
    assert len(mistake.tensors) == 3 and verdict.weights.differing == ()


def test_it_takes_the_first_of_several_kv_heads(presets, tmp_path):
    said = [mistake.says for mistake in exported(presets, tmp_path, "gemma-gqa").mistakes]
    told = "10 rows are missing (10, not 20), the others are as they should be"
    for part in ("k", "v"):
        assert f"`model.layers.{{n}}.self_attn.{part}_proj.weight`: {told}" in said


def test_it_exports_a_gemma_2_as_a_gemma_1(presets, tmp_path):
    verdict = exported(presets, tmp_path, "gemma2")
    said = "\n".join(mistake.says for mistake in verdict.mistakes)
    assert "layers 0 to 3: `post_attention_layernorm` holds pre_ffw_norm" in said
    for words in ("soft-cap of attention", "soft-cap of the logits", "sliding window"):
        assert words in said
    # The preset's queries are scaled by their own size, as a Gemma 1's are.
    assert "scale of queries" not in said
    missing = {tensor.name.rpartition("layers.")[2][2:] for tensor in verdict.weights.missing}
    assert missing == {"pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"}
