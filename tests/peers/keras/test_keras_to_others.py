"""Presets that the real KerasHub wrote, ported and judged by transformers and the stock LitGPT, and back.

Bytes say that nothing was lost, logits that everything is where it belongs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import porter
from porter.errors import MalformedError, UnsupportedError

pytestmark = pytest.mark.peer

# Relative to max |logit|. All compute in float32, whose resolution is 1.2e-7, through up to seven layers,
# with Keras' einsums against the others' matrix products. Most seen: 1.3e-6, and 5.1e-6 in the `-equal`
# models, whose norms divide by the size of few and small numbers.
BOUND = 1e-5

MODELS = (
    "gemma-mqa",
    "gemma-gqa",
    "gemma-mha",
    "gemma-square",
    "gemma-dropout",
    "gemma2",
    "gemma2-full",
    "gemma3",
    "gemma3-scaled",
    "gemma-equal",
    "gemma2-equal",
    "gemma3-equal",
)


@pytest.mark.parametrize("name", MODELS)
def test_the_others_compute_what_keras_does(presets, models, difference, tmp_path, name):
    source = presets.path(name)
    porter.convert(source, tmp_path / "hf", to="hf")
    porter.convert(source, tmp_path / "lit", to="litgpt")
    assert difference(models.hf(tmp_path / "hf"), presets.logits(source)) <= BOUND
    assert difference(models.litgpt(tmp_path / "lit"), presets.logits(source)) <= BOUND


TRIPS = [
    *((name, "float32", "hf") for name in MODELS),
    *((name, "bfloat16", "litgpt") for name in ("gemma-gqa", "gemma2", "gemma3")),
    ("gemma-mha", "bfloat16", "hf"),
    ("gemma-mqa", "float16", "litgpt"),
]


@pytest.mark.parametrize(("name", "dtype", "between"), TRIPS)
def test_the_way_back_gives_keras_the_same_bytes(presets, datasets, tmp_path, name, dtype, between):
    source = presets.path(name, dtype=dtype)
    porter.convert(source, tmp_path / "there", to=between)
    porter.convert(tmp_path / "there", tmp_path / "back", to="keras")
    assert datasets(tmp_path / "back" / "model.weights.h5") == datasets(source / "model.weights.h5")
    stated, kept = (json.loads((path / "config.json").read_text()) for path in (source, tmp_path / "back"))
    assert kept["registered_name"] == stated["registered_name"]
    assert stated["config"].items() >= {k: v for k, v in kept["config"].items() if k in _SAME}.items()
    counts = (json.loads((p / "metadata.json").read_text()) for p in (source, tmp_path / "back"))
    assert len({count["parameter_count"] for count in counts}) == 1


# What of a backbone's config decides what it computes.
_SAME = {
    "vocabulary_size", "num_layers", "num_query_heads", "num_key_value_heads", "hidden_dim", "head_dim",
    "intermediate_dim", "layer_norm_epsilon", "query_head_dim_normalize", "use_post_ffw_norm",
    "use_post_attention_norm", "final_logit_soft_cap", "attention_logit_soft_cap",
    "use_sliding_window_attention", "use_query_key_norm", "local_rope_scaling_factor",
    "global_rope_scaling_factor", "vision_encoder", "use_bidirectional_attention", "is_embedding_model",
    "dtype",
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_kerashub_loads_what_porter_wrote(presets, tmp_path, name):
    source = presets.path(name)
    porter.convert(source, tmp_path / "there", to="hf")
    porter.convert(tmp_path / "there", tmp_path / "back", to="keras")
    assert torch.equal(presets.logits(tmp_path / "back"), presets.logits(source))


@pytest.mark.parametrize("name", ["gemma-mqa", "gemma-gqa", "gemma-mha", "gemma-equal"])
def test_kerashub_computes_what_transformers_does(presets, models, difference, tmp_path, name):
    source = models.path(name)
    porter.convert(source, tmp_path / "out", to="keras")
    assert difference(presets.logits(tmp_path / "out"), models.hf(source)) <= BOUND


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_a_query_scale_that_kerashub_has_no_word_for_is_refused(models, tmp_path, name):
    # 14 is neither head_dim (10) nor hidden_size / heads (11).
    with pytest.raises(UnsupportedError, match="query_scale = 14"):
        porter.convert(models.path(name), tmp_path / "out", to="keras")


# --- the other ways in which Keras saves -------------------------------------------------------------


def _converted(source: Path, out: Path, config: Path | None = None) -> Path:
    porter.convert(source, out, to="hf", config=config)
    return out


@pytest.mark.parametrize("name", ["gemma-gqa", "gemma3"])
@pytest.mark.parametrize("optimizer", [None, "fresh", "built"])
def test_weights_of_a_whole_model(presets, stored, tmp_path, name, optimizer):
    import keras
    import keras_hub

    preset = presets.path(name)
    backbone = presets.build(name)
    model = getattr(keras_hub.models, type(backbone).__name__.replace("Backbone", "CausalLM"))(
        backbone=backbone, preprocessor=None
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam" if optimizer else None, loss=loss)
    if optimizer == "built":
        model.optimizer.build(model.trainable_variables)
    expected = stored(_converted(preset, tmp_path / "expected"))

    bare = tmp_path / "tuned.weights.h5"
    model.save_weights(str(bare))
    assert stored(_converted(bare, tmp_path / "bare", preset / "config.json")) == expected
    archive = tmp_path / "tuned.keras"
    model.save(str(archive))
    assert stored(_converted(archive, tmp_path / "archive")) == expected
    found = porter.inspect(bare, config=preset / "config.json")
    variables = [tensor.name for tensor in found.tensors if tensor.name.startswith("optimizer/")]
    assert len(variables) > 50 if optimizer == "built" else len(variables) <= 2


def test_weights_in_shards(presets, stored, tmp_path):
    presets.build("gemma-gqa").save_to_preset(str(tmp_path / "sharded"), max_shard_size=1e-4)
    assert len(list((tmp_path / "sharded").glob("model_0000*.weights.h5"))) > 2
    out = _converted(tmp_path / "sharded", tmp_path / "out")
    assert stored(out) == stored(_converted(presets.path("gemma-gqa"), tmp_path / "expected"))
    (tmp_path / "sharded" / "model_00001.weights.h5").unlink()
    with pytest.raises(MalformedError, match=r"model_00001\.weights\.h5 is missing"):
        porter.plan(tmp_path / "sharded", to="hf")


def test_lora_is_merged_into_the_kernels_when_keras_saves(
    presets, models, difference, keras_logits, tmp_path
):
    backbone = presets.build("gemma-gqa")
    backbone.enable_lora(4)
    generator = torch.Generator().manual_seed(5)
    for variable in backbone.trainable_variables:
        variable.assign(torch.randn(tuple(variable.shape), generator=generator) * 0.1)
    expected = keras_logits(backbone)
    backbone.save_to_preset(str(tmp_path / "tuned"))
    # KerasHub counts the two factors of each kernel, which it does not store.
    assert difference(models.hf(_converted(tmp_path / "tuned", tmp_path / "out")), expected) <= BOUND
    # Negative control: factors of one more layer, or of none that LoRA is for, explain no difference.
    metadata = tmp_path / "tuned" / "metadata.json"
    count = json.loads(metadata.read_text())["parameter_count"]
    metadata.write_text(json.dumps({"parameter_count": count + 10}))
    with pytest.raises(MalformedError, match="LoRA"):
        porter.plan(tmp_path / "tuned", to="hf")


def test_whole_numbers_become_the_floats_that_transformers_asks_for(
    presets, models, difference, keras_logits, tmp_path
):
    caps = {"attention_logit_soft_cap": 50, "final_logit_soft_cap": 30}
    backbone = presets.build("gemma2", **caps)
    backbone.save_to_preset(str(tmp_path / "caps"))
    saved = json.loads((tmp_path / "caps" / "config.json").read_text())["config"]
    assert {name: repr(saved[name]) for name in caps} == {name: str(cap) for name, cap in caps.items()}
    out = _converted(tmp_path / "caps", tmp_path / "out")
    assert difference(models.hf(out), keras_logits(backbone)) <= BOUND


def test_int8_is_refused_with_the_reason(presets, tmp_path):
    backbone = presets.build("gemma-gqa", num_layers=1)
    backbone.quantize("int8")
    backbone.save_to_preset(str(tmp_path / "int8"))
    with pytest.raises(UnsupportedError, match="quantised: it holds whole numbers of type int8"):
        porter.plan(tmp_path / "int8", to="hf")


def test_a_preset_whose_count_of_parameters_is_wrong_is_refused(presets, tmp_path):
    presets.build("gemma-gqa").save_to_preset(str(tmp_path / "preset"))
    metadata = tmp_path / "preset" / "metadata.json"
    count = json.loads(metadata.read_text())["parameter_count"]
    metadata.write_text(json.dumps({"parameter_count": count + 1}))
    with pytest.raises(MalformedError) as caught:
        porter.plan(tmp_path / "preset", to="hf")
    assert f"counts {count + 1} parameters, the tensors hold {count}" in str(caught.value)


def test_a_config_of_transformers_does_not_say_what_keras_weights_are(presets, models, tmp_path):
    config = models.path("gemma-gqa") / "config.json"
    with pytest.raises(UnsupportedError, match="no mapping table fits"):
        porter.plan(presets.path("gemma-gqa") / "model.weights.h5", to="hf", config=config)


@pytest.mark.parametrize("name", ["gemma-mqa", "gemma-gqa", "gemma-mha", "gemma-square", "gemma-equal"])
def test_bare_weights_say_what_the_preset_says(presets, stored, tmp_path, name):
    alone = tmp_path / "tuned.weights.h5"
    alone.write_bytes((presets.path(name) / "model.weights.h5").read_bytes())
    bare, whole = tmp_path / "bare", tmp_path / "whole"
    assert stored(_converted(alone, bare)) == stored(_converted(presets.path(name), whole))
    configs = [json.loads((folder / "config.json").read_text()) for folder in (bare, whole)]
    assert configs[0] == configs[1]
    assert any("context_length = 8192" in note for note in porter.inspect(alone).notes)


@pytest.mark.parametrize(("name", "family"), [("gemma2", "gemma2"), ("gemma3", "gemma3_text")])
def test_bare_weights_say_their_family_and_every_size(presets, tmp_path, name, family):
    alone = tmp_path / "tuned.weights.h5"
    alone.write_bytes((presets.path(name) / "model.weights.h5").read_bytes())
    found, whole = porter.inspect(alone), porter.inspect(presets.path(name))
    assert (found.family, whole.family) == (family, family)
    for size in ("n_layer", "d_model", "n_head", "n_kv_head", "head_dim", "d_ff", "vocab_size"):
        assert found.hyperparameters[size] == whole.hyperparameters[size]
    assert "sliding_window" in found.notes[0] and not any(
        "assume" in note or "no config" in note for note in whole.notes
    )


def test_a_multimodal_preset_is_refused(presets, tmp_path):
    config = json.loads((presets.path("gemma3") / "config.json").read_text())
    config["config"]["vision_encoder"] = {"class_name": "Gemma3VisionEncoder"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match="vision_encoder"):
        porter.plan(presets.path("gemma3"), to="hf", config=tmp_path / "config.json")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("gemma2", "use_post_ffw_norm"),
        ("gemma3", "use_post_ffw_norm"),
        ("gemma3", "use_post_attention_norm"),
    ],
)
def test_a_norm_that_the_config_leaves_out_is_not_computed(presets, difference, tmp_path, name, field):
    """KerasHub's classes take it for false, load the weights all the same, and compute something else."""
    preset = presets.path(name)
    config = json.loads((preset / "config.json").read_text())
    out = tmp_path / "out"
    shutil.copytree(preset, out)
    assert porter.verify(preset, out).right
    del config["config"][field]
    (out / "config.json").write_text(json.dumps(config))
    assert difference(presets.logits(out), presets.logits(preset)) > 1e-2
    verdict = porter.verify(preset, out)
    assert [one.name for one in verdict.config.differences] == [f"config.{field}"]
    with pytest.raises(UnsupportedError, match=field):
        porter.plan(out, to="hf")


# --- what KerasHub itself does -----------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_kerashub_says_but_does_not_use_another_query_scale(presets, keras_logits, models, tmp_path, family):
    import keras_hub

    preset = presets.path(family)
    config = json.loads((preset / "config.json").read_text())
    config["config"]["query_head_dim_normalize"] = False
    stated = tmp_path / "config.json"
    stated.write_text(json.dumps(config))
    done = porter.convert(preset, tmp_path / "hf", to="hf", config=stated)
    assert any("does not use it" in note for note in done.plan.notes)
    assert not any("does not use it" in note for note in porter.plan(preset, to="hf").notes)
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["query_pre_attn_scalar"] == 11
    porter.convert(tmp_path / "hf", tmp_path / "back", to="keras")
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert back["config"]["query_head_dim_normalize"] is False
    # docs/keras.md says this of KerasHub 0.32; where it no longer holds, that page is to change.
    loaded = keras_hub.models.Backbone.from_preset(str(tmp_path / "back"))
    assert torch.equal(keras_logits(loaded), presets.logits(preset))


# As docs/keras.md has it, measured with KerasHub 0.32: it keeps one kv head of each layer, and stores q as
# (hidden, heads * head_dim), which loads only where that is square.
EXPORTS = {
    "gemma-mqa": False,
    "gemma-gqa": False,
    "gemma-mha": False,
    "gemma-square": True,
    "gemma2": False,
    "gemma3": True,
    "gemma3-scaled": True,
}


@pytest.mark.parametrize("name", EXPORTS)
def test_where_kerashubs_own_exporter_is_right(presets, models, difference, tmp_path, name):
    presets.build(name).export_to_transformers(str(tmp_path / "out"))
    try:
        right = difference(models.hf(tmp_path / "out"), presets.logits(presets.path(name))) <= BOUND
    except RuntimeError:
        right = False
    assert right is EXPORTS[name]
