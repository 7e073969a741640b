"""Which casts lose nothing: held against every value of the narrow types, cast by torch."""

import itertools

import pytest
import torch

from porter.dtypes import DTYPES, casts_exactly

TORCH = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def every_value(name):
    dtype = TORCH[name]
    if dtype.itemsize == 1:
        return torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype)
    if dtype.itemsize == 2:
        return torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)
    # Of the wide types, values that need all of their bits.
    return torch.tensor([1 / 3, 1e30, -1e-30, 16777217 / 16777216], dtype=dtype)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(TORCH, TORCH)))
def test_a_cast_is_exact_where_every_value_comes_back(source, target):
    values = every_value(source)
    back = values.to(TORCH[target]).to(torch.float64)
    kept = torch.equal(torch.nan_to_num(back), torch.nan_to_num(values.to(torch.float64)))
    assert casts_exactly(DTYPES[source], DTYPES[target]) == kept


def test_quantised_values_are_those_of_float32():
    assert casts_exactly(DTYPES["Q8_0"], DTYPES["F32"]) and casts_exactly(DTYPES["Q4_K"], DTYPES["F64"])
    assert not casts_exactly(DTYPES["Q8_0"], DTYPES["BF16"])
    assert not casts_exactly(DTYPES["I64"], DTYPES["F32"])
