"""What to make is one frozen value, whose words are checked when it is made."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch

import porter
from porter import PlanOptions
from porter.dtypes import DTYPES
from porter.errors import UsageError


def test_a_lone_text_is_one_and_not_its_letters():
    found = PlanOptions(allow_unmapped="zzz*", maps="x.toml", config="c.json")
    assert found.allow_unmapped == ("zzz*",)
    assert found.maps == (Path("x.toml"),) and found.config == Path("c.json")
    assert PlanOptions(allow_unmapped=["a", "b"], maps=[Path("y")]).allow_unmapped == ("a", "b")


def test_a_dtype_may_be_torchs():
    assert PlanOptions(dtype=torch.bfloat16) == PlanOptions(dtype="bfloat16")
    assert PlanOptions(dtype="bfloat16").kept_dtype == DTYPES["BF16"]
    assert PlanOptions().kept_dtype is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dtype": "int3"}, "unknown dtype 'int3'"),
        ({"dtype": torch.int8}, "unknown dtype 'int8'"),
        ({"tied": "maybe"}, "tied= must be write, omit or untie, not 'maybe'"),
        ({"container": "tape"}, "container= must be safetensors or pth, not 'tape'"),
        ({"allow_unmapped": 3}, "allow_unmapped takes a pattern or a list"),
        ({"maps": [3]}, "maps takes a path"),
    ],
)
def test_wrong_words_are_refused_at_once(wrong, message):
    with pytest.raises(UsageError) as caught:
        PlanOptions(**wrong)
    assert message in str(caught.value)


def test_it_is_frozen_and_hashable():
    with pytest.raises(FrozenInstanceError):
        PlanOptions().to = "hf"
    assert hash(PlanOptions(to="hf", maps=["x"])) == hash(PlanOptions(to="hf", maps="x"))


def test_keywords_build_the_value(shipped, tmp_path):
    folder = shipped.write(tmp_path / "m", "gemma", "hf", drop=["lm_head.weight"])
    wanted = PlanOptions(to="litgpt", tied="omit")
    assert porter.plan(folder, wanted).hash == porter.plan(folder, to="litgpt", tied="omit").hash
    # A keyword changes one field of a value that is given.
    assert porter.plan(folder, wanted, tied=None).hash == porter.plan(folder, to="litgpt").hash
    with pytest.raises(TypeError, match="no_such"):
        porter.plan(folder, no_such="option")


@pytest.mark.parametrize("option", ["to", "source_dialect", "family"])
def test_a_list_where_a_name_belongs(option):
    with pytest.raises(UsageError, match=r"takes one name, not \['hf'\]"):
        PlanOptions(**{option: ["hf"]})
    assert getattr(PlanOptions(**{option: "hf"}), option) == "hf"
