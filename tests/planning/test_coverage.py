"""The source's half of the proof: what is missing, what is left over, what has another shape."""

import pytest

from porter.api.convert import plan
from porter.errors import MalformedError, UnsupportedError


def test_a_whole_checkpoint_is_covered(shipped, tmp_path):
    """Negative control for all that follows."""
    made = plan(shipped.write(tmp_path / "m", "gemma", "hf", drop=["lm_head.weight"]), to="litgpt")
    assert made.summary.source_tensors == 1 + 7 * 9 + 1
    assert made.summary.target_tensors == 1 + 7 * 7 + 2
    assert made.summary.fused == 7
    assert made.summary.renamed == 1 + 7 * 6 + 1
    assert made.summary.ties_written == 1
    assert made.summary.unmapped == made.summary.dropped == 0


def test_a_missing_tensor_is_named_with_its_shape_and_rule(shipped, tmp_path):
    gone = "model.layers.3.self_attn.k_proj.weight"
    folder = shipped.write(tmp_path / "m", "gemma", "hf", drop=[gone])
    with pytest.raises(MalformedError, match="1 tensor missing from m") as caught:
        plan(folder, to="litgpt")
    assert f"{gone} [30, 66] (decoder/hf.toml:" in caught.value.cause
    assert caught.value.exit_code == 6


def test_all_missing_tensors_are_counted_and_the_first_are_listed(shipped, tmp_path):
    gone = [name for name in shipped.shapes("gemma", "hf") if "mlp" in name]
    folder = shipped.write(tmp_path / "m", "gemma", "hf", drop=gone)
    with pytest.raises(MalformedError, match="21 tensors missing") as caught:
        plan(folder, to="litgpt")
    assert caught.value.cause.count("\n") == 12
    assert caught.value.cause.endswith("… and 9 more")


def test_an_extra_tensor_is_an_error_until_it_is_dropped_knowingly(shipped, tmp_path):
    extra = {"vision.patch.weight": (3, 4), "vision.patch.bias": (3,)}
    folder = shipped.write(tmp_path / "m", "gemma", "hf", add=extra)
    with pytest.raises(
        UnsupportedError, match="2 tensors of the source are not mapped by gemma/hf"
    ) as caught:
        plan(folder, to="litgpt")
    assert caught.value.cause.split("\n") == sorted(extra, reverse=True) or set(
        caught.value.cause.split("\n")
    ) == set(extra)
    assert caught.value.exit_code == 5
    assert "allow_unmapped=" in caught.value.hint

    made = plan(folder, to="litgpt", allow_unmapped=["vision.*"])
    assert made.summary.dropped == made.summary.unmapped == 2
    assert any("vision.patch.weight" in note for note in made.notes)
    with pytest.raises(UnsupportedError, match="1 tensor of the source is not mapped") as caught:
        plan(folder, to="litgpt", allow_unmapped=["*.bias"])
    assert caught.value.cause == "vision.patch.weight"


@pytest.mark.parametrize(
    "extra",
    ["model.layers.1.mlp.up_proj.scale", "model.layers.2.self_attn.gate.weight", "model.norm.bias"],
)
def test_what_a_known_module_or_layer_has_more_is_not_offered_to_be_dropped(shipped, tmp_path, extra):
    folder = shipped.write(tmp_path / "m", "gemma", "hf", add={extra: (3,)})
    with pytest.raises(UnsupportedError, match="1 tensor of the source is not mapped") as caught:
        plan(folder, to="litgpt")
    assert "allow-unmapped" not in caught.value.hint
    assert "maps=" in caught.value.hint


def test_what_is_mapped_cannot_be_dropped_so(shipped, tmp_path):
    folder = shipped.write(tmp_path / "m", "gemma", "hf")
    assert plan(folder, to="litgpt", allow_unmapped=["*"]).summary.dropped == 0


def test_a_layer_too_many_is_told_from_an_unknown_name(shipped, tmp_path):
    name = "model.layers.7.input_layernorm.weight"
    folder = shipped.write(tmp_path / "m", "gemma", "hf", add={name: (66,)})
    with pytest.raises(UnsupportedError, match="1 tensor of the source is not mapped") as caught:
        plan(folder, to="litgpt")
    assert f"{name!r} has the right form" in caught.value.cause
    assert "n_layer = 7" in caught.value.cause


@pytest.mark.parametrize(
    "name", ["model.layers.03.input_layernorm.weight", "model.layers.3.input_layernorm.weight "]
)
def test_a_name_that_only_looks_alike_is_not_mapped(shipped, tmp_path, name):
    folder = shipped.write(tmp_path / "m", "gemma", "hf", add={name: (66,)})
    with pytest.raises(UnsupportedError, match="not mapped"):
        plan(folder, to="litgpt")


def test_a_wrong_shape_names_tensor_file_rule_and_both_shapes(shipped, tmp_path):
    name = "model.layers.2.self_attn.o_proj.weight"
    folder = shipped.write(tmp_path / "m", "gemma", "hf", add={name: (60, 66)})
    with pytest.raises(MalformedError, match="1 tensor with a wrong shape") as caught:
        plan(folder, to="litgpt")
    cause = caught.value.cause
    assert f"{name} in model.safetensors: expected [66, 60], found [60, 66]" in cause
    assert "layout d_model (n_kv_head q_per_kv head_dim)" in cause and "decoder/hf.toml:" in cause


def test_buffers_that_a_dialect_is_known_to_store_are_left_aside(shipped, tmp_path):
    extra = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": (5,) for layer in range(7)}
    made = plan(shipped.write(tmp_path / "m", "gemma", "hf", add=extra), to="litgpt")
    assert (made.summary.dropped, made.summary.unmapped) == (7, 0)


def test_a_base_model_without_prefix_is_the_same_model(shipped, tmp_path):
    plain = shipped.shapes("gemma", "hf")
    bare = {name.removeprefix("model."): shape for name, shape in plain.items() if name != "lm_head.weight"}
    folder = shipped.write(tmp_path / "m", "gemma", "hf", drop=list(plain), add=bare)
    made = plan(folder, to="litgpt")
    assert {copy.source for copy in made.copies} == set(bare)
    assert {copy.target for copy in made.copies} == set(shipped.shapes("gemma", "litgpt"))


def test_two_sources_for_one_target_are_refused(shipped, tmp_path):
    """With and without the alternative prefix: neither may win silently."""
    folder = shipped.write(tmp_path / "m", "gemma", "hf", add={"norm.weight": (66,)})
    with pytest.raises(MalformedError, match="two tensors of m are sources for one target") as caught:
        plan(folder, to="litgpt")
    assert "'model.norm.weight'" in caught.value.cause and "'norm.weight'" in caught.value.cause


def test_the_wrong_weights_for_a_config(shipped, tmp_path):
    other = {f"blocks.{layer}.w": (2, 3) for layer in range(3)}
    gone = list(shipped.shapes("gemma", "hf"))
    folder = shipped.write(tmp_path / "m", "gemma", "hf", drop=gone, add=other)
    with pytest.raises(UnsupportedError, match="not those of gemma in any dialect"):
        plan(folder, to="litgpt")


def test_a_config_without_weights_names_and_weights_without_config(shipped, tmp_path):
    folder = shipped.write(tmp_path / "m", "gemma", "hf")
    (folder / "config.json").unlink()
    with pytest.raises(UnsupportedError, match="has no config beside its weights") as caught:
        plan(folder, to="litgpt")
    assert "config=" in caught.value.hint


def test_an_architecture_that_no_table_is_for(shipped, tmp_path):
    folder = shipped.write(tmp_path / "m", "gemma", "hf")
    (folder / "config.json").write_text('{"model_type": "klingon"}')
    with pytest.raises(UnsupportedError, match="no mapping table fits m") as caught:
        plan(folder, to="litgpt")
    assert "model_type = 'klingon'" in caught.value.cause


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3_text", "llama", "gpt_neox"])
@pytest.mark.parametrize("source", ["hf", "litgpt"])
def test_each_family_is_told_from_all_others(shipped, tmp_path, family, source):
    """A directory's name decides nothing."""
    folder = shipped.write(tmp_path / "llama-looking-name", family, source)
    made = plan(folder, to={"hf": "litgpt", "litgpt": "hf"}[source])
    assert (made.family, made.source_dialect) == (family, source)
