"""What is done to values is said as what it is."""

from porter.planning.plan import Copy
from porter.planning.summary import operation_notes
from porter.values.operations import Operation


def copy(target, *operations):
    return Copy("c", "s", target, 0, 0, (), "compute", tuple(Operation(*one) for one in operations))


def test_operations_are_told_as_they_are_done():
    made = operation_notes(
        [
            copy("a", ("add", -1.0)),
            copy("plain"),
            copy("b", ("add", -1.0)),
            copy("b", ("add", -1.0)),
            copy("c", ("add", 2.0), ("multiply", 0.25), ("add", -1.0)),
            copy("d", ("multiply", 45.25)),
        ]
    )
    assert made == [
        "2 tensors such as a: w - 1, in float32",
        "1 tensor: c: (w + 2) · 0.25 - 1, in float32",
        "1 tensor: d: w · 45.25, in float32",
    ]
    assert operation_notes([copy("plain")]) == []
