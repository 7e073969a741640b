"""The old names of LitGPT's attention: the stock model turns the rows round itself, and computes the same."""

from __future__ import annotations

import pytest
import torch

import porter

pytestmark = pytest.mark.peer

# As for the new names: kernels that sum in other orders.
BOUND = 2e-6

NAMES = ("gemma-mqa", "gemma-gqa", "gemma2", "llama", "llama-biases", "gpt-neox", "llama-equal")


@pytest.mark.parametrize("name", NAMES)
def test_the_stock_litgpt_computes_what_transformers_does(models, difference, tmp_path, name):
    source = models.path(name)
    porter.convert(source, tmp_path / "out", to="litgpt-legacy")
    assert difference(models.litgpt(tmp_path / "out"), models.hf(source)) <= BOUND


@pytest.mark.parametrize("name", NAMES)
def test_it_is_found_by_its_names_and_goes_on_to_the_new_ones(models, stored, tmp_path, name):
    source = models.path(name)
    porter.convert(source, tmp_path / "old", to="litgpt-legacy")
    assert porter.inspect(tmp_path / "old").dialect == "litgpt-legacy"
    porter.convert(tmp_path / "old", tmp_path / "new", to="litgpt", target_model="litgpt")
    porter.convert(source, tmp_path / "straight", to="litgpt")
    assert stored(tmp_path / "new") == stored(tmp_path / "straight")


def test_a_torch_file_is_loaded_too(models, tmp_path):
    from litgpt.config import Config
    from litgpt.model import GPT

    porter.convert(models.path("gemma-gqa"), tmp_path / "out", to="litgpt-legacy", container="pth")
    state = torch.load(tmp_path / "out" / "lit_model.pth", weights_only=True, mmap=True)
    assert "transformer.h.0.attn.attn.weight" in state
    with torch.device("meta"):
        model = GPT(Config.from_file(tmp_path / "out" / "model_config.yaml"))
    model.load_state_dict(state, strict=True, assign=True)
