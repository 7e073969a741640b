"""The proof counts per canonical weight: each is held once by the source and once by the target.

Counted per stored tensor, one weight written twice would make up for another that is lost.
"""

import pytest

from porter.errors import UnsupportedError
from porter.planning.join import Join

CANONICAL = """
family = "lab"
[index]
layer = "n_layer"
[tensors]
"{layer}.k" = "d m"
"{layer}.v" = "d m"
[hyperparameters]
n_layer = "int"
d = "int"
m = "int"
split = { type = "bool", neutral = false }
vocab_size = { type = "int", neutral = 1 }
"""
CONFIG = '[config.fields]\nn_layer = "l"\nd = "d"\nm = "m"\nsplit = "s"\nvocab_size = "v"\n'
SIZES = {"n_layer": 3, "d": 2, "m": 5, "split": True, "vocab_size": 1}
FUSED = (
    CONFIG
    + """[[rule]]
theirs = "kv.{layer}"
ours = ["{layer}.k", "{layer}.v"]
layout = "(d | d) m"
"""
)
FUSED_SHAPES = {f"kv.{layer}": (4, 5) for layer in range(3)}


def rules(*parts):
    """A table of rules, each (stored name, canonical tensor, condition, layout)."""
    text = CONFIG
    for theirs, ours, when, layout in parts:
        text += f'[[rule]]\ntheirs = "{theirs}"\nours = "{ours}"\nlayout = "{layout}"\nwhen = "{when}"\n'
    return text


def apart(k, other, v):
    """k, k once more and v, each under its condition."""
    return rules(
        ("k.{layer}", "{layer}.k", k, "d m"),
        ("k2.{layer}", "{layer}.k", other, "d m"),
        ("v.{layer}", "{layer}.v", v, "d m"),
    )


def test_conditions_that_hold_once_for_each_weight(lab):
    """Negative control for all that follows."""
    family = lab.family(CANONICAL, fused=FUSED, apart=apart("split", "not split", "split"))
    made = lab.plan(family, "fused", "apart", FUSED_SHAPES, SIZES)
    assert {copy.target for copy in made.copies} == {f"{w}.{layer}" for w in "kv" for layer in range(3)}


def test_one_weight_twice_does_not_make_up_for_another(lab):
    family = lab.family(CANONICAL, fused=FUSED, apart=apart("split", "d > 1", "not split"))
    with pytest.raises(UnsupportedError, match=r"'0\.k' would be held twice by apart") as caught:
        lab.plan(family, "fused", "apart", FUSED_SHAPES, SIZES)
    assert "k.0" in caught.value.cause and "k2.0" in caught.value.cause


def test_a_lost_weight_is_named(lab):
    family = lab.family(CANONICAL, fused=FUSED, apart=apart("split", "not split", "not split"))
    with pytest.raises(UnsupportedError, match=r"'0\.v' of the source would be lost") as caught:
        lab.plan(family, "fused", "apart", FUSED_SHAPES, SIZES)
    assert "kv.0 holds it" in caught.value.cause and "2 more of its kind" in caught.value.cause


def test_a_weight_of_one_layer_twice_and_of_another_never(lab):
    """Elements add up, and the stored names differ."""
    family = lab.family(CANONICAL, fused=FUSED, apart=apart("layer < 2", "layer == 1", "split"))
    with pytest.raises(UnsupportedError, match="held twice"):
        lab.plan(family, "fused", "apart", FUSED_SHAPES, SIZES)
    family = lab.family(CANONICAL, fused=FUSED, apart=apart("layer < 1", "layer == 1", "split"))
    with pytest.raises(UnsupportedError, match=r"'2\.k' of the source would be lost"):
        lab.plan(family, "fused", "apart", FUSED_SHAPES, SIZES)


def test_stacked_and_by_layer_at_once_is_twice(lab):
    both = rules(
        ("k.{layer}", "{layer}.k", "split", "d m"),
        ("k", "{layer}.k", "d > 1", "layer d m"),
        ("v.{layer}", "{layer}.v", "split", "d m"),
    )
    family = lab.family(CANONICAL, fused=FUSED, both=both)
    with pytest.raises(UnsupportedError, match=r"'0\.k' would be held twice by both"):
        lab.plan(family, "fused", "both", FUSED_SHAPES, SIZES)


def test_a_source_that_stores_one_weight_twice(lab):
    """Neither of the two copies may win silently."""
    family = lab.family(CANONICAL, twice=apart("split", "d > 1", "split"), fused=FUSED)
    shapes = {f"{name}.{layer}": (2, 5) for name in ("k", "k2", "v") for layer in range(3)}
    with pytest.raises(UnsupportedError, match="held twice by the source"):
        lab.plan(family, "twice", "fused", shapes, SIZES)


def test_copies_that_do_not_fill_a_tensor_are_refused(lab, monkeypatch):
    """Bound blocks partition their tensor. Should binding ever lose one, the plan is refused, not run."""
    family = lab.family(CANONICAL, fused=FUSED, apart=apart("split", "not split", "split"))
    assert lab.plan(family, "apart", "fused", {f"{w}.{n}": (2, 5) for w in "kv" for n in range(3)}, SIZES)

    whole = Join.copies

    def without_the_last(self, bound, dtype_of):
        for group, dtype in whole(self, bound, dtype_of):
            yield group._replace(parts=group.parts[:-1]), dtype

    monkeypatch.setattr(Join, "copies", without_the_last)
    with pytest.raises(UnsupportedError, match="would not be filled exactly") as refused:
        lab.plan(family, "apart", "fused", {f"{w}.{n}": (2, 5) for w in "kv" for n in range(3)}, SIZES)
    assert refused.value.cause == "its sources hold 10 elements, its shape [4, 5] has 20"
