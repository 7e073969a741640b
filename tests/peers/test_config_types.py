"""Numbers in the type that transformers' own config classes declare: its configs are strict dataclasses.

Every number of every Hugging Face table is written from an integer and from a float, and loaded.
"""

import dataclasses
import importlib

import pytest

from porter.config.read import ConfigReader
from porter.config.write import write_config
from porter.errors import UnsupportedError
from porter.tables import load_families
from porter.tables.bind import bind_dialect

FAMILIES = load_families()
NUMBERS = [
    (name, item.name)
    for name, family in FAMILIES.items()
    if "hf" in family.dialects
    for item in family.canonical.hyperparameters.values()
    if item.type == "number" and item.name in family.dialect("hf").config.fields
]
# Beside what a number is read with.
ROPE = {"rope_type": "yarn", "rope_factor": 4.0, "rope_original_context": 64, "rope_truncate": True}
ROPE |= {"rope_beta_fast": 32.0, "rope_beta_slow": 1.0}


def written(family, **changes):
    found = FAMILIES[family]
    neutral = {name: item.neutral for name, item in found.canonical.hyperparameters.items()}
    values = {**neutral, **found.canonical.example, **changes}
    shapes = {
        tensor.name: tensor.shape for tensor in bind_dialect(found.dialect("hf"), found.canonical, values)
    }
    return write_config(found.dialect("hf"), found.canonical, values, shapes=shapes, weights_dtype="float32")


def loaded(config):
    return importlib.import_module("transformers").AutoConfig.for_model(**config)


def extras(family, name):
    """What the number needs beside it to be read, and to be valid, at all."""
    found = dict(ROPE) if name.startswith("rope_") and "local" not in name else {}
    if name in ("rope_low_freq_factor", "rope_high_freq_factor"):
        found = {"rope_type": "llama3", "rope_factor": 4.0, "rope_original_context": 64}
        found |= {"rope_low_freq_factor": 1.0, "rope_high_freq_factor": 4.0}
    if name.startswith("rope_local_factor"):
        found = {"rope_local_type": "linear"}
    kind = FAMILIES[family].dialect("hf").config.fields["rope_type"] if found else None
    if kind is not None and kind.only is not None and found.get("rope_type") not in kind.only:
        # Of a family with few kinds; what no kind of its reads is refused.
        found = {"rope_type": "linear", "rope_factor": 4.0}
    return found


@pytest.mark.parametrize(("family", "name"), NUMBERS)
def test_a_whole_number_loads_as_the_float_does(family, name):
    try:
        whole = loaded(written(family, **extras(family, name) | {name: 2}))
    except UnsupportedError as refused:
        # Fixed in the framework's code, or of a kind that the family does not have: no field to spell.
        reasons = ("fixes it", "would read as", "not covered by the family")
        assert any(reason in str(refused.cause) for reason in reasons), refused
        return
    assert whole.to_dict() == loaded(written(family, **extras(family, name) | {name: 2.0})).to_dict()


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if "hf" in family.dialects])
def test_fields_have_the_declared_types(family):
    config = written(family)
    declared = {field.name: field.type for field in dataclasses.fields(type(loaded(config)))}
    for name, value in config.items():
        if name not in declared or value is None or not isinstance(value, int | float):
            continue
        said = str(declared[name])
        kind = type(value).__name__
        assert kind in said.replace("<class '", "").replace("'>", "").split(" | "), (name, value, said)
    # Negative control: the other spelling of a float does not load.
    errors = importlib.import_module("huggingface_hub.errors")
    floats = [name for name, said in declared.items() if "float" in str(said) and "int" not in str(said)]
    for name in floats[:3]:
        with pytest.raises(errors.StrictDataclassError):
            loaded(config | {name: 1})
    assert floats


IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if "hf" in family.dialects])
@pytest.mark.parametrize("given", [dict.fromkeys(IDS), {}, {"eos_token_id": [3, 4], "pad_token_id": None}])
def test_token_ids_stay_what_they_are(family, given):
    """Null is no id, and not the one that the config's class has where nothing is said."""
    found = FAMILIES[family]
    raw = {name: value for name, value in written(family).items() if name not in IDS} | given
    dialect = found.dialect("hf")
    values = {name: item.neutral for name, item in found.canonical.hyperparameters.items()}
    shapes = {
        tensor.name: tensor.shape
        for tensor in bind_dialect(dialect, found.canonical, values | found.canonical.example)
    }
    read = ConfigReader(dialect, found.canonical, raw, shapes, "tiny", None, "config.json").read()
    again = write_config(dialect, found.canonical, read, shapes=shapes, weights_dtype="float32", kept=raw)
    before, after = loaded(raw), loaded(again)
    for name in IDS:
        # GLM's class makes its own list of nothing; what is compared is what becomes of both configs.
        assert getattr(after, name, None) == getattr(before, name, None)
        if name in given and not family.startswith("glm"):
            assert getattr(after, name) == given[name]


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_what_must_be_whole_is_refused_by_name(family):
    with pytest.raises(UnsupportedError, match=r"query_scale = 22\.5") as caught:
        written(family, query_scale=22.5)
    assert "query_pre_attn_scalar must be a whole number" in str(caught.value.cause)
    errors = importlib.import_module("huggingface_hub.errors")
    with pytest.raises(errors.StrictDataclassError):
        loaded(written(family) | {"query_pre_attn_scalar": 22.5})
    assert loaded(written(family, query_scale=22.0)).query_pre_attn_scalar == 22
