"""Where tensors have to start so that most of their bytes can share blocks with the source."""

from porter.containers.base import StoredTensor
from porter.dtypes import DTYPES
from porter.layout import Loop
from porter.planning.plan import Copy
from porter.planning.sharing import BLOCK, majority, residues


def stored(name, elements, offset):
    return StoredTensor(name, DTYPES["F32"], (elements,), "x", offset)


def copy(source, target_offset, elements, kind="extent"):
    return Copy("c", source, "fused", 0, target_offset, (Loop(elements, 1, 1),), kind)


def test_the_part_with_most_bytes_decides():
    """A fused tensor of three parts: one place suits two of them, another the third."""
    big, small = 8 * BLOCK, 4 * BLOCK
    sources = {t.name: t for t in (stored("a", small, 8), stored("b", big, 80), stored("c", small, 8))}
    copies = [copy("a", 0, small), copy("b", small, big), copy("c", small + big, small)]
    # Its parts are whole blocks, so that each asks for the residue of its own start.
    assert residues(copies[:2], sources) == {"fused": 80}
    assert residues([copies[0], copies[2]], sources) == {"fused": 8}
    assert residues(copies, sources) == {"fused": 8}, "as many bytes: the smaller one"
    larger = {**sources, "b": stored("b", 2 * big, 80)}
    assert residues([copies[0], copy("b", small, 2 * big), copies[2]], larger) == {"fused": 80}


def test_order_decides_nothing():
    assert majority({16: 5, 8: 5, 24: 4}) == majority({24: 4, 8: 5, 16: 5}) == 8
    assert majority({8: 5, 16: 6}) == majority({16: 6, 8: 5}) == 16


def test_what_cannot_share_has_no_say():
    tiny, odd, moved = stored("tiny", 100, 8), stored("odd", 4 * BLOCK, 12), stored("moved", 4 * BLOCK, 8)
    sources = {t.name: t for t in (tiny, odd, moved)}
    assert residues([copy("tiny", 0, 100)], sources) == {}
    assert residues([copy("odd", 0, 4 * BLOCK)], sources) == {}, "not aligned for every dtype"
    assert residues([copy("moved", 0, 4 * BLOCK, "tile")], sources) == {}
