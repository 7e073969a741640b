"""What porter made of the real Gemma 3 270M."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def converted(real_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The GGUF dequantised to float32, as a LitGPT directory and from there as a Hugging Face one."""
    import porter

    base = tmp_path_factory.mktemp("real")
    porter.convert(real_gguf, base / "litgpt", to="litgpt", dtype="float32", target_model="litgpt")
    porter.convert(base / "litgpt", base / "hf", to="hf", target_model="transformers")
    return {"litgpt": base / "litgpt", "hf": base / "hf"}
