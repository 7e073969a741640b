"""Casts, operations and dequantised values equal those of torch and gguf on the whole tensor at once."""

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from porter.errors import UnsupportedError
from porter.execution.kernels import encoded, gather, ordered, tiles
from porter.layout.copies import Loop
from porter.planning.plan import COMPUTE, Copy
from porter.values.operations import Operation

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn,
}


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def values(shape, dtype):
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 9).to(TORCH[dtype])


@pytest.fixture(params=[1, 48, 1 << 24], ids=lambda size: f"pieces of {size}")
def small(request, monkeypatch):
    """Pieces so small that every tensor below needs many, and so large that none does."""
    monkeypatch.setattr(ordered, "PIECE", request.param)
    monkeypatch.setattr(encoded, "STEP", request.param)
    monkeypatch.setattr(ordered, "TURNED_PIECE", request.param)
    monkeypatch.setattr(gather, "SOURCE_SPAN", request.param)
    monkeypatch.setattr(tiles, "SOURCE_RUN", 8)
    monkeypatch.setattr(tiles, "SHORT_SPAN", 8)


CASTS = [
    ("BF16", "F32"),
    ("F32", "BF16"),
    ("F32", "F16"),
    ("F16", "BF16"),
    ("F64", "F32"),
    ("F64", "BF16"),
    ("I64", "F32"),
    ("I64", "F64"),
    ("U8", "BF16"),
    ("F8_E4M3", "BF16"),
    ("F32", "F8_E4M3"),
    ("F32", "F32"),
]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("source", "target"), CASTS)
def test_casts_are_torchs(bench, source, target):
    tensor = values((5, 7), source)
    bench.source("a", source, (5, 7), raw(tensor))
    bench.target("plain", target, (5, 7))
    bench.target("turned", target, (7, 5))
    bench.copies.append(Copy("a", "a", "plain", 0, 0, (Loop(35, 1, 1),), COMPUTE))
    bench.copies.append(Copy("a", "a", "turned", 0, 0, (Loop(7, 1, 5), Loop(5, 7, 1)), COMPUTE))
    _, found = bench.run()
    assert found["plain"] == raw(tensor.to(TORCH[target]))
    assert found["turned"] == raw(tensor.to(TORCH[target]).view(torch.uint8).view(5, 7, -1).transpose(0, 1))


def test_every_bfloat16_becomes_the_float32_that_torch_makes(bench):
    """Infinities, subnormals and what NaNs hold included; in order, and turned."""
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    bench.source("a", "BF16", (128, 512), raw(every))
    bench.target("plain", "F32", (128, 512))
    bench.target("turned", "F32", (512, 128))
    bench.copies.append(Copy("a", "a", "plain", 0, 0, (Loop(1 << 16, 1, 1),), COMPUTE))
    bench.copies.append(Copy("a", "a", "turned", 0, 0, (Loop(512, 1, 128), Loop(128, 512, 1)), COMPUTE))
    _, found = bench.run()
    wide = every.float().view(torch.int32).view(128, 512)
    assert found["plain"] == raw(wide)
    assert found["turned"] == raw(wide.t())
    # Negative control: a cast that rounds is another one.
    assert found["plain"] != raw(every.to(torch.float16).float())


def test_integers_keep_what_float32_would_lose(bench):
    tensor = torch.tensor([2**53 - 1, 2**24 + 1])
    bench.source("a", "I64", (2,), raw(tensor))
    bench.target("b", "F64", (2,))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(2, 1, 1),), COMPUTE))
    _, found = bench.run()
    assert np.frombuffer(found["b"]).tolist() == [2**53 - 1, 2**24 + 1]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_operations_are_done_in_float32_and_rounded_once(bench, dtype):
    tensor = values((41,), dtype)
    bench.source("a", dtype, (41,), raw(tensor))
    bench.target("b", "BF16", (41,))
    operations = (Operation("add", -1.0), Operation("multiply", 0.3))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(41, 1, 1),), COMPUTE, operations))
    _, found = bench.run()
    exact = (tensor.float() + torch.tensor(-1.0)) * torch.tensor(0.3)
    assert found["b"] == raw(exact.bfloat16())


def test_rounding_at_every_step_would_be_seen():
    tensor = values((41,), "BF16")
    once = ((tensor.float() - 1.0) * 0.3).bfloat16()
    assert not torch.equal(once, (tensor - 1.0) * 0.3)


def test_an_unknown_operation_is_unsupported(bench):
    bench.source("a", "F32", (1,), bytes(4))
    bench.target("b", "F32", (1,))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (), COMPUTE, (Operation("sqrt", 2.0),)))
    with pytest.raises(UnsupportedError, match="sqrt"):
        bench.run()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("source", "target", "numbers", "lost"),
    [
        ("F32", "F16", [1e5, 1.0, -7e4, float("inf")], 2),
        ("BF16", "F16", [65536.0, 65280.0], 1),
        ("F64", "F32", [1e39, 1.0], 1),
        ("F64", "BF16", [1e39, 1.0], 1),
        ("I64", "F16", [70000, 3], 1),
        ("F32", "I64", [1.5, 2.0], 1),
        ("I64", "U8", [256, 255], 1),
    ],
)
def test_values_that_do_not_fit_are_counted_and_named(bench, source, target, numbers, lost):
    tensor = torch.tensor(numbers, dtype=torch.float64 if source != "I64" else None).to(TORCH[source])
    bench.source("blk.weight", source, tensor.shape, raw(tensor))
    bench.target("b", target, tensor.shape)
    bench.copies.append(Copy("a", "blk.weight", "b", 0, 0, (Loop(len(numbers), 1, 1),), COMPUTE))
    with pytest.raises(UnsupportedError, match=rf"^{lost} values of tensor 'blk.weight' do not fit {target}"):
        bench.run()
    assert not (bench.root / "out").exists()


def test_infinities_and_nans_of_the_source_are_kept(bench):
    tensor = torch.tensor([float("inf"), float("nan"), -float("inf"), 65504.0])
    bench.source("a", "F32", (4,), raw(tensor))
    bench.target("b", "F16", (4,))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(4, 1, 1),), COMPUTE))
    _, found = bench.run()
    assert found["b"] == raw(tensor.half())


def blocks(kind: str, count: int) -> np.ndarray:
    """Random blocks whose half-precision scales are small numbers."""
    _, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    content = np.random.default_rng(1).integers(0, 256, (count, size), np.uint8)
    scale = np.linspace(0.001, 0.1, count).astype(np.float16)
    places = {"Q6_K": [208], "Q4_K": [0, 2]}.get(kind, [0])
    for at in places:
        content[:, at : at + 2] = scale.view(np.uint8).reshape(count, 2)
    return content


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("target", ["F32", "BF16"])
def test_dequantised_values_are_ggufs(bench, kind, target):
    block = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]
    rows, width = 6, 2 * block
    content = blocks(kind, rows * 2)
    whole = torch.from_numpy(quants.dequantize(content.reshape(rows, -1), GGMLQuantizationType[kind]))
    assert whole.shape == (rows, width)
    bench.source("a", kind, (rows, width), content.tobytes())
    bench.target("plain", target, (rows, width))
    bench.target("turned", target, (width, rows))
    bench.target("some", target, (2, width))
    bench.target("heads", target, (3, width, 2))
    bench.target("less", target, (rows, width))
    one = (Operation("add", -1.0),)
    everything = (Loop(rows * width, 1, 1),)
    heads = (Loop(3, 2 * width, 2 * width), Loop(width, 1, 2), Loop(2, width, 1))
    bench.copies += [
        Copy("a", "a", "plain", 0, 0, everything, COMPUTE),
        Copy("a", "a", "turned", 0, 0, (Loop(width, 1, rows), Loop(rows, width, 1)), COMPUTE),
        Copy("a", "a", "some", 3 * width, 0, (Loop(2 * width, 1, 1),), COMPUTE),
        Copy("a", "a", "heads", 0, 0, heads, COMPUTE),
        Copy("a", "a", "less", 0, 0, everything, COMPUTE, one),
    ]
    _, found = bench.run()
    dtype = TORCH[target]
    assert found["plain"] == raw(whole.to(dtype))
    assert found["turned"] == raw(whole.T.to(dtype).contiguous())
    assert found["some"] == raw(whole[3:5].to(dtype))
    assert found["heads"] == raw(whole.view(3, 2, width).transpose(1, 2).to(dtype).contiguous())
    assert found["less"] == raw((whole - 1).to(dtype))


def test_what_gguf_quantises_comes_back_as_gguf_reads_it(bench):
    weights = np.random.default_rng(5).standard_normal((4, 64), np.float32)
    content = quants.quantize(weights, GGMLQuantizationType.Q8_0)
    bench.source("a", "Q8_0", (4, 64), content.tobytes())
    bench.target("b", "F32", (4, 64))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(256, 1, 1),), COMPUTE))
    _, found = bench.run()
    assert np.abs(np.frombuffer(found["b"], np.float32).reshape(4, 64) - weights).max() < 0.02


def test_types_that_gguf_cannot_dequantise_are_unsupported(bench):
    bench.source("a", "Q8_K", (256,), bytes(292))
    bench.target("b", "F32", (256,))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(256, 1, 1),), COMPUTE))
    with pytest.raises(UnsupportedError, match="Q8_K"):
        bench.run()


def test_without_gguf_the_error_says_what_to_install(bench, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gguf", None)
    bench.source("a", "Q8_0", (32,), bytes(34))
    bench.target("b", "F32", (32,))
    bench.copies.append(Copy("a", "a", "b", 0, 0, (Loop(32, 1, 1),), COMPUTE))
    with pytest.raises(UnsupportedError, match=r"pip install 'gguf>="):
        bench.run()
