"""No option is taken and then ignored; and what Python callers pass is understood or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import porter
from porter.errors import UnsupportedError, UsageError

from .test_errors_page import CONFIG, weights, whole


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    whole(place)
    return place


def run(porter_command, *arguments, code):
    return porter_command(*arguments, code=code).stderr


def test_a_container_that_the_target_does_not_read(tmp_path):
    place = tmp_path / "gemma"
    place.mkdir()
    save_file(weights(), place / "model.safetensors", metadata={"format": "pt"})
    (place / "config.json").write_text(json.dumps(CONFIG | {"model_type": "gemma"}))
    for target in ("keras", "flax", "gemma_pytorch"):
        with pytest.raises(UnsupportedError, match="reads no safetensors"):
            porter.plan(place, to=target, container="safetensors")
        assert porter.plan(place, to=target).target_dialect == target
    assert porter.plan(place, to="litgpt", container="safetensors").files[0].container == "safetensors"


def test_keep_source_needs_something_to_keep(folder, porter, tmp_path):
    assert "none was" in run(porter, "convert", "--to", "litgpt", "--keep-source", code=2)
    assert "--dry-run" in run(porter, "convert", "a/b", "--to", "hf", "--keep-source", "--dry-run", code=2)
    said = run(porter, "convert", folder, "--to", "litgpt", "--keep-source", "-o", tmp_path / "o", code=0)
    assert "on this machine already" in said


def test_a_config_that_is_not_read_is_refused(folder, tmp_path):
    other = tmp_path / "model_config.yaml"
    other.write_text("name: x\n")
    with pytest.raises(UsageError, match="is not read for"):
        porter.plan(folder, to="litgpt", config=other)
    good = tmp_path / "mine.json"
    good.write_text(json.dumps(CONFIG | {"rms_norm_eps": 0.125}))
    assert porter.plan(folder, to="litgpt", config=good).hyperparameters["norm_eps"] == 0.125


def test_list_and_a_model_are_two_requests(porter):
    assert "--list" in run(porter, "download", "gemma-2b", "--list", code=2)


def test_a_pattern_that_fits_nothing_is_said(folder):
    assert "'zzz*'" in "\n".join(porter.plan(folder, to="hf", allow_unmapped=["zzz*"]).notes)
    assert "zzz" not in "\n".join(porter.plan(folder, to="hf").notes)


def test_a_checkpoint_without_other_parts_is_said(folder):
    said = "holds no other part"
    assert said in "\n".join(porter.plan(folder, to="hf", text_only=True).notes)
    assert said not in "\n".join(porter.plan(folder, to="hf").notes)


def test_a_string_is_a_list_of_one(folder, tmp_path):
    extra = weights() | {"zzz.one": np.ones(3, np.float32), "other": np.ones(5, np.float32)}
    save_file(extra, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedError, match="not mapped") as caught:
        porter.plan(folder, to="hf", allow_unmapped="zzz*")
    # The letters of the string are no patterns, of which `*` would drop everything.
    assert caught.value.cause == "other"
    plan = porter.plan(folder, to="hf", allow_unmapped=["zzz*", "other"])
    assert {tensor.name for tensor in plan.targets()} == set(weights())
    with pytest.raises(UsageError, match="takes a pattern"):
        porter.plan(folder, to="hf", allow_unmapped=3)


def test_paths_may_be_strings(folder, tmp_path):
    config = tmp_path / "c.json"
    config.write_text(json.dumps(CONFIG | {"rms_norm_eps": 0.25}))
    assert porter.plan(str(folder), to="hf", config=str(config)).hyperparameters["norm_eps"] == 0.25
    with pytest.raises(UsageError, match="no config at"):
        porter.plan(folder, to="hf", config="nowhere.json")
    with pytest.raises(UsageError, match="nowhere"):
        porter.plan(folder, to="hf", maps="nowhere.toml")
    assert porter.inspect(str(folder), config=str(config)).hyperparameters["norm_eps"] == 0.25


def test_torch_s_dtypes_are_understood(folder, tmp_path):
    assert porter.plan(folder, to="hf", dtype=torch.bfloat16).files[0].tensors[0].dtype.name == "BF16"
    porter.convert(folder, tmp_path / "half", to="hf", dtype=torch.float16)
    assert load_file(tmp_path / "half" / "model.safetensors")["model.norm.weight"].dtype == np.float16
    assert porter.load_state_dict(folder, dtype=torch.bfloat16)["model.norm.weight"].dtype == torch.bfloat16
    with pytest.raises(UsageError, match="unknown dtype 'int8'"):
        porter.plan(folder, to="hf", dtype=torch.int8)


def test_side_files_are_carried_or_said(folder, tmp_path):
    """transformers' own list of named templates, and processors that a language model has no use for."""
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    vocabulary = {f"t{number}": number for number in range(20)}
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")))
    plain.chat_template = {"default": "{{ 1 }}", "tool use": "{{ 2 }}", "rag": "{{ 3 }}"}
    plain.save_pretrained(folder)
    assert (folder / "additional_chat_templates" / "rag.jinja").is_file()
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "modeling_own.py").write_text("")
    (folder / "README.md").write_text("")
    for target in ("hf", "litgpt"):
        out = tmp_path / target
        done = porter.convert(folder, out, to=target)
        for name in ("rag", "tool use"):
            path = f"additional_chat_templates/{name}.jinja"
            assert (out / path).read_text() == (folder / path).read_text()
        said = next(note for note in done.plan.notes if note.startswith("not carried over"))
        assert "preprocessor_config.json" in said
        assert "modeling_own.py" in said
        assert "README" not in said
        assert "config.json," not in said.replace("preprocessor_config.json,", "")
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").chat_template == plain.chat_template
