"""Planning is linear in the number of tensors: counted in calls, not in seconds."""

import sys

CANONICAL = """
family = "lab"
[index]
layer = "n_layer"
expert = "n_expert"
[tensors]
"{layer}.{expert}.up" = "d_ff d_model"
[hyperparameters]
n_layer = "int"
n_expert = "int"
d_ff = "int"
d_model = "int"
vocab_size = { type = "int", neutral = 1 }
"""
FIELDS = (
    '[config.fields]\nn_layer = "l"\nn_expert = "e"\nd_ff = "f"\nd_model = "m"\nvocab_size = "v"\n[[rule]]\n'
)
SOURCE = FIELDS + 'theirs = "a.{layer}.{expert}"\nours = "{layer}.{expert}.up"\n'
TARGET = FIELDS + 'theirs = "b.{layer}.{expert}"\nours = "{layer}.{expert}.up"\nlayout = "d_model d_ff"\n'
STACKED = FIELDS + 'theirs = "c.{layer}"\nours = "{layer}.{expert}.up"\nlayout = "expert d_ff d_model"\n'


def calls(work):
    """How many functions are called, Python's and built-in ones, and what the work returns."""
    count = 0

    def notice(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(notice)
    try:
        made = work()
    finally:
        sys.setprofile(before)
    return count, made


def test_four_times_the_tensors_take_four_times_the_calls(lab):
    family = lab.family(CANONICAL, source=SOURCE, target=TARGET, stacked=STACKED)
    for target in ("target", "stacked"):
        counted = []
        for layers in (10, 40):
            sizes = {"n_layer": layers, "n_expert": 50, "d_ff": 3, "d_model": 2}
            shapes = {f"a.{layer}.{expert}": (3, 2) for layer in range(layers) for expert in range(50)}
            count, made = calls(lambda: lab.plan(family, "source", target, shapes, sizes))  # noqa: B023
            assert len(made.copies) == 50 * layers
            counted.append(count)
        assert counted[1] < 4.5 * counted[0], (target, counted)


def test_the_count_would_notice_a_square():
    """Negative control."""
    counted = [calls(lambda: [abs(-1) for _ in range(n * n)])[0] for n in (10, 40)]  # noqa: B023
    assert counted[1] > 4.5 * counted[0]
