"""Checks that need bytes: pairs compared by value through two address maps, and elements that are zeros."""

import ml_dtypes
import numpy as np
import pytest

from porter.containers.base import StoredTensor
from porter.dtypes import DTYPES, SCALED_I8
from porter.errors import DifferenceError
from porter.execution import checks
from porter.execution.checks import check_zeros, compare
from porter.execution.kernels import compared
from porter.layout import Loop
from porter.planning.plan import EqualCheck, ZeroCheck
from porter.values.operations import Operation

KINDS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I32": np.int32,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
}


class Held:
    """A source file in memory."""

    def __init__(self):
        self.data, self.tensors = bytearray(b"header"), {}

    def add(self, name, array, dtype="F32", scales=None, stated=None):
        raw = np.ascontiguousarray(array.astype(KINDS.get(dtype, array.dtype))).tobytes()
        found = StoredTensor(name, stated or DTYPES[dtype], array.shape, "x", len(self.data), scales)
        self.tensors[name] = found
        self.data += raw

    def read(self, views, offset):
        for view in views:
            view[:] = self.data[offset : offset + len(view)]
            offset += len(view)

    def compare(self, check):
        compare(check, self.tensors, {"x": self})


@pytest.fixture(params=[(1, 1 << 20), (7, 64), (1 << 20, 1 << 20)], ids=str)
def sizes(request, monkeypatch):
    """Elements compared and bytes read at a time."""
    monkeypatch.setattr(compared, "CHUNK", request.param[0])
    monkeypatch.setattr(compared, "_CLOSE", request.param[1])
    monkeypatch.setattr(checks, "BUFFER", request.param[1])


VALUES = np.arange(1, 36).reshape(5, 7)
PLAIN = (Loop(35, 1, 1),)
# The second tensor is the first one's transpose.
TURNED = (Loop(7, 1, 5), Loop(5, 7, 1))


@pytest.mark.parametrize("kept", ["F32", "BF16", "F16", "F64", "I32"])
@pytest.mark.parametrize("dropped", ["F32", "BF16", "F8_E4M3"])
@pytest.mark.parametrize("turned", [False, True])
def test_equal_values_pass_and_others_do_not(sizes, kept, dropped, turned):
    # Up to 16 every whole number is a float8.
    values = VALUES % 17
    held = Held()
    held.add("one", values, kept)
    held.add("two", values.T if turned else values, dropped)
    check = EqualCheck("one", "two", "tied", loops=TURNED if turned else PLAIN, hint="do this")
    held.compare(check)
    changed = values.copy()
    changed[3, 2] += 1
    held.add("two", changed.T if turned else changed, dropped)
    with pytest.raises(DifferenceError, match=r"'one' and 'two' have to be equal \(tied\)") as caught:
        held.compare(check)
    assert caught.value.hint == "do this" and "differ" in caught.value.cause


def test_the_place_and_the_values_are_told(sizes):
    held = Held()
    held.add("one", VALUES, "F32")
    other = VALUES.copy()
    other[3, 2] = 99
    held.add("two", other.T, "BF16")
    with pytest.raises(DifferenceError) as caught:
        held.compare(EqualCheck("one", "two", "", loops=TURNED))
    assert "element 23 of 'one'" in caught.value.cause and "24.0 against 99.0" in caught.value.cause


def test_what_rounding_has_made_equal_is_not(sizes):
    """bfloat16 has no 257."""
    held = Held()
    held.add("one", np.array([256.0]), "BF16")
    held.add("two", np.array([257.0]), "F32")
    with pytest.raises(DifferenceError, match=r"256\.0 against 257\.0"):
        held.compare(EqualCheck("one", "two", "", loops=()))


def test_operations_bring_both_to_the_canonical_values(sizes):
    held = Held()
    held.add("one", VALUES * 4, "BF16")
    held.add("two", VALUES.T + 1, "F32")
    given = {
        "kept_operations": (Operation("multiply", 0.25),),
        "dropped_operations": (Operation("add", -1.0),),
    }
    held.compare(EqualCheck("one", "two", "", loops=TURNED, **given))
    with pytest.raises(DifferenceError):
        held.compare(EqualCheck("one", "two", "", loops=TURNED))


def test_parts_of_larger_tensors(sizes):
    """A head fused behind something else: five rows from row 2 on, each with two numbers in front."""
    held = Held()
    larger = np.zeros((9, 9))
    larger[2:7, 2:] = VALUES
    held.add("one", larger, "F32")
    held.add("two", VALUES, "F32")
    loops = (Loop(5, 9, 7), Loop(7, 1, 1))
    held.compare(EqualCheck("one", "two", "", kept_offset=20, loops=loops))
    with pytest.raises(DifferenceError):
        held.compare(EqualCheck("one", "two", "", kept_offset=19, loops=loops))


def test_whole_numbers_are_compared_with_their_factors(sizes):
    held = Held()
    factors = np.array([0.5, 2.0, 4.0, 1.0, 0.25])
    held.add("factors", factors, "F32")
    held.add("one", VALUES.astype(np.int8), "I8", "factors", SCALED_I8)
    held.add("two", (VALUES * factors[:, None]).T, "F32")
    held.compare(EqualCheck("one", "two", "", loops=TURNED))
    held.add("factors", factors[::-1], "F32")
    with pytest.raises(DifferenceError):
        held.compare(EqualCheck("one", "two", "", loops=TURNED))


def test_the_first_byte_that_differs(sizes):
    held = Held()
    held.add("one", VALUES, "F32")
    other = VALUES.astype(np.float32)
    other.reshape(-1).view(np.uint8)[101] ^= 1
    held.add("two", other, "F32")
    with pytest.raises(DifferenceError, match="byte 101 of 140"):
        held.compare(EqualCheck("one", "two", "", loops=PLAIN))


@pytest.mark.parametrize(
    ("offset", "loops", "inside"),
    [
        (14, (Loop(21, 1, 1),), lambda row, column: row >= 2),
        (5, (Loop(5, 7, 7), Loop(2, 1, 1)), lambda row, column: column >= 5),
        (3, (Loop(5, 7, 7),), lambda row, column: column == 3),
    ],
)
def test_zeros_are_looked_for_where_they_have_to_be(sizes, offset, loops, inside):
    check = ZeroCheck("one", "some elements", offset, loops)
    for row in range(5):
        for column in range(7):
            held = Held()
            array = np.zeros((5, 7))
            array[row, column] = 1e-30
            held.add("one", array)
            if not inside(row, column):
                check_zeros(check, held.tensors["one"], {"x": held})
                continue
            with pytest.raises(DifferenceError, match="some elements of 'one' are not zeros") as caught:
                check_zeros(check, held.tensors["one"], {"x": held})
            assert caught.value.hint.endswith('allow_unmapped="one"')
