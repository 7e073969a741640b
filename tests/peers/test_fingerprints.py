"""One fingerprint for each model of every family, in Hugging Face's form, LitGPT's and GGUF.

transformers writes the model, gguf-py's writer the GGUF, by code that shares nothing with the tables.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import porter
from porter.errors import PorterError

pytestmark = pytest.mark.peer


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"{name}_fingerprinted", Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


families = _beside("families")
made = _beside("test_families_gguf")


def digest(path: Path, **options: Any) -> str:
    return porter.fingerprint(path, **options).fingerprint


WITHOUT = ("gemma3n", "gemma4")


@pytest.mark.parametrize("family", WITHOUT)
def test_models_without_litgpt_in_two_forms(family: str, tmp_path: Path) -> None:
    families.build(families.config_of(family, "")).save_pretrained(tmp_path / "hf")
    porter.convert(tmp_path / "hf", tmp_path / "out", to="hf", max_shard_size=100_000)
    assert digest(tmp_path / "out") == digest(tmp_path / "hf")
    if family == "gemma4":
        porter.convert(tmp_path / "hf", tmp_path / "keras", to="keras")
        assert digest(tmp_path / "keras") == digest(tmp_path / "hf")


@pytest.mark.parametrize(
    "family", [name for name in (*families.FIRST_FAMILIES, *families.FAMILIES) if name not in WITHOUT]
)
def test_litgpts_form_of_a_model_is_the_same_model(family: str, tmp_path: Path) -> None:
    families.build(families.config_of(family, "")).save_pretrained(tmp_path / "hf")
    porter.convert(tmp_path / "hf", tmp_path / "litgpt", to="litgpt")
    porter.convert(tmp_path / "litgpt", tmp_path / "half", to="hf", dtype="float16")
    assert digest(tmp_path / "litgpt") == digest(tmp_path / "hf")
    # Negative control: what was rounded is another one, whatever the dtype.
    assert digest(tmp_path / "half", dtype_agnostic=True) != digest(tmp_path / "hf", dtype_agnostic=True)


@pytest.mark.parametrize("case", ["llama", "llama, tied", "mixtral", "falcon", "phi3", "gpt_neox"])
def test_a_gguf_is_the_same_model(case: str, tmp_path: Path) -> None:
    model, tensors = made.prepared(case, tmp_path)
    source = made.write(case, tmp_path / "model.gguf", model, tensors)
    assert digest(source) == digest(tmp_path / "own")
    wrong = made.write(case, tmp_path / "other.gguf", model, {n: t.flip(0) for n, t in tensors.items()})
    assert digest(wrong) != digest(source)


def test_quantised_weights_have_values_alone(tmp_path: Path) -> None:
    import gguf
    import numpy as np

    # Rows of whole blocks of 32.
    wide = made.CASES["llama"].config | {"hidden_size": 96, "intermediate_size": 128}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(made.CASES, "llama", replace(made.CASES["llama"], config=wide))
        model, tensors = made.prepared("llama", tmp_path)
    kept = gguf.GGUFWriter.add_tensor

    def quantised(self: Any, name: str, data: Any, *rest: Any, **more: Any) -> None:
        if data.ndim == 2 and data.shape[-1] % 32 == 0:
            packed = gguf.quants.quantize(np.ascontiguousarray(data), gguf.GGMLQuantizationType.Q8_0)
            kept(self, name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            kept(self, name, data, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "add_tensor", quantised)
        source = made.write("llama", tmp_path / "model.gguf", model, tensors)
    with pytest.raises(PorterError, match="quantised") as caught:
        digest(source)
    assert caught.value.exit_code == 5 and "dtype_agnostic=True" in str(caught.value.hint)
    porter.convert(source, tmp_path / "hf", to="hf", dtype="float32")
    assert digest(source, dtype_agnostic=True) == digest(tmp_path / "hf")
    assert digest(source, dtype_agnostic=True) != digest(tmp_path / "own")
