"""The hand-made Gemma of `handmade.py` as directories."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from handmade import CONFIG, LITGPT, Tensors, hf_weights, litgpt_weights, write


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("original") / "hf", hf_weights(), CONFIG)


@pytest.fixture
def port(tmp_path: Path) -> Callable[..., Path]:
    """`port(change=f, config={...})`: a LitGPT port after `f` has changed its tensors in place."""

    def made(change: Callable[[Tensors], object] = lambda weights: None, **config: Any) -> Path:
        weights = litgpt_weights(hf_weights())
        change(weights)
        folder = tmp_path / f"port-{len(list(tmp_path.iterdir()))}"
        return write(folder, weights, {**LITGPT, **config})

    return made
