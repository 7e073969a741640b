"""What docs/activations.md says of the implementations; and each of the example's changes does something."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from porter.models import GPT, Config

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for the module that they are in.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


BEFORE = ("before attention", "before the MLP")
AROUND = ("before attention", "behind attention", "before the MLP", "behind the MLP")
NORMS = {"gemma": BEFORE, "gemma2": AROUND, "gemma3": (AROUND[0], "on each head of q and k", *AROUND[1:])}


@pytest.mark.peer
def test_every_implementation_is_geglu_with_tanh_and_pre_norm():
    modules = example("gemma_modules")
    seen = list(modules.rows())
    assert len(seen) == 12
    for family, code, found in seen:
        expected = modules.Found("tanh GELU", True, NORMS[family], "1 + w", True)
        assert found == expected, (family, code)


@pytest.mark.peer
def test_another_activation_and_another_block_are_seen(monkeypatch):
    """Negative control, on porter's own model."""
    from porter.models import gpt

    modules, changed = example("gemma_modules"), example("changed_gemma")
    torch.manual_seed(0)
    monkeypatch.setattr(gpt, "activation", lambda x, config: F.gelu(x))
    assert modules.look(modules.porter("gemma2")).activation == "exact GELU"
    monkeypatch.setattr(gpt, "activation", lambda x, config: x.square())
    assert modules.look(modules.porter("gemma2")).gated is False
    monkeypatch.setattr(gpt.Block, "forward", changed.without_norms_behind)
    with pytest.raises(KeyError):
        # The norms behind are not called.
        modules.look(modules.porter("gemma2"))


TINY = Config(
    name="Gemma-3-tiny", n_layer=7, n_embd=66, n_head=6, n_query_groups=2, head_size=10, block_size=700,
    vocab_size=50, padded_vocab_size=50, intermediate_size=101, mlp_class_name="GemmaMLP", norm_eps=1e-6,
    gelu_approximate="tanh", norm_class_name="RMSNorm", scale_embeddings=True, bias=False,
    parallel_residual=False, post_attention_norm=True, post_mlp_norm=True, norm_qk=True,
    rotary_percentage=1.0, rope_base=1000000, rope_local_base_freq=10000, rope_indices=(1, 1, 1, 1, 1, 0, 1),
)  # fmt: skip


def test_each_change_changes_the_loss_and_is_undone():
    changed = example("changed_gemma")
    torch.manual_seed(1)
    model = GPT(TINY)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape))
    ids = torch.randint(50, (1, 40))
    baseline = changed.loss(model, ids)
    assert next(iter(changed.CHANGES)) == "nothing"
    for name, change in changed.CHANGES.items():
        with change(model):
            assert (changed.loss(model, ids) == baseline) is (name == "nothing"), name
        assert changed.loss(model, ids) == baseline, name
