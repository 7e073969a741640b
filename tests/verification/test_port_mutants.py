"""Some of the wrong ports of `port_mutants.py`: found, named, and nothing sound called wrong."""

from __future__ import annotations

import pytest
from port_mutants import CONFIGS, FAMILIES, MUTANTS, Bed, false_alarms, try_configs, try_weights

# One in so many is tried here, another one of each family; `make mutants` tries them all.
EVERY = 14


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_ports_are_found_and_named(tmp_path, family):
    bed = Bed(tmp_path / "bed", family)
    shift = list(FAMILIES).index(family)
    weights = list(try_weights(bed, lambda number: (number + 5 * shift) % EVERY == 0))
    configs = list(try_configs(bed, lambda number: (number + shift) % 5 == 0))
    assert len(weights) >= 3 and configs
    assert [one for one in (*weights, *configs) if not (one.found and one.named)] == []
    assert false_alarms(bed) == []


def test_the_corpus_is_as_large_as_it_was():
    """A mistake that is lost from it would not be missed."""
    assert len(MUTANTS) >= 50
    assert sum(map(len, CONFIGS.values())) >= 37
