"""Rules for stored tensors that hold more than a weight: other names, rows of padding, factors of rows."""

import pytest

from porter.errors import MalformedError
from porter.recognition.identify import NameMatcher
from porter.tables import TableError
from porter.tables.bind import bind_dialect

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
EMBED = 'theirs = "embed"\nours   = "embed"'
Q = 'theirs = "layers.{layer}.q"\n'


def bound(tables, *changes, **sizes):
    canonical, dialect = tables.canonical(), tables.dialect(*changes)
    return {tensor.name: tensor for tensor in bind_dialect(dialect, canonical, SIZES | sizes)}


def test_padding_lengthens_what_is_stored_and_nothing_else(tables):
    made = bound(tables, (EMBED, f'{EMBED}\npad = {{ vocab = "vocab_size + 3" }}'))
    plain = bound(tables)
    assert (made["embed"].shape, made["embed"].padding) == ((14, 7), 21)
    assert made["embed"].blocks[0].address == plain["embed"].blocks[0].address
    assert (made["head"].shape, made["head"].padding) == ((11, 7), 0)


def test_padding_may_be_nothing(tables):
    made = bound(tables, (EMBED, f'{EMBED}\npad = {{ vocab = "vocab_size" }}'))
    assert (made["embed"].shape, made["embed"].padding) == ((11, 7), 0)


def test_padding_cannot_be_less_than_nothing(tables):
    with pytest.raises(MalformedError, match="10 stored rows cannot hold the 11 of vocab"):
        bound(tables, (EMBED, f'{EMBED}\npad = {{ vocab = "vocab_size - 1" }}'))


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
        ((EMBED, f'{EMBED}\npad = {{ d_model = "9" }}'), "cannot lengthen the axis d_model"),
        ((EMBED, f'{EMBED}\npad = {{ vocab = "9", d_model = "9" }}'), "cannot lengthen the axis"),
        ((Q, Q + 'pad = { n_kv_head = "9" }\n'), "cannot lengthen the axis n_kv_head"),
        ((EMBED, f'{EMBED}\npad = {{ vocab = "nonsense" }}'), "reads nonsense"),
        ((EMBED, f'{EMBED}\npad = "9"'), "`pad` must be"),
        ((EMBED, f'{EMBED}\npadding = "some"'), "`padding` must be"),
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
        tables.dialect(change)
