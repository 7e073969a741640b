"""Two tables over one canonical table: index variables in names or in layouts, conditions, ragged sizes.

The arrays of either side are written out by hand; the plan's copies must turn one into the other.
"""

import numpy as np
import pytest

from porter.errors import MalformedError, UnsupportedError
from porter.layout import Loop, runs
from porter.tables import TableError

HYPERPARAMETERS = """
vocab_size = { type = "int", neutral = 1 }
"""

LAYERS = f"""
family = "lab"
[index]
layer  = "n_layer"
expert = "n_expert"
[tensors]
"{{layer}}.up" = "d_ff d_model"
"{{layer}}.{{expert}}.down" = "d_model d_ff"
"norm" = "d_model"
[hyperparameters]
n_layer = "int"
n_expert = "int"
d_model = "int"
d_ff = "int"
{HYPERPARAMETERS}
"""
CONFIG = """
[config.fields]
n_layer = "n_layer"
n_expert = "n_expert"
d_model = "d_model"
d_ff = "d_ff"
vocab_size = "vocab_size"
"""

# Everything in names.
APART = f"""
{CONFIG}
[[rule]]
theirs = "layers.{{layer}}.up"
ours = "{{layer}}.up"
[[rule]]
theirs = "layers.{{layer}}.experts.{{expert}}.down"
ours = "{{layer}}.{{expert}}.down"
[[rule]]
theirs = "norm"
ours = "norm"
"""
# Layers scanned, experts stacked, kernels transposed.
STACKED = f"""
{CONFIG}
[[rule]]
theirs = "up"
ours = "{{layer}}.up"
layout = "layer d_model d_ff"
[[rule]]
theirs = "down"
ours = "{{layer}}.{{expert}}.down"
layout = "layer expert d_ff d_model"
[[rule]]
theirs = "scale"
ours = "norm"
"""
# Experts stacked within a tensor per layer; layers scanned within a tensor per expert.
STACKED_EXPERTS = APART.replace('layers.{layer}.experts.{expert}.down"', 'layers.{layer}.down"').replace(
    'ours = "{layer}.{expert}.down"', 'ours = "{layer}.{expert}.down"\nlayout = "(expert d_model) d_ff"'
)
SCANNED_LAYERS = APART.replace('layers.{layer}.experts.{expert}.down"', 'experts.{expert}.down"').replace(
    'ours = "{layer}.{expert}.down"', 'ours = "{layer}.{expert}.down"\nlayout = "d_model layer d_ff"'
)
SIZES = {"n_layer": 3, "n_expert": 2, "d_model": 5, "d_ff": 7, "vocab_size": 1}


@pytest.fixture
def forms(numbers):
    """The same weights in each of the four dialects."""
    up = numbers(3, 7, 5)
    down = numbers(3, 2, 5, 7, start=1000)
    norm = numbers(5, start=9000)
    own = {f"layers.{layer}.up": up[layer] for layer in range(3)} | {"norm": norm}
    return {
        "apart": own
        | {
            f"layers.{layer}.experts.{expert}.down": down[layer, expert]
            for layer in range(3)
            for expert in range(2)
        },
        "stacked": {
            "up": np.stack([layer.T for layer in up]),
            "down": np.stack([np.stack([expert.T for expert in layer]) for layer in down]),
            "scale": norm,
        },
        "experts": own | {f"layers.{layer}.down": np.concatenate(down[layer]) for layer in range(3)},
        "scanned": own
        | {f"experts.{expert}.down": np.stack(list(down[:, expert]), axis=1) for expert in range(2)},
    }


@pytest.mark.parametrize("source", ["apart", "stacked", "experts", "scanned"])
@pytest.mark.parametrize("target", ["apart", "stacked", "experts", "scanned"])
def test_index_variables_stand_in_names_or_in_layouts(lab, forms, source, target):
    family = lab.family(LAYERS, apart=APART, stacked=STACKED, experts=STACKED_EXPERTS, scanned=SCANNED_LAYERS)
    _, made = lab.convert(family, source, target, forms[source], SIZES)
    assert made.keys() == forms[target].keys()
    for name, array in forms[target].items():
        assert np.array_equal(made[name], array), name


def test_an_expert_in_the_wrong_place_is_seen(lab, forms):
    """Negative control."""
    family = lab.family(LAYERS, apart=APART, stacked=STACKED)
    swapped = dict(forms["apart"])
    one, two = "layers.1.experts.0.down", "layers.1.experts.1.down"
    swapped[one], swapped[two] = swapped[two], swapped[one]
    _, made = lab.convert(family, "apart", "stacked", swapped, SIZES)
    assert not np.array_equal(made["down"], forms["stacked"]["down"])


def test_one_copy_for_each_piece(lab, forms):
    """As many copies as the names of the two sides cut, and none for what both leave whole."""
    family = lab.family(LAYERS, apart=APART, stacked=STACKED, experts=STACKED_EXPERTS, scanned=SCANNED_LAYERS)
    count = {}
    for source, target in [("apart", "apart"), ("stacked", "stacked"), ("experts", "scanned")]:
        plan, _ = lab.convert(family, source, target, forms[source], SIZES)
        count[source, target] = sum(
            ".down" in copy.canonical or "down" in copy.source for copy in plan.copies
        )
    assert count == {("apart", "apart"): 6, ("stacked", "stacked"): 1, ("experts", "scanned"): 6}


def test_conditions_on_the_config_and_on_the_layer(lab, numbers):
    """The first layers are dense, the others have experts; biases are there when the config says so."""
    family = lab.family(
        """
        family = "lab"
        [index]
        layer  = "n_layer"
        expert = "n_expert"
        [tensors]
        "{layer}.up"          = { axes = "d_ff d_model", when = "layer < first_sparse" }
        "{layer}.{expert}.up" = { axes = "d_ff d_model", when = "layer >= first_sparse" }
        "{layer}.bias"        = { axes = "d_ff", when = "biased" }
        [hyperparameters]
        n_layer = "int"
        n_expert = "int"
        first_sparse = "int"
        d_model = "int"
        d_ff = "int"
        biased = { type = "bool", neutral = false }
        vocab_size = { type = "int", neutral = 1 }
        """,
        **{
            name: f"""
            [config.fields]
            n_layer = "a"
            n_expert = "b"
            first_sparse = "c"
            d_model = "d"
            d_ff = "e"
            biased = "f"
            vocab_size = "g"
            [[rule]]
            theirs = "{name}.{{layer}}.dense"
            ours = "{{layer}}.up"
            layout = "{layout}"
            [[rule]]
            theirs = "{name}.{{layer}}.{{expert}}.sparse"
            ours = "{{layer}}.{{expert}}.up"
            layout = "{layout}"
            [[rule]]
            theirs = "{name}.{{layer}}.bias"
            ours = "{{layer}}.bias"
            """
            for name, layout in (("one", "d_ff d_model"), ("two", "d_model d_ff"))
        },
    )
    sizes = {"n_layer": 4, "n_expert": 2, "first_sparse": 1, "d_model": 3, "d_ff": 5, "vocab_size": 1}
    arrays = {"one.0.dense": numbers(5, 3)}
    for layer in (1, 2, 3):
        for expert in (0, 1):
            arrays[f"one.{layer}.{expert}.sparse"] = numbers(5, 3, start=100 * layer + 20 * expert)
    _, made = lab.convert(family, "one", "two", arrays, sizes)
    assert made.keys() == {name.replace("one", "two") for name in arrays}
    for name, array in arrays.items():
        assert np.array_equal(made[name.replace("one", "two")], array.T)

    biases = {f"one.{layer}.bias": numbers(5, start=layer) for layer in range(4)}
    with pytest.raises(UnsupportedError, match="4 tensors of the source are not mapped"):
        lab.convert(family, "one", "two", arrays | biases, sizes)
    _, made = lab.convert(family, "one", "two", arrays | biases, sizes | {"biased": True})
    assert np.array_equal(made["two.3.bias"], biases["one.3.bias"])
    with pytest.raises(MalformedError, match="4 tensors missing"):
        lab.convert(family, "one", "two", arrays, sizes | {"biased": True})


RAGGED = """
family = "lab"
[index]
layer = "n_layer"
[axes]
d_ff = "intermediate_size[layer]"
[tensors]
"{layer}.up" = "d_ff d_model"
[hyperparameters]
n_layer = "int"
d_model = "int"
intermediate_size = "list"
vocab_size = { type = "int", neutral = 1 }
"""
RAGGED_CONFIG = """
[config.fields]
n_layer = "n"
d_model = "d"
intermediate_size = "i"
vocab_size = "v"
"""
RAGGED_APART = (
    f'{RAGGED_CONFIG}[[rule]]\ntheirs = "up.{{layer}}"\nours = "{{layer}}.up"\nlayout = "d_model d_ff"\n'
)
RAGGED_STACKED = (
    f'{RAGGED_CONFIG}[[rule]]\ntheirs = "up"\nours = "{{layer}}.up"\nlayout = "layer d_ff d_model"\n'
)


def test_layers_may_differ_in_size(lab, numbers):
    same = RAGGED_APART.replace("d_model d_ff", "d_ff d_model").replace("up.", "w.")
    family = lab.family(RAGGED, apart=RAGGED_APART, other=same)
    sizes = {"n_layer": 3, "d_model": 2, "intermediate_size": [5, 3, 7], "vocab_size": 1}
    arrays = {f"up.{layer}": numbers(2, width) for layer, width in enumerate([5, 3, 7])}
    _, made = lab.convert(family, "apart", "other", arrays, sizes)
    for layer in range(3):
        assert np.array_equal(made[f"w.{layer}"], arrays[f"up.{layer}"].T)


def test_layers_that_differ_in_size_cannot_be_stacked(lab, numbers):
    family = lab.family(RAGGED, apart=RAGGED_APART, stacked=RAGGED_STACKED)
    sizes = {"n_layer": 3, "d_model": 2, "intermediate_size": [5, 3, 7], "vocab_size": 1}
    arrays = {f"up.{layer}": numbers(2, width) for layer, width in enumerate([5, 3, 7])}
    with pytest.raises(MalformedError, match="d_ff is ragged along layer and cannot be stacked") as caught:
        lab.convert(family, "apart", "stacked", arrays, sizes)
    assert "[3, 5, 7]" in caught.value.cause
    # Of equal sizes they can.
    arrays = {f"up.{layer}": numbers(2, 5, start=100 * layer) for layer in range(3)}
    _, made = lab.convert(family, "apart", "stacked", arrays, sizes | {"intermediate_size": [5, 5, 5]})
    assert np.array_equal(made["up"], np.stack([arrays[f"up.{layer}"].T for layer in range(3)]))


def test_a_condition_that_differs_along_a_stack_is_refused(lab, numbers):
    canonical = RAGGED.replace('"d_ff d_model"', '{ axes = "d_ff d_model", when = "layer >= 1" }')
    family = lab.family(canonical, apart=RAGGED_APART, stacked=RAGGED_STACKED)
    sizes = {"n_layer": 2, "d_model": 2, "intermediate_size": [3, 3], "vocab_size": 1}
    with pytest.raises(MalformedError, match="`layer >= 1` differs along the stacked layer"):
        lab.convert(family, "apart", "stacked", {"up.1": numbers(2, 3)}, sizes)


def test_half_split_rotary_against_interleaved(lab, numbers):
    family = lab.family(
        """
        family = "lab"
        [refine]
        head_dim = "rope_half rope_freq"
        [axes]
        rope_half = "2"
        rope_freq = "head_dim / 2"
        [tensors]
        "q" = "n_head head_dim d_model"
        [hyperparameters]
        n_head = "int"
        head_dim = "int"
        d_model = "int"
        vocab_size = { type = "int", neutral = 1 }
        """,
        **{
            name: f"""
            [config.fields]
            n_head = "n"
            head_dim = "h"
            d_model = "d"
            vocab_size = "v"
            [[rule]]
            theirs = "q"
            ours = "q"
            layout = "{layout}"
            """
            for name, layout in (
                ("half", "(n_head head_dim) d_model"),
                ("pairs", "(n_head rope_freq rope_half) d_model"),
            )
        },
    )
    sizes = {"n_head": 3, "head_dim": 8, "d_model": 5, "vocab_size": 1}
    half = numbers(24, 5)
    pairs = half.reshape(3, 2, 4, 5).transpose(0, 2, 1, 3).reshape(24, 5)
    for source, target, given, wanted in [("half", "pairs", half, pairs), ("pairs", "half", pairs, half)]:
        plan, made = lab.convert(family, source, target, {"q": given}, sizes)
        assert np.array_equal(made["q"], wanted)
        assert [copy.copy_class for copy in plan.copies] == ["runs"]
    odd = {**sizes, "head_dim": 7}
    with pytest.raises(MalformedError) as caught:
        lab.convert(family, "half", "pairs", {"q": numbers(21, 5)}, odd)
    assert "7 / 2 is not a whole number" in caught.value.cause


SHARED = """
family = "lab"
[tensors]
"one" = "d"
"two" = "d"
[hyperparameters]
d = "int"
split = { type = "bool", neutral = false }
vocab_size = { type = "int", neutral = 1 }
"""
SHARED_CONFIG = '[config.fields]\nd = "d"\nsplit = "s"\nvocab_size = "v"\n'
SEPARATE = f'{SHARED_CONFIG}[[rule]]\ntheirs = "one"\nours = "one"\n[[rule]]\ntheirs = "two"\nours = "two"\n'


def chosen(first, second):
    """A table that stores both in one tensor or in two, each under its condition."""
    return f"""{SHARED_CONFIG}
    [[rule]]
    theirs = "both"
    ours = ["one", "two"]
    layout = "(d | d)"
    when = "{first}"
    [[rule]]
    theirs = "a"
    ours = "one"
    when = "{second}"
    [[rule]]
    theirs = "b"
    ours = "two"
    when = "{second}"
    """


@pytest.mark.parametrize("split", [False, True])
def test_a_dialect_may_choose_between_rules(lab, numbers, split):
    family = lab.family(SHARED, source=SEPARATE, target=chosen("not split", "split"))
    arrays = {"one": numbers(3), "two": numbers(3, start=10)}
    _, made = lab.convert(family, "source", "target", arrays, {"d": 3, "split": split, "vocab_size": 1})
    if split:
        assert made.keys() == {"a", "b"} and np.array_equal(made["b"], arrays["two"])
    else:
        assert np.array_equal(made["both"], np.concatenate([arrays["one"], arrays["two"]]))


def test_no_weight_is_lost_where_no_rule_of_the_target_holds(lab, numbers):
    family = lab.family(SHARED, source=SEPARATE, target=chosen("split", "split and d > 5"))
    arrays = {"one": numbers(3), "two": numbers(3, start=10)}
    with pytest.raises((TableError, UnsupportedError)) as caught:
        lab.convert(family, "source", "target", arrays, {"d": 3, "split": False, "vocab_size": 1})
    assert "one" in str(caught.value)


def test_no_weight_is_written_twice_where_two_rules_of_the_target_hold(lab, numbers):
    family = lab.family(SHARED, source=SEPARATE, target=chosen("split", "d > 2"))
    arrays = {"one": numbers(3), "two": numbers(3, start=10)}
    with pytest.raises((TableError, UnsupportedError)):
        lab.convert(family, "source", "target", arrays, {"d": 3, "split": True, "vocab_size": 1})


def test_a_source_that_no_rule_of_its_table_holds_for(lab, numbers):
    family = lab.family(SHARED, source=chosen("split", "split and d > 5"), target=SEPARATE)
    with pytest.raises(UnsupportedError):
        lab.convert(
            family, "source", "target", {"both": numbers(6)}, {"d": 3, "split": False, "vocab_size": 1}
        )


def test_parts_of_one_tensor_stand_or_fall_together(lab, numbers):
    canonical = SHARED.replace('"two" = "d"', '"two" = { axes = "d", when = "split" }')
    fused = f'{SHARED_CONFIG}[[rule]]\ntheirs = "both"\nours = ["one", "two"]\nlayout = "(d | d)"\n'
    family = lab.family(canonical, source=SEPARATE, target=fused)
    with pytest.raises(TableError, match="both would hold only a part of its blocks") as caught:
        lab.convert(
            family, "source", "target", {"one": numbers(3)}, {"d": 3, "split": False, "vocab_size": 1}
        )
    assert "two does not" in caught.value.cause


def test_a_stated_inverse_must_give_the_number_back(lab, numbers):
    family = lab.family(
        """
        family = "lab"
        [axes.q_per_kv]
        size = "(n_head - n_head % n_kv_head) / n_kv_head"
        inverse = { n_head = "n_kv_head * q_per_kv" }
        [tensors]
        "q" = "n_kv_head q_per_kv"
        [hyperparameters]
        n_head = "int"
        n_kv_head = "int"
        """,
        one='[[rule]]\ntheirs = "q"\nours = "q"\n',
    )
    with pytest.raises(MalformedError, match="n_head = 7 does not follow from its parts") as caught:
        lab.convert(family, "one", "one", {"q": numbers(3, 2)}, {"n_head": 7, "n_kv_head": 3})
    assert "gives 6" in caught.value.cause


def test_operations_are_undone_and_done(lab):
    """A norm stored with one added, or doubled after that: the plan says what brings one to the other."""
    canonical = SHARED.replace('"two" = "d"\n', "")
    plain = f'{SHARED_CONFIG}[[rule]]\ntheirs = "one"\nours = "one"\n'
    family = lab.family(
        canonical, plain=plain, plus=plain + "add = 1\n", both=plain + "add = 1\nmultiply = 4\n"
    )
    wanted = {
        ("plain", "plus"): [("add", 1.0)],
        ("plus", "plain"): [("add", -1.0)],
        ("plus", "plus"): [],
        ("plain", "both"): [("add", 1.0), ("multiply", 4.0)],
        ("both", "plain"): [("multiply", 0.25), ("add", -1.0)],
        ("both", "plus"): [("multiply", 0.25), ("add", -1.0), ("add", 1.0)],
    }
    for (source, target), operations in wanted.items():
        plan = lab.plan(family, source, target, {"one": (3,)}, {"d": 3, "vocab_size": 1})
        [copy] = plan.copies
        assert [(operation.kind, operation.value) for operation in copy.operations] == operations
        assert copy.copy_class == ("compute" if operations else "extent")


# As many experts as the layer says; the name has the expert first.
EXPERTS = LAYERS.replace('expert = "n_expert"', 'expert = "n_expert[layer]"').replace(
    'n_expert = "int"', 'n_expert = "list"'
)
EXPERT_FIRST = APART.replace("layers.{layer}.experts.{expert}.down", "experts.{expert}.of.{layer}.down")


@pytest.mark.parametrize("table", [APART, EXPERT_FIRST], ids=["layer", "expert"])
def test_layers_may_have_their_own_number_of_experts(lab, numbers, table):
    family = lab.family(EXPERTS, apart=APART, other=table, stacked=STACKED_EXPERTS)
    sizes = {"n_layer": 3, "n_expert": [2, 1, 3], "d_model": 5, "d_ff": 7, "vocab_size": 1}
    down = {
        f"layers.{layer}.experts.{expert}.down": numbers(5, 7, start=1000 * layer + 100 * expert)
        for layer in range(3)
        for expert in range(sizes["n_expert"][layer])
    }
    rest = {f"layers.{layer}.up": numbers(7, 5, start=layer) for layer in range(3)} | {"norm": numbers(5)}
    _, made = lab.convert(family, "apart", "other", rest | down, sizes)
    assert len(made) == len(rest) + 6
    _, stacked = lab.convert(family, "other", "stacked", made, sizes)
    for layer in range(3):
        wanted = [down[f"layers.{layer}.experts.{e}.down"] for e in range(sizes["n_expert"][layer])]
        assert np.array_equal(stacked[f"layers.{layer}.down"], np.concatenate(wanted))
    _, back = lab.convert(family, "stacked", "apart", stacked, sizes)
    assert back.keys() == (rest | down).keys()
    assert all(np.array_equal(back[name], array) for name, array in (rest | down).items())


def test_experts_of_ragged_layers_cannot_be_stacked_with_their_layers(lab, numbers):
    family = lab.family(EXPERTS, apart=APART, stacked=STACKED)
    sizes = {"n_layer": 2, "n_expert": [2, 1], "d_model": 5, "d_ff": 7, "vocab_size": 1}
    arrays = {f"layers.{layer}.up": numbers(7, 5) for layer in range(2)} | {"norm": numbers(5)}
    arrays |= {f"layers.{layer}.experts.{e}.down": numbers(5, 7) for layer, e in ((0, 0), (0, 1), (1, 0))}
    with pytest.raises(MalformedError, match="the axis expert is ragged along"):
        lab.convert(family, "apart", "stacked", arrays, sizes)


def test_sizes_that_vary_through_another_axis(lab, numbers):
    """`half` varies with the layer because `d_ff` does."""
    canonical = """
    family = "lab"
    [index]
    layer = "n_layer"
    [axes]
    d_ff = "inner[layer]"
    half = "d_ff / 2"
    [tensors]
    "{layer}.up" = "half two"
    [hyperparameters]
    n_layer = "int"
    inner = "list"
    two = "int"
    vocab_size = { type = "int", neutral = 1 }
    """
    table = """
    [config.fields]
    n_layer = "n"
    inner = "i"
    two = "t"
    vocab_size = "v"
    [[rule]]
    theirs = "up.{layer}"
    ours = "{layer}.up"
    """
    family = lab.family(canonical, one=table, turned=table + 'layout = "two half"\n')
    arrays = {"up.0": numbers(3, 2), "up.1": numbers(5, 2)}
    sizes = {"n_layer": 2, "inner": [6, 10], "two": 2, "vocab_size": 1}
    _, made = lab.convert(family, "one", "turned", arrays, sizes)
    assert all(np.array_equal(made[name], array.T) for name, array in arrays.items())


@pytest.mark.parametrize(
    ("source", "target"), [("plain", "behind"), ("behind", "plain"), ("behind", "inside")]
)
def test_zeros_are_blocks_like_any_other(lab, numbers, source, target):
    """Rows behind a vocabulary, and columns in front of each row: listed, checked, and left out again."""
    canonical = """
    family = "lab"
    [tensors]
    "embed" = "vocab d"
    [hyperparameters]
    d = "int"
    vocab = "int"
    vocab_size = { type = "int", neutral = 1 }
    """
    fields = '[config.fields]\nd = "d"\nvocab = "w"\nvocab_size = "v"\n'
    rule = '[[rule]]\ntheirs = "e"\n'
    family = lab.family(
        canonical,
        plain=f'{fields}{rule}ours = "embed"\n',
        behind=f'[axes]\nmore = "3"\n{fields}{rule}ours = ["embed", "zeros"]\nlayout = "(vocab | more) d"\n',
        inside=f'[axes]\nmore = "2"\n{fields}{rule}ours = ["zeros", "embed"]\nlayout = "vocab (more | d)"\n',
    )
    embed = numbers(5, 4, start=1)
    forms = {
        "plain": embed,
        "behind": np.vstack([embed, np.zeros((3, 4), int)]),
        "inside": np.hstack([np.zeros((5, 2), int), embed]),
    }
    plan, made = lab.convert(
        family, source, target, {"e": forms[source]}, {"d": 4, "vocab": 5, "vocab_size": 1}
    )
    for zeros in plan.zeros:
        for one in runs(zeros.loops, zeros.offset, zeros.offset):
            flat = made[zeros.target].reshape(-1)
            assert (flat[one.target : one.target + one.length] == -1).all(), "no copy writes there"
            flat[one.target : one.target + one.length] = 0
    assert np.array_equal(made["e"], forms[target])
    assert len(plan.checks) == (source == "behind")
    for check in plan.checks:
        assert (check.tensor, check.what) == ("e", "the last 3 of 8 rows")
        assert (check.offset, check.loops) == (20, (Loop(12, 1, 1),))


def test_a_refined_axis_needs_no_layout(lab, numbers):
    """Without a layout a tensor is stored in the order of its axes as the table names them: one dim each."""
    canonical = """
    family = "lab"
    [refine]
    head_dim = "rope_half rope_freq"
    [axes]
    rope_half = "2"
    rope_freq = "head_dim / 2"
    [tensors]
    "q" = "head_dim d_model"
    [hyperparameters]
    head_dim = "int"
    d_model = "int"
    vocab_size = { type = "int", neutral = 1 }
    """
    table = """
    [config.fields]
    head_dim = "h"
    d_model = "d"
    vocab_size = "v"
    [[rule]]
    theirs = "q"
    ours = "q"
    """
    pairs = table + 'layout = "(rope_freq rope_half) d_model"\n'
    family = lab.family(canonical, half=table, pairs=pairs)
    given = numbers(8, 5)
    _, made = lab.convert(
        family, "half", "pairs", {"q": given}, {"head_dim": 8, "d_model": 5, "vocab_size": 1}
    )
    assert np.array_equal(made["q"], given.reshape(2, 4, 5).swapaxes(0, 1).reshape(8, 5))
