"""The contract of encodings, which each keeps: units are decoded by themselves, to the peer's own values."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from porter.dtypes import DTYPES, SCALED_I8
from porter.errors import PorterError
from porter.values.encodings import encoding_of

ROWS, WIDTH = 6, 64


def _blocks(name):
    values = np.random.default_rng(3).normal(size=(ROWS, WIDTH)).astype(np.float32)
    kind = getattr(GGMLQuantizationType, name)
    raw = quants.quantize(values, kind)
    return raw.tobytes(), quants.dequantize(raw, kind).reshape(-1), None


def _rows():
    stream = np.random.default_rng(4)
    whole = stream.integers(-128, 128, size=(ROWS, WIDTH)).astype(np.int8)
    factors = stream.normal(size=ROWS).astype(np.float32)
    values = np.array([[np.float32(n) * f for n in row] for row, f in zip(whole, factors, strict=True)])
    return whole.tobytes(), values.astype(np.float32).reshape(-1), factors


CASES = {
    "Q8_0": (DTYPES["Q8_0"], lambda: _blocks("Q8_0")),
    "Q4_0": (DTYPES["Q4_0"], lambda: _blocks("Q4_0")),
    "rows with factors": (SCALED_I8, _rows),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("units", [1, 2, 5])
def test_units_decoded_by_themselves_are_the_peers_values(case, units):
    dtype, make = CASES[case]
    raw, expected, factors = make()
    encoding = encoding_of(dtype)
    unit = encoding.unit(dtype, (ROWS, WIDTH))
    assert encoding.factors == (factors is not None)
    found = []
    for first in range(0, ROWS * WIDTH // unit, units):
        last = min(first + units, ROWS * WIDTH // unit)
        piece = memoryview(raw)[dtype.nbytes(first * unit) : dtype.nbytes(last * unit)]
        beside = None if factors is None else factors[first:last]
        found.append(encoding.decode(piece, dtype, unit, beside))
    assert np.concatenate(found).dtype == np.float32
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_other_factors_give_other_values():
    """Negative control."""
    raw, expected, factors = _rows()
    encoding = encoding_of(SCALED_I8)
    found = encoding.decode(memoryview(raw), SCALED_I8, WIDTH, factors[::-1].copy())
    assert not np.array_equal(found, expected)


def test_rows_without_their_factors_are_refused():
    with pytest.raises(PorterError, match="no factors"):
        encoding_of(SCALED_I8).decode(memoryview(_rows()[0]), SCALED_I8, WIDTH, None)


def test_plain_numbers_have_no_encoding():
    assert all(encoding_of(DTYPES[name]) is None for name in ("F32", "BF16", "F16", "I8", "F8_E4M3"))
