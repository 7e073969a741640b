"""Parts of a config that change logits: what transformers computes from them is computed after a port too.

Each case changes the config of a tiny model; the negative control is that transformers' logits change.
"""

import json
import os
import shutil

import pytest

from porter import convert
from porter.errors import PorterError

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 64,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4],
    "long_factor": [1.5, 2.5, 3.5, 4.5, 5.5],
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
FULL = {"rope_type": "default", "rope_theta": 1e6}

# The model, what its config says instead (None: nothing), and the dialects that can say it too.
CASES = {
    "yarn": ("llama", {"rope_parameters": None, "rope_scaling": YARN}, ["hf"]),
    "yarn's attention factor": ("llama", {"rope_parameters": YARN | {"attention_factor": 1.7}}, ["hf"]),
    "yarn's beta_fast": ("llama", {"rope_parameters": YARN | {"beta_fast": 8}}, ["hf"]),
    "yarn's beta_slow": ("llama", {"rope_parameters": YARN | {"beta_slow": 3.0}}, ["hf"]),
    "yarn's mscale": (
        "llama",
        {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3}},
        ["hf"],
    ),
    "yarn's truncate": ("llama", {"rope_parameters": YARN | {"truncate": False}}, ["hf"]),
    "yarn in Gemma 2": ("gemma2", {"rope_parameters": YARN | {"beta_fast": 8}}, ["hf"]),
    "longrope": ("llama", {"rope_parameters": LONG}, ["hf"]),
    "longrope's factors": (
        "llama",
        {"rope_parameters": LONG | {"attention_factor": 1.2, "factor": 3.0}},
        ["hf"],
    ),
    "dynamic": (
        "llama",
        {"max_position_embeddings": 100, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
        ["hf"],
    ),
    "llama3 without an original context": (
        "llama",
        {"rope_parameters": {k: v for k, v in LLAMA3.items() if k != "original_max_position_embeddings"}},
        ["hf", "litgpt"],
    ),
    "rope_scaling before rope_parameters": (
        "llama",
        {"rope_scaling": LINEAR, "rope_parameters": LLAMA3 | {"rope_theta": 500.0}},
        ["hf", "litgpt"],
    ),
    "an empty rope_scaling": ("llama", {"rope_scaling": {}, "rope_parameters": LINEAR}, ["hf", "litgpt"]),
    "rope_theta inside rope_scaling": (
        "llama",
        {"rope_parameters": None, "rope_scaling": LINEAR | {"rope_theta": 500.0}, "rope_theta": 77.0},
        ["hf", "litgpt"],
    ),
    "type for rope_type": ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}, ["hf", "litgpt"]),
    "rope_type before type": (
        "llama",
        {"rope_scaling": {"type": "llama3", "rope_type": "linear", "factor": 4.0}},
        ["hf", "litgpt"],
    ),
    "GPT-NeoX, rope_scaling before rope_parameters": (
        "gpt-neox",
        {"rope_scaling": LINEAR, "rope_parameters": {"rope_theta": 77.0}, "rotary_pct": 0.6},
        ["hf", "litgpt"],
    ),
    "Gemma 3's sliding layers": (
        "gemma3",
        {"rope_parameters": {"sliding_attention": LINEAR | {"rope_theta": 1e4}, "full_attention": FULL}},
        ["hf"],
    ),
    "both kinds of Gemma 3's layers": (
        "gemma3",
        {
            "rope_parameters": {
                "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0},
                "full_attention": LINEAR | {"rope_theta": 500.0},
            }
        },
        ["hf", "litgpt"],
    ),
    "Gemma 3, yarn on its full layers": (
        "gemma3",
        {"rope_parameters": {"full_attention": YARN | {"rope_theta": 500.0, "beta_fast": 8.0}}},
        ["hf"],
    ),
    "Gemma 3, rope_scaling into rope_parameters": (
        "gemma3",
        {
            "rope_scaling": LINEAR | {"rope_theta": 77.0},
            "rope_parameters": {"full_attention": FULL},
            "rope_theta": 500.0,
        },
        ["hf", "litgpt"],
    ),
    "Gemma 3, flat fields": (
        "gemma3",
        {
            "rope_parameters": None,
            "rope_scaling": LINEAR,
            "rope_theta": 500.0,
            "rope_local_base_freq": 77.0,
        },
        ["hf", "litgpt"],
    ),
    "exact GELU in Gemma 2": ("gemma2", {"hidden_activation": "gelu"}, ["hf", "litgpt"]),
    "exact GELU in Gemma 3": ("gemma3", {"hidden_activation": "gelu"}, ["hf", "litgpt"]),
}


def changed(models, tmp_path, name, changes):
    """The model with another config.json; its weights are those that were there."""
    path = tmp_path / "changed"
    path.mkdir()
    source = models.path(name)
    for file in source.iterdir():
        if file.suffix == ".safetensors":
            os.link(file, path / file.name)
        else:
            shutil.copy(file, path)
    config = json.loads((source / "config.json").read_text())
    for key in changes:
        config.pop(key, None)
    config |= {key: value for key, value in changes.items() if value is not None}
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("case", CASES)
def test_what_is_computed_stays(models, difference, tmp_path, case):
    name, changes, targets = CASES[case]
    source = changed(models, tmp_path, name, changes)
    expected = models.hf(source)
    assert difference(models.hf(models.path(name)), expected) > 1e-4, "the change makes no difference"
    for target in ("hf", "litgpt"):
        out = tmp_path / target
        if target not in targets:
            with pytest.raises(PorterError, match=r"cannot express|not known"):
                convert(source, out, to=target)
            continue
        convert(source, out, to=target)
        found = models.hf(out) if target == "hf" else models.litgpt(out)
        assert difference(found, expected) < 1e-5
