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
