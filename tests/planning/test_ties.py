"""Tied embeddings: dropped, written twice, checked where both are stored, untied on request."""

import json
import re

import numpy as np
import pytest

from porter.api.convert import plan
from porter.errors import MalformedError, UnsupportedError, UsageError
from porter.layout import Loop
from porter.planning.fidelity import fidelity
from porter.values.operations import Operation

HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"
LIT_HEAD, LIT_EMBED = "lm_head.weight", "transformer.wte.weight"


@pytest.fixture
def gemma(shipped, tmp_path):
    """Gemma from transformers as it is published: the head is not stored."""
    return shipped.write(tmp_path / "gemma", "gemma", "hf", drop=[HEAD])


def sources_of(made, target):
    return {copy.source for copy in made.copies if copy.target == target}


def config_of(made, name):
    [content] = [side.content for side in made.side_files if side.name == name]
    return content.decode()


def test_litgpt_gets_a_head_of_its_own(gemma):
    made = plan(gemma, to="litgpt")
    assert sources_of(made, LIT_HEAD) == sources_of(made, LIT_EMBED) == {EMBED}
    assert made.summary.ties_written == 1 and made.checks == ()
    assert fidelity(made).grade == "exact"


def test_omit_leaves_it_out(gemma):
    made = plan(gemma, to="litgpt", tied="omit")
    assert LIT_HEAD not in made.target_by_name
    assert made.summary.ties_written == 0
    assert made.summary.target_tensors == plan(gemma, to="litgpt").summary.target_tensors - 1


def test_transformers_gets_one_tensor(shipped, tmp_path):
    folder = shipped.write(tmp_path / "lit", "gemma", "litgpt")
    made = plan(folder, to="hf")
    assert HEAD not in made.target_by_name
    assert json.loads(config_of(made, "config.json"))["tie_word_embeddings"] is True
    assert made.summary.ties_dropped == 1


def test_two_stored_copies_are_compared_before_one_is_dropped(shipped, tmp_path):
    made = plan(shipped.write(tmp_path / "lit", "gemma", "litgpt"), to="hf")
    [check] = made.checks
    assert (check.kept, check.dropped) == (LIT_EMBED, LIT_HEAD)
    assert check.loops == (Loop(127 * 66, 1, 1),) and check.kept_offset == check.dropped_offset == 0
    assert "LitGPT itself trains the two apart" in check.reason and 'tied="untie"' in check.hint
    assert {LIT_EMBED, LIT_HEAD} <= set(made.source_by_name), "the check needs both"
    assert fidelity(made).grade == "exact when checked"


def test_one_stored_copy_needs_no_check(shipped, tmp_path, gemma):
    assert plan(gemma, to="hf").checks == ()
    made = plan(shipped.write(tmp_path / "lit", "gemma", "litgpt", drop=[LIT_HEAD]), to="hf")
    assert made.checks == ()
    assert made.summary.ties_dropped == 0


def test_two_stored_copies_of_two_dtypes_are_a_check_like_any_other(shipped, tmp_path):
    folder = shipped.write(tmp_path / "lit", "gemma", "litgpt", dtypes={LIT_HEAD: np.float32})
    made = plan(folder, to="hf")
    assert [check.dropped for check in made.checks] == [LIT_HEAD]
    assert made.target_by_name[EMBED].dtype.name == "F16"


@pytest.mark.parametrize(("family", "dialect"), [("gemma", "hf"), ("gemma3_text", "hf"), ("gemma", "litgpt")])
def test_either_name_of_a_pair_serves(shipped, tmp_path, family, dialect):
    gone = {"hf": EMBED, "litgpt": LIT_EMBED}[dialect]
    folder = shipped.write(tmp_path / "m", family, dialect, drop=[gone], tie_embeddings=True)
    made = plan(folder, to="litgpt")
    assert sources_of(made, LIT_HEAD) == sources_of(made, LIT_EMBED) == {"lm_head.weight"}
    assert made.checks == ()
    back = plan(folder, to="hf")
    assert sources_of(back, EMBED) == {"lm_head.weight"} and HEAD not in back.target_by_name


def test_of_a_pair_one_has_to_be_there(shipped, tmp_path):
    """Negative control: and an untied model needs both."""
    folder = shipped.write(tmp_path / "m", "gemma", "hf", drop=[EMBED, HEAD])
    with pytest.raises(MalformedError, match="1 tensor missing") as caught:
        plan(folder, to="litgpt")
    assert EMBED in caught.value.cause
    folder = shipped.write(tmp_path / "n", "llama", "hf", drop=[EMBED], tie_embeddings=False)
    with pytest.raises(MalformedError, match="1 tensor missing"):
        plan(folder, to="litgpt")


@pytest.mark.parametrize("target", ["hf", "litgpt"])
def test_untying_keeps_both_where_the_target_can(shipped, tmp_path, target):
    made = plan(shipped.write(tmp_path / "m", "gemma", "hf"), to=target, tied="untie")
    embed = {"hf": EMBED, "litgpt": LIT_EMBED}[target]
    assert sources_of(made, HEAD) == {HEAD} and sources_of(made, embed) == {EMBED}
    assert made.checks == ()
    config = config_of(made, {"hf": "config.json", "litgpt": "model_config.yaml"}[target])
    assert re.search("tie_word_embeddings.*false", config)


@pytest.mark.parametrize("target", ["keras", "flax", "gemma_pytorch"])
def test_frameworks_that_tie_in_code_have_no_head_of_its_own(shipped, tmp_path, target):
    folder = shipped.write(tmp_path / "m", "gemma", "hf", rope_theta=10000.0)
    with pytest.raises(UnsupportedError, match="has no head of its own"):
        plan(folder, to=target, tied="untie")
    [check] = plan(folder, to=target).checks
    assert "no head of its own" in check.hint


def test_writing_the_head_for_transformers_unties_it(shipped, tmp_path):
    """A head that was trained on its own is kept as it is, and the config says so."""
    made = plan(shipped.write(tmp_path / "lit", "gemma", "litgpt"), to="hf", tied="write")
    assert sources_of(made, HEAD) == {LIT_HEAD}
    assert sources_of(made, EMBED) == {LIT_EMBED}
    assert made.checks == ()
    assert json.loads(config_of(made, "config.json"))["tie_word_embeddings"] is False


def test_untying_what_is_stored_once_writes_it_twice(gemma):
    made = plan(gemma, to="hf", tied="write")
    assert sources_of(made, HEAD) == sources_of(made, EMBED) == {EMBED}
    assert json.loads(config_of(made, "config.json"))["tie_word_embeddings"] is False


def test_an_untied_model_has_both_and_neither_is_dropped(shipped, tmp_path):
    folder = shipped.write(tmp_path / "llama", "llama", "hf")
    made = plan(folder, to="litgpt")
    assert sources_of(made, LIT_HEAD) == {HEAD} and sources_of(made, LIT_EMBED) == {EMBED}
    assert made.summary.ties_written == 0 and made.checks == ()
    with pytest.raises(UnsupportedError, match="no tied tensor to leave out"):
        plan(folder, to="litgpt", tied="omit")


def test_an_untied_model_without_its_head_is_incomplete(shipped, tmp_path):
    folder = shipped.write(tmp_path / "llama", "llama", "hf", drop=[HEAD])
    with pytest.raises(Exception, match="1 tensor missing") as caught:
        plan(folder, to="litgpt")
    assert HEAD in caught.value.cause


def test_a_tied_llama_says_so_to_litgpt(shipped, tmp_path):
    folder = shipped.write(tmp_path / "llama", "llama", "hf", drop=[HEAD], tie_embeddings=True)
    made = plan(folder, to="litgpt")
    assert "tie_word_embeddings: true" in config_of(made, "model_config.yaml")
    assert sources_of(made, LIT_HEAD) == {EMBED}


def test_neither_write_nor_omit(gemma):
    with pytest.raises(UsageError, match="tied= must be write, omit or untie"):
        plan(gemma, to="litgpt", tied="maybe")


CANONICAL = """
family = "lab"
[axes]
vocab = "vocab_size"
[tensors]
"embed" = "vocab d"
"head" = { axes = "vocab d", tied = "embed" }
[hyperparameters]
d = "int"
vocab_size = "int"
tie_embeddings = "bool"
"""
PLAIN = """
[config.fields]
d = "d"
vocab_size = "v"
tie_embeddings = "t"
[[rule]]
theirs = "embed"
ours = "embed"
[[rule]]
theirs = "head"
ours = "head"
"""


@pytest.mark.parametrize("tied", [False, True])
def test_a_table_may_store_the_head_only_where_it_is_untied(lab, numbers, tied):
    family = lab.family(CANONICAL, some=PLAIN + 'when = "not tie_embeddings"\n', both=PLAIN)
    sizes = {"d": 3, "vocab_size": 5, "tie_embeddings": tied}
    embed, head = numbers(5, 3), numbers(5, 3, start=100)
    arrays = {"embed": embed} | ({} if tied else {"head": head})
    _, made = lab.convert(family, "some", "both", arrays, sizes)
    assert np.array_equal(made["head"], embed if tied else head)
    _, back = lab.convert(family, "both", "some", made, sizes)
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


FIELDS = PLAIN.split("[[rule]]")[0]
# The head stored transposed, and with one added.
TURNED = f"""{FIELDS}
[[rule]]
theirs = "embed"
ours = "embed"
[[rule]]
theirs = "head"
ours = "head"
layout = "d vocab"
add = 1
"""
ONE = PLAIN.rsplit("[[rule]]", 1)[0] + '[[rule]]\ntheirs = "head"\nours = "head"\ntied = "omit"\n'


def test_a_pair_is_compared_through_its_address_maps(lab):
    family = lab.family(CANONICAL, turned=TURNED, one=ONE)
    sizes = {"d": 3, "vocab_size": 5, "tie_embeddings": True}
    made = lab.plan(family, "turned", "one", {"embed": (5, 3), "head": (3, 5)}, sizes)
    [check] = made.checks
    assert (check.kept, check.dropped) == ("embed", "head")
    # Rows of the head are columns of the embedding: a step of 1 here is one of 3 there.
    assert check.loops == (Loop(3, 1, 5), Loop(5, 3, 1))
    assert check.kept_operations == () and check.dropped_operations == (Operation("add", -1.0),)


def test_what_both_sides_add_needs_no_arithmetic(lab):
    both = PLAIN.replace('ours = "embed"', 'ours = "embed"\nadd = 1').replace(
        'ours = "head"', 'ours = "head"\nadd = 1'
    )
    family = lab.family(CANONICAL, both=both, one=ONE)
    sizes = {"d": 3, "vocab_size": 5, "tie_embeddings": True}
    [check] = lab.plan(family, "both", "one", {"embed": (5, 3), "head": (5, 3)}, sizes).checks
    assert check.loops == (Loop(15, 1, 1),) and check.kept_operations == check.dropped_operations == ()
