"""Change Gemma's activation in the loaded model and see what that costs.

    python examples/custom_activation.py CHECKPOINT_DIR [--text FILE]

CHECKPOINT_DIR is a LitGPT directory (lit_model.safetensors, model_config.yaml, tokenizer.model). An
activation has no weights, so every parameter keeps its name and shape and the same checkpoint loads; what
changes is how well the model, trained with the tanh GELU, predicts a text. In your own copy of
`porter/models/gpt.py` the change is the `return` of `activation`; here it is swapped at run time, so that
four of them can be compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional as F

from porter.models import GPT, Config, gpt

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh GELU": lambda x: F.gelu(x, approximate="tanh"),
    "exact GELU": F.gelu,
    "SiLU": F.silu,
    "ReLU": F.relu,
}

TEXT = """\
A lighthouse is a simple machine with a hard task. On a clear night its lamp can be seen from twenty \
miles away, and a sailor who knows the coast can tell one tower from the next by the rhythm of its \
flashes. In fog the light is almost useless, and for this reason many stations also kept a bell or a \
horn. The keeper lived beside the tower with his family. Every evening he climbed the stairs, trimmed \
the wick, filled the tank with oil, and wound the clockwork that turned the lens. If the clockwork \
failed, he turned the lens by hand until the sun came up.

The lens itself was the great invention. A lamp throws its light in all directions, and most of it is \
lost to the sky and to the ground. Early builders put a curved mirror behind the flame, but the metal \
absorbed much of the light and had to be polished every day. In the nineteenth century a French engineer \
found that a thick piece of glass was not needed. Only the surface of a lens bends the light, so the \
inside can be cut away and the rest arranged in rings around the center. The result was thin, clear, and \
light enough to float in a bath of mercury, where a child could set it in motion with one finger.

Today the lamps are electric and the doors are locked. A ship finds its position with the help of \
satellites, and the towers are painted every few years because people like to look at them. Still, a \
small boat with an empty battery may be glad of a light that asks for nothing and is always in the same \
place.
"""


@contextmanager
def activation(function: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block, every MLP of `porter.models.gpt` uses `function`."""
    original = gpt.activation
    gpt.activation = lambda x, config: function(x)
    try:
        yield
    finally:
        gpt.activation = original


def shapes(config: Config) -> dict[str, torch.Size]:
    """Name and shape of every parameter, without any data."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in GPT(config).state_dict().items()}


def token_ids(directory: Path, text: str) -> Tensor:
    """The text's ids, (1, T), after the token that Gemma expects at the beginning of every text."""
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    return torch.tensor([[tokenizer.bos_id(), *tokenizer.encode(text)]])


@torch.inference_mode()
def losses(directory: Path, text: str) -> dict[str, float]:
    """Mean next-token loss on `text`, in nats, for each activation."""
    model = GPT.from_checkpoint(directory)
    ids = token_ids(directory, text)
    found = {}
    for name, function in ACTIVATIONS.items():
        with activation(function):
            logits = model(ids[:, :-1])
        found[name] = float(F.cross_entropy(logits[0].float(), ids[0, 1:]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare activations on a trained Gemma.")
    parser.add_argument("directory", type=Path, metavar="CHECKPOINT_DIR")
    parser.add_argument("--text", type=Path, metavar="FILE", help="a few hundred words of UTF-8 text")
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8") if options.text else TEXT

    config = Config.from_file(options.directory / "model_config.yaml")
    original = shapes(config)
    for name, function in ACTIVATIONS.items():
        with activation(function):
            same = shapes(config) == original
        print(f"{name:<11} {len(original)} tensors, names and shapes {'unchanged' if same else 'CHANGED'}")

    found = losses(options.directory, text)
    baseline = found["tanh GELU"]
    print(f"\nnext-token loss in nats over {token_ids(options.directory, text).shape[1] - 1} tokens")
    print(f"{'activation':<11} {'loss':>9} {'Δ tanh GELU':>12}")
    for name, loss in found.items():
        print(f"{name:<11} {loss:>9.5f} {loss - baseline:>+12.5f}")


if __name__ == "__main__":
    main()
