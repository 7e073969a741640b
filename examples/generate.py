"""Continue a prompt with a converted checkpoint, greedily, in porter's LitGPT-style model.

    python examples/generate.py CHECKPOINT_DIR "The capital of France is" [--tokens 25]

CHECKPOINT_DIR holds `lit_model.safetensors`, `model_config.yaml` and `tokenizer.model`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from porter.models import GPT, greedy


def continuation(directory: Path, prompt: str, tokens: int) -> str:
    """The text that the model puts after the prompt."""
    tokenizer = SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    ids = [tokenizer.bos_id(), *tokenizer.encode(prompt)]
    model = GPT.from_checkpoint(directory)
    return tokenizer.decode(greedy(model, ids, tokens, stop={tokenizer.eos_id()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--tokens", type=int, default=25)
    arguments = parser.parse_args()
    print(arguments.prompt + " …" + continuation(arguments.directory, arguments.prompt, arguments.tokens))


if __name__ == "__main__":
    main()
