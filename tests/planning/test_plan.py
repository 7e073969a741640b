"""A plan is a value: frozen, hashable, printable as JSON, made without torch, and free of paths."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from porter.api.convert import plan
from porter.errors import UsageError
from porter.layout import Loop, Run
from porter.planning.plan import Copies, Plan, ZeroCheck, Zeros, plan_to_json


@pytest.fixture
def source(shipped, tmp_path):
    return shipped.write(tmp_path / "first" / "model", "gemma", "hf")


def test_it_is_frozen_and_hashable(source):
    made = plan(source, to="litgpt")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.family = "llama"
    with pytest.raises(AttributeError):
        made.copies[0].source_offset = 1
    assert isinstance(made.copies, Copies) and isinstance(made.files, tuple)
    again = plan(source, to="litgpt")
    assert again == made and hash(again) == hash(made)
    assert len({made, again, plan(source, to="hf")}) == 2


def test_it_is_json(source):
    made = plan(source, to="litgpt")
    text = json.dumps(plan_to_json(made))
    assert plan_to_json(made) == json.loads(text)
    assert made.hash.startswith("sha256:") and len(made.hash) == len("sha256:") + 64


def values_in(value, seen):
    seen.append(value)
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            values_in(getattr(value, field.name), seen)
    elif isinstance(value, dict):
        for inner in value.values():
            values_in(inner, seen)
    elif isinstance(value, list | tuple):
        for inner in value:
            values_in(inner, seen)
    return seen


def test_it_stores_strides_and_no_runs(shipped, tmp_path):
    """A plan whose copies have hundreds of runs holds at most one loop for each axis."""
    made = plan(shipped.write(tmp_path / "m", "gpt_neox", "hf"), to="litgpt")
    assert not any(isinstance(value, Run) for value in values_in(made, []))
    assert max(len(copy.loops) for copy in made.copies) <= 4
    assert len(made.copies) == 7 * (4 + 4 + 6 + 2) + 4


def test_its_hash_leaves_out_where_things_lie(source, tmp_path):
    made = plan(source, to="litgpt")
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(source, moved)
    again = plan(moved, to="litgpt")
    assert again.hash == made.hash
    assert str(tmp_path) not in json.dumps(plan_to_json(made))


TABLE = 'extends = "gemma/litgpt"\nfamily = "gemma"\ndialect = "mine"\n'


def test_its_hash_leaves_out_where_a_table_lies(source, tmp_path):
    hashes = set()
    for folder in ("a", "b"):
        path = tmp_path / folder / "mine.toml"
        path.parent.mkdir()
        path.write_text(
            TABLE + '[[rule]]\ntheirs = "transformer.ln_f.weight"\nours = "norm"\n', encoding="utf-8"
        )
        hashes.add(plan(source, to="mine", maps=[path]).hash)
    assert len(hashes) == 1


@pytest.mark.parametrize("size", [0, -5, "0", "0GB", "0.0 MB", "-5GB", "five", 1.5, True])
def test_a_shard_of_no_size_is_a_usage_error(source, size):
    with pytest.raises(UsageError, match="is no size for a shard"):
        plan(source, to="hf", max_shard_size=size)


def test_a_shard_size_in_bytes_may_be_a_text(source):
    assert (
        plan(source, to="hf", max_shard_size="50000").hash == plan(source, to="hf", max_shard_size=50000).hash
    )


def test_its_hash_changes_with_all_that_matters(shipped, source, tmp_path):
    hashes = [plan(source, to="litgpt").hash]
    hashes.append(plan(source, to="hf").hash)
    hashes.append(plan(source, to="litgpt", dtype="float32").hash)
    hashes.append(plan(source, to="litgpt", tied="omit").hash)
    hashes.append(plan(source, to="hf", max_shard_size="50KB").hash)
    table = tmp_path / "mine.toml"
    for remark in ("", "# a remark\n"):
        table.write_text(TABLE + remark, encoding="utf-8")
        hashes.append(plan(source, to="mine", maps=[table]).hash)
    renamed = tmp_path / "second" / "other-name"
    shutil.copytree(source, renamed)
    hashes.append(plan(renamed, to="litgpt").hash)
    config = source / "config.json"
    config.write_text(config.read_text().replace('"rope_theta": 10007.0', '"rope_theta": 10009.0'))
    hashes.append(plan(source, to="litgpt").hash)
    assert len(set(hashes)) == len(hashes)


PROGRAM = """
import json, sys
from pathlib import Path
from porter.containers.checkpoint import open_checkpoint
from porter.planning.build import build_plan
from porter.recognition.identify import identify
from porter.sources.local import locate
from porter.tables import load_families

checkpoint = open_checkpoint(locate(sys.argv[1]))
identity = identify(checkpoint, load_families())
made = build_plan(checkpoint, identity, identity.family.dialect("litgpt"))
print(json.dumps({
    "hash": made.hash,
    "copies": len(made.copies),
    "heavy": sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "transformers"}),
}))
"""


def in_a_process_of_its_own(program, *args, seed="0"):
    ran = subprocess.run(
        [sys.executable, "-c", program, *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_it_is_the_same_in_every_process_and_made_without_torch(source):
    found = [in_a_process_of_its_own(PROGRAM, source, seed=seed) for seed in ("1", "4711")]
    assert found[0] == found[1]
    assert found[0]["hash"] == plan(source, to="litgpt").hash
    assert found[0]["copies"] > 60
    assert found[0]["heavy"] == []


def test_the_check_for_heavy_imports_can_fail(source):
    """Negative control."""
    assert in_a_process_of_its_own("import numpy\n" + PROGRAM, source)["heavy"] == ["numpy"]


def test_only_what_is_read_is_a_source(source):
    made = plan(source, to="litgpt")
    assert {tensor.name for tensor in made.sources} == (
        {copy.source for copy in made.copies} | {check.dropped for check in made.checks}
    )


def test_no_weight_is_read(source, monkeypatch):
    """Planning works where the data are gone: headers are all that it needs."""
    whole = plan(source, to="litgpt")
    path = source / "model.safetensors"
    raw = path.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    with path.open("wb") as file:
        file.write(raw[:header])
        file.truncate(len(raw))
    assert isinstance(whole, Plan)
    assert plan(source, to="litgpt").hash == whole.hash


def test_the_hash_leaves_out_the_wording(source):
    made = plan(source, to="litgpt")
    [check] = made.checks
    other = replace(made, notes=("said otherwise",), checks=(replace(check, reason="r", hint="h"),))
    assert other.hash == made.hash
    assert replace(made, checks=(replace(check, dropped_offset=1),)).hash != made.hash


def test_the_hash_holds_zeros_and_their_checks(source):
    made = plan(source, to="litgpt")
    zeros, check = Zeros("a", 3, (Loop(5, 1, 1),), "here"), ZeroCheck("a", "some", 3, (Loop(5, 1, 1),))
    one = replace(made, zeros=(zeros,), checks=(check,))
    assert one.hash == replace(one, zeros=(zeros._replace(rule="there"),)).hash != made.hash
    assert one.hash == replace(one, checks=(replace(check, what="others"),)).hash
    for other in (
        replace(one, zeros=(zeros._replace(offset=4),)),
        replace(one, zeros=(zeros._replace(loops=(Loop(6, 1, 1),)),)),
        replace(one, checks=(replace(check, offset=4),)),
        replace(one, checks=()),
    ):
        assert other.hash != one.hash


def test_copies_are_the_same_however_they_are_grouped(source):
    made = plan(source, to="litgpt")
    apart = tuple(made.copies)
    assert len(made.copies) == len(apart) and made.copies == apart and made.copies[3] == apart[3]
    assert made.copies[-1] == apart[-1] and made.copies[2:5] == apart[2:5]
    one_by_one = replace(made, copies=apart)
    assert one_by_one.hash == made.hash and one_by_one.classes == made.classes
    moved = (*apart[:-1], apart[-1]._replace(source_offset=1))
    assert replace(made, copies=moved).hash != made.hash


def test_what_a_rule_has_in_common_is_there_once(source):
    made = plan(source, to="litgpt")
    [fused] = [group for group in made.copies.groups if "attn.qkv.weight" in group.targets[0]]
    assert len(fused.targets) == 7 and [len(part.sources) for part in fused.parts] == [7, 7, 7]
    copies = [copy for copy in made.copies if copy.target == fused.targets[2]]
    assert [copy.canonical for copy in copies] == ["2.attn.q", "2.attn.k", "2.attn.v"]
    assert [copy.target_offset for copy in copies] == [0, 60 * 66, 90 * 66]
    # Copies of one target stand together.
    assert [c.target for c in made.copies if c.target in fused.targets] == [
        target for target in fused.targets for _ in range(3)
    ]
