"""`porter diff`: what was changed is found and measured, and nothing else. Numbers are held against NumPy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import porter
from porter.errors import PorterError

pytestmark = pytest.mark.peer

Change = Callable[[dict[str, torch.Tensor]], None]
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def base(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Gemma in one file."""
    out = tmp_path_factory.mktemp("base") / "base"
    porter.convert(tiny_gemma, out, to="hf")
    (out / "porter-receipt.json").unlink()
    return out


@pytest.fixture
def changed(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the model with some of it changed."""

    def make(change: Change = lambda weights: None, name: str = "changed", **config: Any) -> Path:
        out = Path(shutil.copytree(base, tmp_path / name))
        weights = load_file(out / "model.safetensors")
        change(weights)
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
        said = json.loads((out / "config.json").read_text()) | config
        (out / "config.json").write_text(json.dumps(said))
        return out

    return make


@pytest.fixture
def command(hub: Any, here: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str | Path, code: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "porter", "diff", *map(str, arguments)],
            cwd=here, env=hub.env, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.mark.parametrize(
    "form",
    [
        {"to": "litgpt"},
        {"to": "litgpt", "container": "pth"},
        {"to": "litgpt-legacy"},
        {"to": "keras"},
        {"to": "flax"},
        {"to": "gemma_pytorch"},
        {"to": "hf", "max_shard_size": 60_000},
    ],
    ids=lambda form: "-".join(map(str, form.values())),
)
def test_two_ports_of_one_model_are_the_same(base: Path, tmp_path: Path, form: dict[str, Any]) -> None:
    porter.convert(base, tmp_path / "port", **form)
    for one, other in ((base, tmp_path / "port"), (tmp_path / "port", base)):
        found = porter.diff(one, other)
        assert found.same, found
        assert found.by == "canonical axes" and found.compared == found.equal >= 29


def test_arrays_that_have_to_be_unpacked_are_compared(base: Path, tmp_path: Path) -> None:
    import tensorstore

    porter.convert(base, tmp_path / "flax", to="flax")
    (tmp_path / "flax/porter-receipt.json").unlink()
    array = next((tmp_path / "flax").rglob("layer_1/mlp/linear.w"))
    for change in (0.0, 0.25):
        place = {"driver": "file", "path": f"{array}/"}
        values = tensorstore.open({"driver": "zarr", "kvstore": place}).result().read().result().copy()
        values[3, 5] += change
        shutil.rmtree(array)
        spec = {"driver": "zarr", "kvstore": place, "metadata": {"compressor": {"id": "gzip", "level": 1}}}
        made = tensorstore.open(spec, create=True, dtype="float32", shape=values.shape).result()
        made.write(values).result()
        for one, other in ((base, tmp_path / "flax"), (tmp_path / "flax", base)):
            found = porter.diff(one, other)
            assert found.same == (change == 0.0)
            differing = [(value.name, value.differing) for value in found.values]
            assert differing == ([("1.mlp.down", 1)] if change else [])
            assert not change or found.values[0].max_abs == pytest.approx(change, rel=1e-5)


def test_numbers_are_those_that_numpy_finds(base: Path, changed: Any, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)

    def noise(weights: dict[str, torch.Tensor]) -> None:
        weights[UP] += 1e-3 * torch.randn(weights[UP].shape, generator=generator)
        weights[UP][0] = load_file(base / "model.safetensors")[UP][0]
        weights["model.norm.weight"][7] += 0.5

    other = changed(noise)
    a = load_file(base / "model.safetensors")[UP].numpy().astype(np.float64)
    b = load_file(other / "model.safetensors")[UP].numpy().astype(np.float64)
    # Through another dialect, so that both sides are put in order.
    porter.convert(other, tmp_path / "keras", to="keras")
    found = porter.diff(base, tmp_path / "keras")
    assert [value.name for value in found.values] == ["norm", "1.mlp.up"]
    norm, up = found.values
    assert (norm.differing, norm.first, norm.max_abs) == (1, (7,), pytest.approx(0.5))
    delta = np.abs(a - b)
    first = tuple(map(int, np.argwhere(delta)[0]))
    assert (up.shape, up.compared, up.differing) == (a.shape, a.size, np.count_nonzero(delta))
    assert (up.first, up.a, up.b) == (first, a[first], b[first]) and first[0] == 1
    assert up.max_abs == delta.max() and up.mean_abs == pytest.approx(delta.mean())
    assert up.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))
    assert up.cosine == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    assert up.rank is None and not found.same and found.config == ()
    # Within tolerance.
    assert [v.name for v in porter.diff(base, tmp_path / "keras", atol=0.01).values] == ["norm"]
    assert porter.diff(base, tmp_path / "keras", atol=0.51).same
    count = np.count_nonzero(delta > 1e-4 + 0.01 * np.abs(b))
    loose = next(v for v in porter.diff(base, other, atol=1e-4, rtol=0.01).values if v.name == "1.mlp.up")
    assert loose.differing == count > 0


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_merged_lora_is_known_by_its_rank(base: Path, changed: Any, rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)

    def merge(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if name.endswith(("q_proj.weight", "o_proj.weight"))]:
            out, into = weights[name].shape
            left, right = (
                torch.randn(out, rank, generator=generator),
                torch.randn(rank, into, generator=generator),
            )
            weights[name] = (weights[name] + 0.02 * left @ right).bfloat16().float()
        weights[UP] += 0.01 * torch.randn(weights[UP].shape, generator=generator)

    found = porter.diff(base, changed(merge))
    ranks = {value.name.partition(".")[2]: value.rank for value in found.values if "norm" not in value.name}
    assert ranks == {"attn.q": rank, "attn.o": rank, "mlp.up": None}


def test_few_changed_values_are_no_lora(base: Path, changed: Any) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[UP][0, 0] += 1

    (value,) = porter.diff(base, changed(change)).values
    assert (value.differing, value.rank) == (1, None)


def test_dtypes_are_a_difference_unless_they_should_not_be(base: Path, tmp_path: Path) -> None:
    half, wide = tmp_path / "half", tmp_path / "wide"
    porter.convert(base, half, to="hf", dtype="bfloat16")
    porter.convert(half, wide, to="litgpt", dtype="float32")
    found = porter.diff(half, wide)
    assert not found.same and found.values == ()
    assert {(item.a, item.b) for item in found.dtypes} == {("BF16", "F32")}
    assert porter.diff(half, wide, dtype_agnostic=True).same
    rounded = porter.diff(base, half, dtype_agnostic=True)
    assert len(rounded.values) == rounded.compared
    assert porter.diff(base, half, dtype_agnostic=True, rtol=2**-8).same


def test_configs_are_compared_by_what_they_mean(base: Path, changed: Any) -> None:
    found = porter.diff(base, changed(rms_norm_eps=1e-5, architectures=["X"], use_cache=False))
    assert [(item.name, item.a, item.b) for item in found.config or ()] == [("norm_eps", 1e-6, 1e-5)]
    assert not found.same and found.values == ()
    assert porter.diff(base, changed(name="again", rms_norm_eps=1e-5), weights_only=True).same


def test_added_rows_are_a_shape_and_the_rest_is_compared(base: Path, changed: Any) -> None:
    vocab = json.loads((base / "config.json").read_text())["vocab_size"]

    def grow(weights: dict[str, torch.Tensor]) -> None:
        rows = weights["model.embed_tokens.weight"]
        weights["model.embed_tokens.weight"] = torch.cat([rows, torch.ones(3, rows.shape[1])])

    found = porter.diff(base, changed(grow, vocab_size=vocab + 3))
    (shape,) = found.shapes
    assert (shape.name, shape.a[0], shape.b[0], shape.compared) == ("embed", vocab, vocab + 3, vocab * 66)
    assert found.values == () and [item.name for item in found.config or ()] == ["vocab_size"]


def test_a_head_that_was_trained_apart_is_found(base: Path, tmp_path: Path) -> None:
    lit = tmp_path / "lit"
    porter.convert(base, lit, to="litgpt")
    weights = load_file(lit / "lit_model.safetensors")
    weights["lm_head.weight"][2, 3] += 1
    save_file(weights, lit / "lit_model.safetensors")
    (value,) = porter.diff(base, lit).values
    assert (value.name, value.first, value.differing) == ("head", (2, 3), 1)


def test_nan_and_infinity(base: Path, changed: Any) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[UP][3, 4], weights[UP][3, 5], weights[UP][3, 6] = torch.nan, torch.inf, torch.nan

    spoilt = changed(spoil)
    assert porter.diff(spoilt, spoilt).same
    (value,) = porter.diff(base, spoilt).values
    assert (value.differing, value.odd, value.first, value.b) == (3, 3, (3, 4), None)
    assert value.max_abs == 0 and value.cosine == pytest.approx(1)


def test_models_that_no_table_knows_are_paired_by_names(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        weights = {
            "encoder.weight": torch.ones(5, 7).bfloat16(),
            "encoder.bias": torch.full((5,), value),
            "steps": torch.tensor([3, 4]),
            f"only.{name}": torch.zeros(2),
        }
        save_file(weights, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "mine", "depth": int(value)}))
    found = porter.diff(tmp_path / "a", tmp_path / "b")
    assert (found.by, found.compared, found.equal) == ("names", 3, 2)
    assert [value.name for value in found.values] == ["encoder.bias"]
    assert ([t.name for t in found.only_in_a], [t.name for t in found.only_in_b]) == (["only.a"], ["only.b"])
    assert [item.name for item in found.config or ()] == ["depth"]
    assert porter.diff(tmp_path / "a", tmp_path / "a").same


def test_what_has_nothing_in_common_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    save_file({"x": torch.zeros(2)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(PorterError) as caught:
        porter.diff(base, tmp_path / "other")
    assert caught.value.exit_code == 5
    with pytest.raises(PorterError) as caught:
        porter.diff(base, base, atol=-1)
    assert caught.value.exit_code == 2


def test_what_a_user_types(base: Path, changed: Any, command: Any) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        for layer in range(3):
            weights[f"model.layers.{layer}.mlp.up_proj.weight"] += 0.1

    other = changed(change, rms_norm_eps=1e-5)
    assert command(base, base, code=0).stdout.startswith("same       29 tensors")
    lines = command(base, other, code=3).stdout.splitlines()
    assert lines[0].startswith("differs    26 of 29 tensors are equal; 3 differ in value, 1 field")
    assert "config     norm_eps: 1e-06 | 1e-05" in lines
    (row,) = (line for line in lines if line.startswith("{0..2}.mlp.up"))
    assert "100.0%" in row
    found = json.loads(command(base, other, "--json", code=3).stdout)
    assert (found["schema"], found["same"], len(found["values"])) == (1, False, 3)
    assert "norm_eps" not in command(base, other, "--weights-only", code=3).stdout
