"""Rules for stored tensors that hold more than a weight: other names, rows of padding, factors of rows."""

import pytest

from porter.errors import MalformedError
from porter.layout import Loop
from porter.recognition.stored_names import NameMatcher
from porter.tables import TableError
from porter.tables.bind import Filler, bind_dialect

SIZES = {
    "n_layer": 2,
    "n_head": 4,
    "n_kv_head": 2,
    "head_dim": 5,
    "d_model": 7,
    "vocab_size": 11,
    "tie_embeddings": False,
    "k_bias": False,
}
HEAD = 'dialect = "plain"\n'
EMBED = 'theirs = "embed"\nours   = "embed"'
Q = 'theirs = "layers.{layer}.q"\n'


def bound(tables, *changes, **sizes):
    canonical, dialect = tables.canonical(), tables.dialect(*changes)
    return {tensor.name: tensor for tensor in bind_dialect(dialect, canonical, SIZES | sizes)}


def padded(rows, kind="zeros", layout="(vocab | rows) d_model"):
    """Changes to the table: rows of no weight behind the embedding's."""
    rule = f'theirs = "embed"\nours   = ["embed", "{kind}"]\nlayout = "{layout}"'
    return ((HEAD, f'{HEAD}[axes]\nrows = "{rows}"\n'), (EMBED, rule))


@pytest.mark.parametrize("kind", ["zeros", "unused"])
def test_zeros_lengthen_what_is_stored_and_nothing_else(tables, kind):
    made, plain = bound(tables, *padded("vocab_size - 8", kind)), bound(tables)
    assert made["embed"].shape == (14, 7)
    assert made["embed"].fillers == (Filler(kind, 77, (Loop(21, 1, 1),)),)
    assert [block.canonical for block in made["embed"].blocks] == ["embed"]
    assert made["embed"].blocks[0].address == plain["embed"].blocks[0].address
    assert (made["head"].shape, made["head"].fillers) == ((11, 7), ())


def test_zeros_are_a_block_like_any_other(tables):
    """In front, or behind each row: seven numbers of an embedding and two of no meaning."""
    made = bound(tables, *padded("2", layout="vocab (d_model | rows)"))["embed"]
    assert made.shape == (11, 9) and made.blocks[0].address.strides == {"vocab": 9, "d_model": 1}


def test_zeros_may_be_none(tables):
    made = bound(tables, *padded("0"))["embed"]
    assert (made.shape, made.fillers) == ((11, 7), ())


def test_zeros_cannot_be_less_than_none(tables):
    with pytest.raises(MalformedError, match="size of the axis rows must be a whole number") as caught:
        bound(tables, *padded("0 - 1"))
    assert "gives -1" in caught.value.cause


def test_other_names_stand_for_the_first(tables):
    matcher = NameMatcher(tables.dialect((Q, Q + 'also = ["q/{layer}", "q_of/{layer}"]\n')))
    for name in ("layers.1.q", "q/1", "q_of/1"):
        assert matcher.spelled(name) == "layers.1.q"
    assert matcher.spelled("q/01") is None


def test_factors_are_known_by_their_own_name(tables):
    change = (Q, Q + 'scale_by = "layers.{layer}.q_scaler"\n')
    assert bound(tables, change)["layers.1.q"].scales == "layers.1.q_scaler"
    assert NameMatcher(tables.dialect(change)).spelled("layers.1.q_scaler") == "layers.1.q_scaler"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (padded("nonsense"), "reads nonsense"),
        (padded("3", layout="(vocab | more) d_model"), "the axis more of 'zeros' has no size"),
        (padded("3", layout="(vocab rows | 1) d_model"), "'embed' has no axis rows"),
        (((EMBED, 'theirs = "embed"\nours = "zeros"\nlayout = "d_model"'),), "without a weight"),
        (
            (('dialect = "plain"\n', 'dialect = "plain"\n[axes]\nvocab = "3"\n'),),
            "has a size of vocab itself",
        ),
        ((Q, Q + "multiply = 0\n"), "`multiply = 0`"),
        ((Q, Q + "multiply = nan\n"), "`multiply = nan`"),
        ((Q, Q + "add = -inf\n"), "`add = -inf`"),
        ((Q, Q + 'also = "q"\n'), "`also` must be"),
        ((Q, Q + 'also = ["q"]\n'), "different variables"),
        ((Q, Q + 'scale_by = "q_scaler"\n'), "different variables"),
        ((Q, Q + 'also = ["layers.{layer}.k"]\n'), "could fit both"),
        ((Q, Q + 'scale_by = "layers.{layer}.k"\n'), "could fit both"),
    ],
)
def test_what_makes_no_sense_is_refused(tables, change, message):
    tables.canonical()
    with pytest.raises(TableError, match=message):
        tables.dialect(*(change if isinstance(change[0], tuple) else (change,)))
