"""What `inspect` takes for usual in a family, against LitGPT's named configs and transformers' defaults."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest

from porter.config.read import ConfigReader
from porter.recognition.choose_family import choose_family
from porter.recognition.identify import Identity
from porter.tables.catalogue import DECODER, load_families
from porter.verification.known_mistakes import known_mistakes
from porter.verification.published import departures
from tests.peers.named_models import structure

pytestmark = pytest.mark.peer

FAMILIES = load_families(())

# Families of which the defaults of transformers' config class are those of a published model.
DEFAULTS = {
    **{name: name for name in ("gemma", "gemma2", "llama", "mixtral", "falcon", "gpt2", "gpt_neox")},
    **{name: name for name in ("gpt_oss", "glm", "glm4", "deepseek_v2", "deepseek_v3", "olmo", "olmoe")},
    **{name: name for name in ("phi", "phi3", "qwen2", "qwen2_moe", "stablelm", "starcoder2", "vaultgemma")},
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
}

# LitGPT leaves Gemma the epsilon that is its own default; Google's models have 1e-6. That is a departure.
OF_LITGPT = "model_config.yaml: norm_eps is 1e-05; all published {} models have 1e-06"


def said(family, dialect, raw, values):
    identity = Identity(family, dialect, values, raw, {}, ())
    return [note for note in departures(identity, known_mistakes()) if "published" in note]


@cache
def named():
    """LitGPT's configs by name: family and canonical hyperparameters."""
    from litgpt.config import Config, configs

    decoder = FAMILIES[DECODER]
    dialect = decoder.dialects["litgpt"]
    found, families = {}, {}
    for entry in configs:
        raw = dataclasses.asdict(Config(**entry))
        values = ConfigReader(dialect, decoder.canonical, raw, {}, entry["name"]).read()
        # Which family it is goes by structure, and takes a while.
        alike = structure(entry)
        if alike not in families:
            families[alike] = choose_family(FAMILIES, dialect, values)
        found[entry["name"]] = families[alike], dialect, raw, values
    return found


def test_none_of_the_models_that_litgpt_names_departs():
    found = {name: notes for name, one in named().items() if (notes := said(*one))}
    assert len(named()) >= 210
    gemmas = {
        name for name, (family, *_) in named().items() if family.name in ("gemma", "gemma2", "gemma3_text")
    }
    assert gemmas == found.keys()
    assert all(found[name] == [OF_LITGPT.format(named()[name][0].name)] for name in gemmas)


@pytest.mark.parametrize("family", DEFAULTS)
def test_no_default_of_transformers_departs(family):
    from transformers import AutoConfig

    dialect = FAMILIES[family].dialects["hf"]
    raw = AutoConfig.for_model(DEFAULTS[family]).to_dict()
    values = ConfigReader(dialect, FAMILIES[family].canonical, raw, {}, family).read()
    assert said(FAMILIES[family], dialect, raw, values) == []


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != DECODER])
def test_each_value_that_is_another_one_is_said(family):
    """The control, one value at a time; every family has some, and knows their names."""
    usual = known_mistakes().published[family]
    assert {"norm_eps"} <= usual.keys() <= FAMILIES[family].canonical.hyperparameters.keys()
    values = {name: known[-1] for name, known in usual.items()}
    dialect = FAMILIES[family].dialects["hf"]
    assert said(FAMILIES[family], dialect, {"is": "there"}, values) == []
    for name, known in usual.items():
        other = (
            not known[0] if isinstance(known[0], bool) else "other" if isinstance(known[0], str) else 0.123
        )
        (note,) = said(FAMILIES[family], dialect, {"is": "there"}, {**values, name: other})
        assert f"{name} is {other}; all published {family} models have " in note
