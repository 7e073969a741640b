"""Every way in which a canonical table can be wrong: the error names file, line, rule and remedy."""

import pytest

from porter.errors import MalformedError, UsageError
from porter.tables import TableError
from porter.tables.load import load_canonical

HEAD = '"head"         = { axes = "vocab d_model", tied = "embed" }'

# The edit, what the message says, and a text on the line to be named (None: line 1).
BROKEN = {
    "unknown key at the top": (
        ('family  = "toy"', 'family  = "toy"\ntensor = 3'),
        "unknown key `tensor`",
        "tensor = 3",
    ),
    "unknown key in a tensor": (
        (HEAD, HEAD.replace("tied", "tie")),
        "unknown key `tie`",
        '"head"',
    ),
    "a tensor without axes": ((HEAD, '"head" = { tied = "embed" }'), "'head' needs `axes`", '"head"'),
    "an axis twice": ((HEAD, '"head" = "d_model d_model"'), "'head' names an axis twice", '"head"'),
    "an axis without a size": (
        (HEAD, '"head" = "vocab d_modal"'),
        "'head': the axis d_modal has no size",
        '"head"',
    ),
    "an index variable without a size": (
        (HEAD, '"head.{rank}" = "vocab d_model"'),
        "uses the index variable {rank}, which has no size",
        '"head.{rank}"',
    ),
    "an index variable as an axis": (
        (HEAD, '"head" = "layer d_model"'),
        "'head'",
        '"head"',
    ),
    "a bad name": ((HEAD, '"head{" = "vocab d_model"'), "a brace that is no", '"head{"'),
    "a condition that reads what is not defined": (
        (HEAD, '"head" = { axes = "vocab d_model", when = "untied" }'),
        "reads untied, which is not defined",
        '"head"',
    ),
    "a tie to nothing": ((HEAD, HEAD.replace('"embed"', '"embedding"')), "tied to 'embedding'", '"head"'),
    "a tie over other axes": (
        (HEAD, HEAD.replace("vocab d_model", "d_model vocab")),
        "no untied tensor over the same axes",
        '"head"',
    ),
    "a size that reads what is not defined": (
        ('vocab    = "vocab_size"', 'vocab    = "vocabulary"'),
        "the size of vocab: `vocabulary` reads vocabulary, which is not defined",
        None,
    ),
    "a size outside the notation": (
        ('vocab    = "vocab_size"', 'vocab    = "vocab_size ** 2"'),
        "Pow is not part of the notation",
        "vocab    =",
    ),
    "a size that is not stated": (
        ('vocab    = "vocab_size"', 'vocab    = { inverse = { vocab_size = "vocab" } }'),
        "vocab needs a `size`",
        "vocab    =",
    ),
    "sizes that read each other": (
        ('vocab    = "vocab_size"', 'vocab    = "rows"\nrows     = "vocab * 1"'),
        "is derived from itself",
        None,
    ),
    "a hyperparameter of no type": (
        ('d_model        = "int"', 'd_model        = "integer"'),
        "d_model: `type` must be one of",
        "d_model        =",
    ),
    "unknown key in a hyperparameter": (
        ('d_model        = "int"', 'd_model        = { type = "int", default = 3 }'),
        "unknown key `default`",
        "d_model        =",
    ),
    "an idle hyperparameter that is a number": (
        ('d_model        = "int"', 'd_model        = { type = "int", idle = true }'),
        "what is `idle` is a bool",
        "d_model        =",
    ),
    "a section that is no table": (
        ('family  = "toy"', 'family  = "toy"\nexample = 3'),
        "`example` must be a table",
        "example =",
    ),
    "a version that is no number": (("version = 3", 'version = "three"'), "`version` must be", "version ="),
    "a family that is no text": (('family  = "toy"', "family = 3"), "`family` must be", "family"),
    "invalid TOML": (("[axes]", "[axes"), "not valid TOML", "[axes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_error_names_file_line_rule_and_remedy(case, tables, line_of):
    edit, message, at = BROKEN[case]
    with pytest.raises(TableError) as caught:
        tables.canonical(edit)
    path = tables.root / "toy" / "canonical.toml"
    assert message in caught.value.message
    line = 1 if at is None else line_of(path, at)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert caught.value.exit_code == 2


def test_a_tie_needs_the_hyperparameter_that_says_whether_it_holds(tables):
    with pytest.raises(TableError, match="tie_embeddings"):
        tables.canonical(('tie_embeddings = "bool"\n', ""))


def test_a_table_that_is_not_there_or_cannot_be_read(tables):
    with pytest.raises(UsageError, match="no mapping table at"):
        load_canonical(tables.root / "toy" / "canonical.toml", tables.root)
    broken = tables.write("toy/canonical.toml", "")
    broken.write_bytes(b"family = '\xff'")
    with pytest.raises(MalformedError, match="cannot read the mapping table"):
        load_canonical(broken, tables.root)


def test_what_a_right_table_says(tables):
    canonical = tables.canonical()
    assert (canonical.family, canonical.version) == ("toy", 3)
    assert canonical.tensors["{layer}.q"].axes == ("n_kv_head", "q_per_kv", "head_dim", "d_model")
    assert canonical.tensors["head"].tied == "embed"
    required = {name for name, item in canonical.hyperparameters.items() if item.required}
    assert "d_model" in required and "k_bias" not in required


def test_a_refined_axis_stays_whole_where_a_layout_names_it(tables):
    canonical = tables.canonical(
        (
            "[axes]",
            '[refine]\nhead_dim = "rope_half rope_freq"\n\n'
            '[axes]\nrope_half = "2"\nrope_freq = "head_dim / 2"',
        )
    )
    assert canonical.tensors["{layer}.k"].axes == ("n_kv_head", "head_dim", "d_model")
    dialect = tables.dialect(canonical=canonical)
    [rule] = [rule for rule in dialect.rules if rule.ours == ("{layer}.k",)]
    assert str(rule.layout) == "(n_kv_head head_dim) d_model"
