"""The contract of value operations, which every kind keeps: on torch and NumPy alike, and undone."""

import numpy as np
import pytest
import torch

from porter.errors import UnsupportedError
from porter.values.operations import KINDS, Operation, leaves_nothing, undone

VALUES = np.array([-2.5, 0.0, 0.75, 3.0], np.float32)
# What each is to make of them, written out by hand.
EXPECTED = {
    "add": (1.5, [-1.0, 1.5, 2.25, 4.5], "w + 1.5"),
    "multiply": (4.0, [-10.0, 0.0, 3.0, 12.0], "w · 4"),
}


def test_every_kind_is_held_against_an_expectation():
    assert set(KINDS) == set(EXPECTED)


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_operation_makes_of_values(kind):
    operand, expected, words = EXPECTED[kind]
    operation, before = Operation(kind, operand), VALUES.copy()
    of_arrays, of_tensors = operation.apply(before), operation.apply(torch.from_numpy(before))
    assert of_arrays.dtype == np.float32 and of_tensors.dtype == torch.float32
    assert of_arrays.tolist() == expected == of_tensors.tolist()
    assert before.tolist() == VALUES.tolist(), "never in place: steps of a stride of 0 share their memory"
    assert operation.words() == words


@pytest.mark.parametrize("kind", KINDS)
def test_its_inverse_brings_the_values_back(kind):
    operation = Operation(kind, EXPECTED[kind][0])
    there = operation.apply(VALUES)
    assert there.tolist() != VALUES.tolist()
    assert operation.inverse().apply(there).tolist() == VALUES.tolist()
    assert operation.inverse().inverse() == operation


def test_several_are_undone_from_the_last_to_the_first():
    both = (Operation("add", 1.0), Operation("multiply", 2.0))
    values = both[1].apply(both[0].apply(VALUES))
    for operation in undone(both):
        values = operation.apply(values)
    assert values.tolist() == VALUES.tolist()
    assert both[1].words(both[0].words()) == "(w + 1) · 2"


def test_an_operand_without_an_inverse_is_told():
    assert leaves_nothing("multiply", 0) and leaves_nothing("multiply", 0.0)
    assert leaves_nothing("multiply", float("nan")) and leaves_nothing("add", float("-inf"))
    assert not leaves_nothing("multiply", 0.5) and not leaves_nothing("add", 0)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UnsupportedError, match="unknown operation 'divide'"):
        Operation("divide", 2.0).apply(VALUES)
