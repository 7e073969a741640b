"""What `--explain` says is what a run does."""

from porter.execution.classes import REASONS, SHARED, explain
from porter.layout.copies import Loop
from porter.planning.plan import COMPUTE, COPY_CLASSES, EXTENT, RUNS, TILE, Copy
from porter.planning.sharing import BLOCK


def test_copies_and_bytes_are_counted_by_executor(bench):
    bench.content = bytearray(0)
    bench.source("s", "BF16", (40 * BLOCK,), bytes(80 * BLOCK))
    for name, dtype, kind, loops in [
        ("a", "BF16", EXTENT, (Loop(40 * BLOCK, 1, 1),)),
        ("b", "BF16", EXTENT, (Loop(7, 1, 1),)),
        ("c", "BF16", RUNS, (Loop(3, 9, 5), Loop(5, 1, 1))),
        ("d", "BF16", TILE, (Loop(3, 1, 2), Loop(2, 3, 1))),
        ("e", "F32", COMPUTE, (Loop(11, 1, 1),)),
        ("f", "F32", COMPUTE, (Loop(2, 1, 1),)),
    ]:
        size = 1
        for loop in loops:
            size *= loop.size
        bench.target(name, dtype, (size,))
        bench.copies.append(Copy("x", "s", name, 0, 0, loops, kind))
    plan = bench.plan()
    # Nothing lies well here by itself: the header is not padded.
    found = {choice.executor: (choice.copies, choice.nbytes) for choice in explain(plan)}
    assert found == {EXTENT: (2, 80 * BLOCK + 14), RUNS: (1, 30), TILE: (1, 12), COMPUTE: (2, 52)}


def test_every_executor_has_a_reason():
    assert set(REASONS) == {SHARED, *COPY_CLASSES}
