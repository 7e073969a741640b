"""Bits as numbers and back, in NumPy, against torch: every float of two bytes or fewer, and roundings."""

import numpy as np
import pytest
import torch

from porter.dtypes import DTYPES
from porter.errors import UnsupportedError
from porter.values.numbers import bits, numbers, out_of_range, rounded

SMALL = ("F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0")


def in_torch(words: np.ndarray, name: str) -> torch.Tensor:
    return torch.from_numpy(words).view(getattr(torch, DTYPES[name].torch))


def everything(name: str) -> np.ndarray:
    return np.arange(1 << 8 * DTYPES[name].itemsize).astype(f"<u{DTYPES[name].itemsize}")


def spread() -> np.ndarray:
    """A million float32 of all exponents and signs, and those on either side of what bfloat16 ties at."""
    words = np.arange(0, 1 << 32, 0x1003, dtype=np.uint64).astype(np.uint32)
    ties = (np.arange(0, 1 << 16, dtype=np.uint32) << 16) + 0x8000
    return np.concatenate([words, ties - 1, ties, ties + 1, ties << 3]).view(np.float32)


@pytest.mark.parametrize("name", SMALL)
def test_every_word_is_the_number_that_torch_makes(name):
    found = numbers(everything(name), DTYPES[name])
    expected = in_torch(everything(name), name).float().numpy()
    assert found.dtype == np.float32
    assert np.array_equal(found, expected, equal_nan=True)
    zeros = found == 0
    assert np.array_equal(np.signbit(found[zeros]), np.signbit(expected[zeros]))


@pytest.mark.parametrize("name", [name for name in SMALL if name != "F8_E8M0"])
def test_every_rounding_is_torchs(name):
    """Ties go to even, subnormals round as well; what is out of range becomes an infinity, or NaN."""
    values = spread()
    if name == "F8_E4M3":
        # Without infinities: torch makes its largest number of what is larger, which would hide the loss.
        values = values[~(np.abs(values) > 464)]
    made = bits(values, DTYPES[name])
    expected = torch.from_numpy(values).to(getattr(torch, DTYPES[name].torch))
    odd = np.isnan(values)
    assert odd.sum() > 1000
    assert np.array_equal(made[~odd], expected.view(torch.uint8).numpy().view(made.dtype)[~odd])
    assert np.isnan(numbers(made, DTYPES[name])[odd]).all()
    assert np.array_equal(rounded(values[~odd], DTYPES[name]), expected.float().numpy()[~odd], equal_nan=True)
    # Negative control: cutting off is another rounding.
    if name == "BF16":
        assert not np.array_equal(made, (values.view(np.uint32) >> 16).astype(np.uint16))


def test_a_nan_that_was_widened_comes_back_with_what_it_holds():
    words = np.arange(1 << 16, dtype=np.uint16)
    wide = numbers(words, DTYPES["BF16"])
    assert np.array_equal(wide.view(np.uint32), words.astype(np.uint32) << 16)
    assert np.array_equal(bits(wide, DTYPES["BF16"]), words)
    below = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F80FFFF], np.uint32)
    assert bits(below.view(np.float32), DTYPES["BF16"]).tolist() == [0x7FC0, 0xFFC0, 0x7FFF, 0xFFFF, 0x7FC0]


def test_float64_goes_through_float32_as_in_torch():
    values = np.random.default_rng(1).standard_normal(5000) * 10.0 ** np.arange(-25, 25).repeat(100)
    values[7] = 1 + 2.0**-8 + 2.0**-40
    for name in ("BF16", "F16", "F32"):
        expected = torch.from_numpy(values).to(getattr(torch, DTYPES[name].torch))
        made = bits(values, DTYPES[name])
        assert np.array_equal(made, expected.view(torch.uint8).numpy().view(made.dtype))


def test_order_and_gaps_in_memory_do_not_matter():
    values = np.random.default_rng(2).standard_normal((37, 53)).astype(np.float32)
    into = np.zeros((37, 106), np.uint16)[:, ::2]
    assert bits(values.T.copy().T, DTYPES["BF16"], into) is into
    assert np.array_equal(into, bits(values, DTYPES["BF16"]))


@pytest.mark.parametrize(
    ("name", "values", "lost"),
    [
        ("F16", [1e5, 1.0, -7e4, np.inf, np.nan], 2),
        ("F16", [65519.9, 65520.0], 1),
        ("BF16", [3.39e38, 3.397e38, np.nan], 1),
        ("F8_E4M3", [464.0, 464.1, -500.0], 2),
        ("F8_E5M2", [61439.0, 61440.0], 1),
        ("F32", [1e30, np.inf], 0),
        ("I64", [1.5, 2.0], 1),
        ("F16", [], 0),
    ],
)
def test_what_does_not_fit_is_counted(name, values, lost):
    values = np.array(values, np.float32)
    dtype = DTYPES[name]
    assert out_of_range(values, bits(values, dtype), dtype).sum() == lost


def test_float64_out_of_float32s_range_is_counted():
    values = np.array([1e39, 1.0])
    assert out_of_range(values, bits(values, DTYPES["F32"]), DTYPES["F32"]).tolist() == [True, False]


@pytest.mark.parametrize("name", ["F8_E8M0", "F4", "C64"])
def test_what_is_no_number_of_whole_bytes_is_refused(name):
    with pytest.raises(UnsupportedError):
        bits(np.ones(2, np.float32), DTYPES[name])
