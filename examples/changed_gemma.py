"""What each part of Gemma is worth: the loss of the real Gemma 3 270M with one thing changed at a time.

    sh examples/demo.sh demo                                   # makes demo/gemma-3-270m-litgpt, in float32
    python examples/changed_gemma.py demo/gemma-3-270m-litgpt

All changes keep every name and every shape, so that the same weights load without an error. The text is the
page of English that porter runs models on. Each change is a few lines on `porter.models.gpt`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional as F

from porter.models import GPT, gpt
from porter.verification.page import prose

# Rows of logits at a time: of 262,144 numbers each.
ROWS = 100

Change = Callable[[GPT], AbstractContextManager[None]]


@contextmanager
def instead(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Inside the block, `owner.name` is `value`."""
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)


def activation(function: Callable[[Tensor], Tensor]) -> Change:
    return lambda model: instead(gpt, "activation", lambda x, config: function(x))


def config(**fields: Any) -> Change:
    """Other hyperparameters, where the model reads them as it runs."""

    @contextmanager
    def change(model: GPT) -> Iterator[None]:
        holders = [part for part in model.modules() if hasattr(part, "config")]
        own = model.config
        for part in holders:
            part.config = replace(own, **fields)
        yield
        for part in holders:
            part.config = own

    return change


def norms(**values: Any) -> Change:
    """Another epsilon, or another meaning of the weight, for all norms."""

    @contextmanager
    def change(model: GPT) -> Iterator[None]:
        found = [part for part in model.modules() if isinstance(part, gpt.RMSNorm)]
        own = [{name: getattr(part, name) for name in values} for part in found]
        for part in found:
            vars(part).update(values)
        yield
        for part, before in zip(found, own, strict=True):
            vars(part).update(before)

    return change


def exchanged(one: str, two: str) -> Change:
    """Two parts of every block in each other's place."""

    @contextmanager
    def change(model: GPT) -> Iterator[None]:
        _exchange(model, one, two)
        yield
        _exchange(model, one, two)

    return change


def _exchange(model: GPT, one: str, two: str) -> None:
    for block in model.transformer.h:
        first, second = block.get_submodule(one), block.get_submodule(two)
        block.set_submodule(one, second)
        block.set_submodule(two, first)


def without_norms_behind(block: Any, x: Tensor, rope: Any, mask: Any, cache: Any) -> Tensor:
    """Gemma 1's block: a norm before each part and none behind."""
    attended = block.attn(block.norm_1(x), rope, mask, cache) + x
    out: Tensor = block.mlp(block.norm_2(attended)) + attended
    return out


def post_norm(block: Any, x: Tensor, rope: Any, mask: Any, cache: Any) -> Tensor:
    """The first transformer's block: the norm stands behind the sum, in the residual stream itself."""
    attended = block.norm_1(block.post_attention_norm(block.attn(x, rope, mask, cache)) + x)
    out: Tensor = block.norm_2(block.post_mlp_norm(block.mlp(attended)) + attended)
    return out


def block(forward: Callable[..., Tensor]) -> Change:
    return lambda model: instead(gpt.Block, "forward", forward)


CHANGES: Mapping[str, Change] = {
    "nothing": lambda model: nullcontext(),
    "exact GELU for the tanh one": activation(F.gelu),
    "SiLU": activation(F.silu),
    "ReLU": activation(F.relu),
    "gate and up swapped": exchanged("mlp.fc_1", "mlp.fc_2"),
    "norms multiply by w, not 1 + w": norms(unit_offset=False),
    "no norms behind attention and MLP": block(without_norms_behind),
    "norms behind the sums (post-norm)": block(post_norm),
    "the norms behind attention and before the MLP exchanged": exchanged("post_attention_norm", "norm_2"),
    "eps 1e-5 for 1e-6": norms(eps=1e-5),
    "embeddings not scaled by √640": config(scale_embeddings=False),
    "RoPE base 10,000 in all layers": config(rope_base=10000),
}


def token_ids(directory: Path) -> Tensor:
    """The page's ids, (1, T), after the token that Gemma expects at the beginning of every text."""
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    return torch.tensor([[tokenizer.bos_id(), *tokenizer.encode(prose())]])


@torch.inference_mode()
def loss(model: GPT, ids: Tensor) -> float:
    """Mean next-token loss, in nats."""
    hidden = model.transformer(ids[:, :-1])[0]
    total = 0.0
    for start in range(0, len(hidden), ROWS):
        logits = model.lm_head(hidden[start : start + ROWS]).float()
        following = ids[0, 1 + start : 1 + start + len(logits)]
        total += float(F.cross_entropy(logits, following, reduction="sum"))
    return total / len(hidden)


def losses(directory: Path, changes: Mapping[str, Change] = CHANGES) -> Iterator[tuple[str, float]]:
    """Each change, and the loss with it."""
    model, ids = GPT.from_checkpoint(directory), token_ids(directory)
    for name, change in changes.items():
        with change(model):
            yield name, loss(model, ids)


def main() -> None:
    parser = argparse.ArgumentParser(description="Change a trained Gemma one thing at a time.")
    parser.add_argument("directory", type=Path, metavar="CHECKPOINT_DIR")
    directory = parser.parse_args().directory
    print(f"{token_ids(directory).shape[1] - 1} tokens\n")
    print("| changed | loss, nats | Δ |")
    print("| --- | ---: | ---: |")
    baseline = None
    for name, found in losses(directory):
        baseline = found if baseline is None else baseline
        print(f"| {name} | {found:.4f} | {found - baseline:+.4f} |", flush=True)


if __name__ == "__main__":
    main()
