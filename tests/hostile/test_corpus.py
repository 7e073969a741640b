"""What fuzzing has kept, through its targets once more, and what these would notice."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fuzz
import seeds

pytestmark = pytest.mark.peer

# Processor time is told of a whole process, and others may be at work in this one.
LONG = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    before = dict(os.environ)
    made = seeds.make_all(folder / "seeds")
    fuzz.place(folder, made)
    yield made
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_what_was_found_before_is_refused_or_read_as_others_read_it(made, target):
    read, seed, _, _ = fuzz.TARGETS[target]
    assert fuzz.outcome(read, fuzz.start_of(target, made[seed]), LONG) == "accepted"
    kept = sorted((fuzz.KEPT / target).iterdir())
    found = {path.name: fuzz.outcome(read, path.read_bytes(), LONG) for path in kept}
    assert set(found.values()) <= {"accepted", "refused"}, found
    assert "refused" in found.values()


def test_negative_control_another_reading_and_an_error_of_another_kind_are_failures(made, monkeypatch):
    import safetensors

    sound = fuzz.start_of("safetensors", made["hf"])
    assert fuzz.outcome(fuzz.safetensors, sound, LONG) == "accepted"
    monkeypatch.setattr(safetensors, "deserialize", lambda content: [])
    assert "other tensors" in fuzz.outcome(fuzz.safetensors, sound, LONG)
    assert fuzz.outcome(lambda content: {}[content], b"x").startswith("failed: KeyError")
    assert "after" in fuzz.outcome(lambda content: None, b"x", most=-1)
