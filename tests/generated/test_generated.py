"""Hundreds of made-up families through every way of running a plan, held against NumPy."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import families
import harness
import oracle
import regressions
import runners

from porter.execution.publish import publish_plan
from porter.execution.sinks import digest
from porter.sources.local_files import LocalSource

BLOCK = 50


@pytest.mark.parametrize("first", range(0, 6 * BLOCK, BLOCK))
def test_every_way_makes_what_the_tables_say(first):
    wrong = {}
    for seed in range(first, first + BLOCK):
        _, found = harness.trial(seed, list(runners.RUNNERS), frozenset())
        if found:
            wrong[seed] = found
    assert wrong == {}


@pytest.mark.parametrize("seed", regressions.FAR)
def test_what_was_found_from_afar_stays_mended(seed):
    _, found = harness.trial(seed, ["far to directory"], families.AVOIDABLE)
    assert found == {}


def pieced(content):
    """The sha256 of the digests of the pieces of a tensor."""
    pieces = [content[at : at + digest.PIECE] for at in range(0, len(content), digest.PIECE)]
    return hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).hexdigest()


@pytest.mark.parametrize("seed", range(600, 630))
def test_a_comparison_finds_what_is_changed_and_nothing_else(seed, tmp_path):
    case = families.make_case(seed, block_padding=harness.BLOCK_PADDING)
    plan = harness.make_plan(case, tmp_path)
    with runners.few_bytes(seed):
        out = publish_plan(plan, LocalSource(tmp_path / "source"), tmp_path / "out").out
        assert runners.compared(plan, tmp_path / "source", out) == {}
        hashed = runners.hashed(plan, tmp_path / "source")
        assert hashed == {name: pieced(array.tobytes()) for name, array in case.expected.items()}
        targets = [tensor for tensor in plan.targets() if tensor.nbytes]
        if not targets:
            return
        changed = targets[seed % len(targets)]
        with (out / changed.file).open("r+b") as stream:
            at = changed.offset + changed.nbytes - 1
            stream.seek(at)
            (byte,) = stream.read(1)
            stream.seek(at)
            stream.write(bytes([byte ^ 1]))
        found = runners.compared(plan, tmp_path / "source", out)
    assert list(found) == [changed.name]
    assert found[changed.name].elements == 1
    assert found[changed.name].first == changed.elements - 1


def test_families_have_every_feature():
    found = set()
    for seed in range(100):
        found |= families.make_case(seed).features
    assert found >= {
        *(
            "stacked",
            "sums",
            "nested sums",
            "ragged",
            "refine",
            "operations",
            "ties",
            "padding",
            "zero sizes",
        ),
        *("shards", *families.AVOIDABLE),
    }


def test_one_seed_makes_one_case():
    one, other = families.make_case(5), families.make_case(5)
    assert (one.canonical, one.dialects, one.sizes) == (other.canonical, other.dialects, other.sizes)
    assert {name: array.tobytes() for name, array in one.source.items()} == {
        name: array.tobytes() for name, array in other.source.items()
    }


# --- the oracle itself, against what a person writes ------------------------------------------------


def test_the_oracle_concatenates_interleaves_and_turns():
    q, k = np.arange(24).reshape(2, 3, 4), 100 + np.arange(8).reshape(2, 4)
    sizes = {"kv": 2, "per": 3, "d": 4}
    blocks = [(("kv", "per", "d"), q), (("kv", "d"), k)]
    flat = oracle.stored("(kv per d | kv d)", blocks, sizes)
    assert flat.tolist() == [*q.reshape(-1), *k.reshape(-1)]
    mixed = oracle.stored("kv (per | 1) d", blocks, sizes)
    assert mixed.tolist() == np.concatenate([q, k[:, None]], axis=1).tolist()
    turned = oracle.stored("d 1 (per kv)", blocks[:1], sizes)
    assert turned.tolist() == q.transpose(2, 1, 0).reshape(4, 1, 6).tolist()
    nested = oracle.stored(
        "(d | (kv | 1))", [(("d",), np.arange(4)), (("kv",), np.arange(2)), ((), np.array(9))], sizes
    )
    assert nested.tolist() == [0, 1, 2, 3, 0, 1, 9]


@pytest.mark.parametrize("fault", ["one byte", "a shape", "a missing tensor", "one too many"])
def test_every_difference_is_found(fault):
    case = families.make_case(8)
    name = next(name for name, array in case.expected.items() if array.nbytes)
    made = {key: (case.dtype, array.shape, array.tobytes()) for key, array in case.expected.items()}
    assert harness.differences(case, made) == []
    dtype, shape, content = made[name]
    if fault == "one byte":
        made[name] = dtype, shape, content[:-1] + bytes([content[-1] ^ 1])
    elif fault == "a shape":
        made[name] = dtype, (*shape, 1), content
    elif fault == "a missing tensor":
        del made[name]
    else:
        made["more"] = made[name]
    assert len(harness.differences(case, made)) == 1
