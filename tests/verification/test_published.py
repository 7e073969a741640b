"""`porter inspect` says where a config departs from what all published models of its family have."""

from __future__ import annotations

import pytest
from handmade import CONFIG, hf_weights, write

import porter


def notes(folder, **changes):
    found = porter.inspect(write(folder, hf_weights(), {**CONFIG, **changes})).notes
    return [note for note in found if "published gemma models" in note]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rms_norm_eps", 1e-5, "config.json: norm_eps is 1e-05; all published gemma models have 1e-06"),
        ("rope_theta", 20000.0, "config.json: rope_theta is 20000.0; all published gemma models have 10000"),
        ("tie_word_embeddings", False, None),
    ],
)
def test_a_departure_is_said(tmp_path, field, value, said):
    found = notes(tmp_path / "model", **{field: value})
    assert len(found) == 1
    assert said is None or found == [said]


def test_what_all_have_is_not(tmp_path):
    """Negative control: sizes are a model's own, and eps is compared as float32."""
    assert notes(tmp_path / "model", rms_norm_eps=9.99999997e-07) == []


def test_a_folder_of_ones_own_has_the_first_word(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "_mistakes.toml").write_text("[published.gemma]\nnorm_eps = 1e-5\n")
    model = write(tmp_path / "model", hf_weights(), CONFIG)
    (note,) = (n for n in porter.inspect(model, maps=[folder]).notes if "published" in n)
    assert "norm_eps is 1e-06" in note
