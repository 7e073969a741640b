"""What a config leaves out is what transformers takes it to be."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import CONFIG_MAPPING

import porter
from porter.errors import PorterError
from porter.tables.catalogue import load_families

FAMILIES = load_families()


@pytest.mark.peer
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_base_of_rope_is_transformers_default(family):
    dialect = FAMILIES[family].dialects.get("hf")
    entry = dialect.config.fields.get("rope_theta") if dialect else None
    model_type = (dialect.config.match.get("model_type") or [None])[0] if dialect else None
    if entry is None or not entry.has_default or model_type not in CONFIG_MAPPING:
        return
    theirs = CONFIG_MAPPING[model_type].default_theta
    assert entry.default == (theirs["global"] if isinstance(theirs, dict) else theirs)


def test_the_families_with_a_base_of_their_own_are_among_them():
    """A control of the test above, which passes over tables without a default."""
    given = {
        name: FAMILIES[name].dialects["hf"].config.fields["rope_theta"].default
        for name in ("mixtral", "gpt_oss", "llama")
    }
    assert given["mixtral"] == 1e6 and given["gpt_oss"] == 150_000 and given["llama"] == 10_000


@pytest.mark.parametrize(("causal", "refused"), [(False, True), (True, False)])
def test_a_model_that_looks_ahead_is_refused(tmp_path, causal, refused):
    """transformers makes the mask bidirectional where a config says `is_causal: false`."""
    from tests.users.test_errors_page import CONFIG, SHAPES

    save_file(
        {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "is_causal": causal}))
    if refused:
        with pytest.raises(PorterError, match="is_causal"):
            porter.plan(tmp_path, to="litgpt")
    else:
        assert porter.plan(tmp_path, to="litgpt").targets()


@pytest.mark.peer
def test_an_embedding_gemma_keeps_looking_both_ways(tmp_path):
    """As transformers saves one, and one of which only `is_causal` says so."""
    import torch
    from transformers import Gemma3TextConfig, Gemma3TextModel

    sizes = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "vocab_size": 50,
        "head_dim": 8,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = Gemma3TextModel(Gemma3TextConfig(**sizes, **heads, use_bidirectional_attention=True))
    model.to(torch.float32).save_pretrained(tmp_path / "source")
    config = tmp_path / "source" / "config.json"
    stated = json.loads(config.read_text())
    told = {
        key: value for key, value in stated.items() if key not in ("use_bidirectional_attention", "is_causal")
    }
    for said in (stated, {**told, "is_causal": False}, {**told, "use_bidirectional_attention": True}):
        config.write_text(json.dumps(said))
        assert porter.plan(tmp_path / "source", to="hf").hyperparameters["bidirectional"] is True
        with pytest.raises(PorterError, match="bidirectional"):
            porter.plan(tmp_path / "source", to="litgpt")
    config.write_text(json.dumps(told))
    assert porter.plan(tmp_path / "source", to="hf").hyperparameters["bidirectional"] is False
