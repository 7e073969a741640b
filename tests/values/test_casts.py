"""Casts are torch's but for what NaNs hold: of each float16 and bfloat16, and of float32 at every edge."""

import numpy as np
import pytest
import torch

from porter.dtypes import DTYPES
from porter.values.casts import BLOCK, can_cast, cast
from porter.values.operations import Operation

TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WORDS = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}

# Lower halves: nothing, one, a half and either side of it, all; the same of the 13 bits that float16 drops.
LOWER = (0, 1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0xF000, 0xFFFE, 0xFFFF)


def every_edge():
    """Each of the 2^16 upper halves of a float32 with each of the lower ones."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    return (upper[:, None] | np.array(LOWER, np.uint32)).reshape(-1)


def by_torch(words, source, target):
    values = torch.from_numpy(words.view(np.int32 if words.itemsize == 4 else np.int16)).view(TORCH[source])
    made = values.to(TORCH[target])
    return made.view(torch.int32 if target == "F32" else torch.int16).numpy().view(WORDS[target]), made


def ours(words, source, target, operations=()):
    out = np.empty(len(words), WORDS[target])
    return out, cast(words, DTYPES[source], DTYPES[target], out, operations)


def nans(words, dtype):
    infinity, most = {"F32": (0x7F800000, 0x7FFFFFFF), "F16": (0x7C00, 0x7FFF), "BF16": (0x7F80, 0x7FFF)}[
        dtype
    ]
    return (words & most) > infinity


@pytest.mark.parametrize("target", ["BF16", "F16"])
def test_float32_is_rounded_as_torch_rounds(target):
    words = every_edge()
    assert len(words) % BLOCK == 0 and len(words) > 50 * BLOCK
    expected, values = by_torch(words, "F32", target)
    found, lost = ours(words, "F32", target)
    odd = nans(words, "F32")
    assert np.array_equal(found[~odd], expected[~odd])
    assert np.array_equal(nans(found, target), odd) and odd.sum() > 3000, (
        "a NaN stays one, and nothing becomes one"
    )
    infinite = torch.isinf(values).numpy() & np.isfinite(words.view(np.float32))
    assert lost == infinite.sum() > 0
    # Negative control: dropping the lower half is another rounding.
    assert not np.array_equal(words[~odd] >> 16, expected[~odd])


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("target", ["F32", "BF16", "F16"])
def test_all_halves(dtype, target):
    words = np.arange(1 << 16, dtype=np.uint16)
    expected, values = by_torch(words, dtype, target)
    found, lost = ours(words, dtype, target)
    odd = nans(words, dtype)
    assert np.array_equal(found[~odd], expected[~odd])
    assert np.array_equal(nans(found, target), odd)
    finite = torch.isfinite(torch.from_numpy(words.view(np.int16)).view(TORCH[dtype])).numpy()
    assert lost == (torch.isinf(values).numpy() & finite).sum()


def test_what_was_widened_comes_back_with_what_its_nans_hold():
    words = np.arange(1 << 16, dtype=np.uint16)
    wide, _ = ours(words, "BF16", "F32")
    assert np.array_equal(ours(wide, "F32", "BF16")[0], words)
    assert np.array_equal(wide, words.astype(np.uint32) << 16)


def test_a_nan_whose_content_lies_below_stays_one():
    words = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F80FFFF], np.uint32)
    found, lost = ours(words, "F32", "BF16")
    assert found.tolist() == [0x7FC0, 0xFFC0, 0x7FFF, 0xFFFF, 0x7FC0] and lost == 0


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
@pytest.mark.parametrize("source", WORDS)
@pytest.mark.parametrize("target", WORDS)
def test_of_any_length_with_operations_or_without(source, target, size):
    generator = torch.Generator().manual_seed(size)
    values = (torch.randn(size, generator=generator) * 3).to(TORCH[source])
    words = values.view(torch.int32 if source == "F32" else torch.int16).numpy().view(WORDS[source])
    for operations in ((), (Operation("add", -1.0), Operation("multiply", 0.3))):
        exact = values.float()
        for operation in operations:
            exact = operation.apply(exact)
        made = exact.to(TORCH[target]).view(torch.int32 if target == "F32" else torch.int16).numpy()
        found, lost = ours(words, source, target, operations)
        assert np.array_equal(found, made.view(WORDS[target])) and lost == 0


def test_which_dtypes_it_knows():
    assert can_cast(DTYPES["F32"], DTYPES["BF16"]) and can_cast(DTYPES["F16"], DTYPES["F32"])
    assert not any(can_cast(DTYPES[name], DTYPES["BF16"]) for name in ("F64", "I8", "F8_E4M3", "Q8_0"))
    assert not can_cast(DTYPES["F32"], DTYPES["F8_E5M2"])
