"""How far copies coalesce: which rules give plain ranges, sequences of ranges, transposes, computations."""

import itertools

import numpy as np
import pytest

from porter.api.convert import plan
from porter.dtypes import DTYPES
from porter.errors import UnsupportedError
from porter.layout import Loop
from porter.planning.fidelity import fidelity
from porter.planning.join import copy_class
from porter.values.operations import Operation


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3_text", "llama"])
@pytest.mark.parametrize(("source", "target"), [("hf", "litgpt"), ("litgpt", "hf")])
def test_transformers_and_litgpt_differ_by_ranges_only(shipped, tmp_path, family, source, target):
    made = plan(shipped.write(tmp_path / "m", family, source), to=target)
    assert {name for name, number in made.classes.items() if number} == {"extent"}
    assert all(len(copy.loops) <= 1 for copy in made.copies)
    assert fidelity(made).grade.startswith("exact")


def test_heads_that_are_interleaved_are_runs_of_a_head(shipped, tmp_path):
    made = plan(shipped.write(tmp_path / "m", "gpt_neox", "hf"), to="litgpt")
    classes = {copy.canonical: copy.copy_class for copy in made.copies}
    assert {name for name, kind in classes.items() if kind != "extent"} == {
        f"{layer}.attn.{which}"
        for layer in range(7)
        for which in ("q", "k", "v", "q_bias", "k_bias", "v_bias")
    }
    assert set(classes.values()) == {"extent", "runs"}
    # Seven heads of 10 rows, each 70 wide, one of three in the source.
    [query] = [copy for copy in made.copies if copy.canonical == "0.attn.q"]
    assert query.loops == (Loop(7, 3 * 10 * 70, 10 * 70), Loop(10 * 70, 1, 1))


MATRIX = """
family = "lab"
[tensors]
"w" = "a b c"
[hyperparameters]
a = "int"
b = "int"
c = "int"
vocab_size = { type = "int", neutral = 1 }
"""


@pytest.mark.parametrize(
    ("layout", "kind", "loops"),
    [
        ("a b c", "extent", 1),
        ("(a b c)", "extent", 1),
        ("(a b) 1 c", "extent", 1),
        ("b a c", "runs", 3),
        ("a c b", "tile", 3),
        ("c a b", "tile", 2),
        ("c (b a)", "tile", 3),
    ],
)
def test_the_class_follows_from_the_order_of_axes(lab, layout, kind, loops):
    fields = '[config.fields]\na = "a"\nb = "b"\nc = "c"\nvocab_size = "v"\n'
    rule = '[[rule]]\ntheirs = "w"\nours = "w"\n'
    family = lab.family(MATRIX, plain=fields + rule, other=f'{fields}{rule}layout = "{layout}"\n')
    made = lab.plan(family, "plain", "other", {"w": (2, 3, 5)}, {"a": 2, "b": 3, "c": 5})
    [copy] = made.copies
    assert (copy.copy_class, len(copy.loops)) == (kind, loops)
    # Axes of size one are no reason to transpose.
    thin = lab.plan(family, "plain", "other", {"w": (1, 1, 5)}, {"a": 1, "b": 1, "c": 5})
    assert [copy.copy_class for copy in thin.copies] == ["extent"]


def test_the_class_of_a_copy():
    f32, bf16 = DTYPES["F32"], DTYPES["BF16"]
    line, gaps, across = (Loop(8, 1, 1),), (Loop(3, 8, 4), Loop(4, 1, 1)), (Loop(3, 1, 8), Loop(8, 3, 1))
    assert [copy_class(f32, f32, loops, ()) for loops in ((), line, gaps, across)] == [
        "extent",
        "extent",
        "runs",
        "tile",
    ]
    assert copy_class(bf16, f32, line, ()) == "compute"
    assert copy_class(f32, f32, line, (Operation("add", 1.0),)) == "compute"


@pytest.mark.parametrize(
    ("dtype", "classes", "graded"),
    [
        ("keep", {"extent"}, "exact"),
        ("float16", {"extent"}, "exact"),
        ("float32", {"compute"}, "exact"),
        ("bfloat16", {"compute"}, "lossy"),
    ],
)
def test_another_dtype_is_computed(shipped, tmp_path, dtype, classes, graded):
    folder = shipped.write(tmp_path / "m", "llama", "hf", dtype=np.float16)
    made = plan(folder, to="litgpt", dtype=dtype)
    assert {copy.copy_class for copy in made.copies} == classes
    assert fidelity(made).grade == graded
    wanted = {"keep": "F16", "float16": "F16", "float32": "F32", "bfloat16": "BF16"}[dtype]
    assert {tensor.dtype.name for tensor in made.targets()} == {wanted}


def test_one_tensor_cannot_be_of_two_dtypes(shipped, tmp_path):
    odd = "model.layers.0.self_attn.k_proj.weight"
    folder = shipped.write(tmp_path / "m", "llama", "hf", dtypes={odd: np.float32})
    with pytest.raises(UnsupportedError, match="tensors of several dtypes") as caught:
        plan(folder, to="litgpt")
    assert f"{odd} is F32" in caught.value.cause and "dtype=" in caught.value.hint
    assert {tensor.dtype.name for tensor in plan(folder, to="litgpt", dtype="float32").targets()} == {"F32"}


def test_targets_are_placed_without_gap_or_overlap(shipped, tmp_path):
    made = plan(shipped.write(tmp_path / "m", "gemma2", "hf"), to="litgpt")
    [file] = made.files
    spans = sorted((tensor.offset, tensor.offset + tensor.nbytes) for tensor in file.tensors)
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))
    assert spans[-1][1] == file.size
    assert made.weight_bytes == spans[-1][1] - spans[0][0]


def test_every_target_element_is_written_once(shipped, tmp_path):
    made = plan(shipped.write(tmp_path / "m", "gpt_neox", "hf", n_layer=1), to="litgpt")
    marks = {tensor.name: np.zeros(tensor.elements, dtype=int) for tensor in made.targets()}
    for copy in made.copies:
        places = np.full((), copy.target_offset)
        for loop in copy.loops:
            places = places[..., None] + np.arange(loop.size) * loop.target_stride
        np.add.at(marks[copy.target], places.reshape(-1), 1)
    assert all((mark == 1).all() for mark in marks.values())
