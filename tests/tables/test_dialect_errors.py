"""Every way in which a dialect's table can be wrong: the error names file, line, rule and remedy."""

import re

import pytest

from porter.tables import TableError

RULE = """
[[rule]]
theirs = "extra.{layer}"
ours   = "{layer}.k"
"""

# What is done to the table, what the message says, and a text that stands on the line to be named
# (None: the table as a whole, line 1).
BROKEN = {
    "unknown key at the top": (
        [('dialect = "plain"', 'dialect = "plain"\nlayouts = 3')],
        "unknown key `layouts`",
        "layouts = 3",
    ),
    "unknown key in a rule": (
        [('theirs = "head"', 'theirs = "head"\ntranspose = true')],
        "unknown key `transpose`",
        ("[[rule]]", 3),
    ),
    "unknown key in [config]": (
        [('[[rule]]\ntheirs = "embed"', '[config]\nfiel = "x"\n[[rule]]\ntheirs = "embed"')],
        "unknown key `fiel`",
        "fiel =",
    ),
    "unknown key in a config field": (
        [
            (
                '[[rule]]\ntheirs = "embed"',
                '[config.fields]\nn_layer = { feld = "x" }\n[[rule]]\ntheirs = "embed"',
            )
        ],
        "unknown key `feld`",
        "feld",
    ),
    "a constant where a field is written": (
        [
            (
                '[[rule]]\ntheirs = "embed"',
                '[config.fields]\nn_layer = "layers"\n[config.write]\nlayers = 3\n[[rule]]\ntheirs = "embed"',
            )
        ],
        "[config.write] says layers = 3, which is written from n_layer",
        "layers = 3",
    ),
    "unknown key in a merged dict": (
        [('[[rule]]\ntheirs = "embed"', '[config.merge]\nrope = { frst = [] }\n[[rule]]\ntheirs = "embed"')],
        "rope: unknown key `frst`",
        "rope = {",
    ),
    "an unknown spelling of numbers": (
        [
            (
                '[[rule]]\ntheirs = "embed"',
                '[config.fields]\nn_layer = { field = "n", as = "real" }\n[[rule]]\ntheirs = "embed"',
            )
        ],
        "n_layer: unknown spelling `real`",
        "n_layer = {",
    ),
    "no theirs": ([('theirs = "head"\n', "")], "the rule has no `theirs`", ("[[rule]]", 3)),
    "no ours": ([('ours   = "head"\n', "")], "the rule has no `ours`", ("[[rule]]", 3)),
    "no layout for several tensors": (
        [('ours   = "head"', 'ours   = ["head", "embed"]')],
        "the rule has no `layout`",
        ("[[rule]]", 3),
    ),
    "fewer blocks than tensors": (
        [('ours   = "{layer}.k"', 'ours   = ["{layer}.k", "{layer}.q"]')],
        "has 1 blocks, `ours` names 2 tensors",
        ("[[rule]]", 2),
    ),
    "more blocks than tensors": (
        [('"(n_kv_head head_dim) d_model"', '"(n_kv_head head_dim | 1) d_model"')],
        "has 2 blocks, `ours` names 1 tensors",
        ("[[rule]]", 2),
    ),
    "an axis is missing": (
        [('"(n_kv_head head_dim) d_model"', '"(n_kv_head head_dim)"')],
        "the axis d_model of '{layer}.k' appears 0 times",
        ("[[rule]]", 2),
    ),
    "an index variable is missing": (
        [('theirs = "layers.{layer}.k"', 'theirs = "layers.k"')],
        "the axis layer of '{layer}.k' appears 0 times",
        ("[[rule]]", 2),
    ),
    "an index variable stands in the name and in the layout": (
        [('"(n_kv_head head_dim) d_model"', '"layer (n_kv_head head_dim) d_model"')],
        "the axis layer of '{layer}.k' appears 2 times",
        ("[[rule]]", 2),
    ),
    "an axis stands twice in a block": (
        [('"(n_kv_head head_dim) d_model"', '"(n_kv_head head_dim) d_model d_model"')],
        "the axis d_model appears twice",
        ("[[rule]]", 2),
    ),
    "an unknown axis": (
        [('"(n_kv_head head_dim) d_model"', '"(n_head head_dim) d_model"')],
        "'{layer}.k' has no axis n_head",
        ("[[rule]]", 2),
    ),
    "an unknown variable in the name": (
        [('theirs = "head"', 'theirs = "head.{rank}"')],
        "'head' has no axis rank",
        ("[[rule]]", 3),
    ),
    "a layout that does not parse": (
        [('"(n_kv_head head_dim) d_model"', '"(n_kv_head head_dim d_model"')],
        "layout `(n_kv_head head_dim d_model`",
        ("[[rule]]", 2),
    ),
    "an unknown canonical tensor": (
        [('ours   = "head"', 'ours   = "heads"\nlayout = "vocab d_model"')],
        "toy has no canonical tensor 'heads'",
        ("[[rule]]", 3),
    ),
    "a canonical tensor that no rule makes": (
        [('[[rule]]\ntheirs = "head"\nours   = "head"\n', "")],
        "no rule of toy/plain makes the canonical tensor 'head'",
        None,
    ),
    "a canonical tensor that two rules make": (
        [('ours   = "head"', 'ours   = "embed"')],
        "two rules make the canonical tensor 'embed'",
        ("[[rule]]", 3),
    ),
    "two rules for one stored name": (
        [('theirs = "head"', 'theirs = "embed"')],
        "two rules for the stored name 'embed'",
        ("[[rule]]", 3),
    ),
    "a bad pattern: an open brace": (
        [('theirs = "head"', 'theirs = "head.{layer"')],
        "a brace that is no",
        ("[[rule]]", 3),
    ),
    "a bad pattern: a variable touches digits": (
        [('theirs = "layers.{layer}.k"', 'theirs = "layers.1{layer}.k"')],
        "a variable touches digits",
        ("[[rule]]", 2),
    ),
    "a bad pattern: a variable twice": (
        [('theirs = "layers.{layer}.k"', 'theirs = "layers.{layer}.{layer}.k"')],
        "a variable stands twice",
        ("[[rule]]", 2),
    ),
    "a bad pattern: empty": (
        [('theirs = "head"', 'theirs = ""')],
        "a name pattern is empty",
        ("[[rule]]", 3),
    ),
    "`tied` is neither write nor omit": (
        [('ours   = "head"', 'ours   = "head"\ntied   = "maybe"')],
        '`tied` must be "write" or "omit"',
        ("[[rule]]", 3),
    ),
    "a condition reads what is not defined": (
        [('ours   = "head"', 'ours   = "head"\nwhen   = "not tie_embedding"')],
        "reads tie_embedding, which is not defined",
        ("[[rule]]", 3),
    ),
    "a condition outside the notation": (
        [('ours   = "head"', 'ours   = "head"\nwhen   = "tie_embeddings.real"')],
        "Attribute is not part of the notation",
        ("[[rule]]", 3),
    ),
    "a condition that is no text": (
        [('ours   = "head"', 'ours   = "head"\nwhen   = true')],
        "`when` must be",
        ("[[rule]]", 3),
    ),
    "a layout that is no text": (
        [('"(n_kv_head head_dim) d_model"', '["n_kv_head"]')],
        "`layout` must be",
        ("[[rule]]", 2),
    ),
    "a name that is no text": ([('theirs = "head"', "theirs = 3")], "`theirs` must be", ("[[rule]]", 3)),
    "tensors that are no names": ([('ours   = "head"', "ours   = 3")], "`ours` must be", ("[[rule]]", 3)),
    "an operand that is no number": (
        [('ours   = "head"', 'ours   = "head"\nadd = ["one"]')],
        "`add` must be",
        ("[[rule]]", 3),
    ),
    "`ignore` that is one text": (
        [('dialect = "plain"', 'dialect = "plain"\nignore = "rotary"')],
        "`ignore` must be",
        "ignore =",
    ),
    "`remove` that is one text": (
        [('dialect = "plain"', 'dialect = "plain"\nremove = "head"')],
        "`remove` must be",
        "remove =",
    ),
    "`remove` of a rule that is not there": (
        [('dialect = "plain"', 'dialect = "plain"\nremove = ["nothing"]')],
        "`remove` names no rule of the table that is extended: 'nothing'",
        "remove =",
    ),
    "`extends` of nothing": (
        [('family  = "toy"', 'extends = "toy/none"\nfamily = "toy"')],
        "`extends` names no table: 'toy/none'",
        "extends =",
    ),
    "`extends` of itself": (
        [('family  = "toy"', 'extends = "toy/plain"\nfamily = "toy"')],
        "a table extends itself",
        "extends =",
    ),
    "another family": ([('family  = "toy"', 'family  = "joy"')], "the table is for 'joy'", "family"),
    "a family that is no text": ([('family  = "toy"', "family = 3")], "`family` must be", "family"),
    "a dialect that is no text": (
        [('dialect = "plain"', "dialect = 3")],
        "`dialect` must be",
        "dialect",
    ),
    "an operand that calls what is not there": (
        [('ours   = "head"', 'ours   = "head"\nadd = "cbrt(d_model)"')],
        "calls cbrt, which is no function here",
        ("[[rule]]", 3),
    ),
    "a condition that calls something": (
        [('ours   = "head"', 'ours   = "head"\nwhen = "field(1)"')],
        "calls field, which is no function here",
        ("[[rule]]", 3),
    ),
    "a stem that no rule has": (
        [('[[rule]]\ntheirs = "embed"', '[names]\n"attn.out" = "o"\n\n[[rule]]\ntheirs = "embed"')],
        "no rule that is extended has the stem 'attn.out'",
        '"attn.out"',
    ),
    "a config expression reads what is not defined": (
        [
            (
                '[[rule]]\ntheirs = "embed"',
                '[config.fields]\nn_layer = { field = "n", default = "2 * layers" }\n'
                '[[rule]]\ntheirs = "embed"',
            )
        ],
        "reads layers, which is not defined",
        "n_layer = ",
    ),
    "a config field for no hyperparameter": (
        [('[[rule]]\ntheirs = "embed"', '[config.fields]\nn_layers = "n"\n[[rule]]\ntheirs = "embed"')],
        "toy has no hyperparameter 'n_layers'",
        "n_layers =",
    ),
    "a published value for what the config does not know": (
        [('[[rule]]\ntheirs = "embed"', '[config.published]\nn_layers = 3\n[[rule]]\ntheirs = "embed"')],
        "[config.published] states 'n_layers'",
        "n_layers =",
    ),
    "a hyperparameter that the config does not state": (
        [('[[rule]]\ntheirs = "embed"', '[config]\nfile = "config.json"\n[[rule]]\ntheirs = "embed"')],
        "says nothing of 'n_layer'",
        None,
    ),
    "invalid TOML": ([('theirs = "head"', "theirs = head")], "not valid TOML", "theirs = head"),
}


def place(path, at, line_of):
    if at is None:
        return 1
    if isinstance(at, str):
        return line_of(path, at)
    text, number = at
    lines = path.read_text(encoding="utf-8").splitlines()
    return [n for n, line in enumerate(lines, start=1) if text in line][number]


def test_the_table_that_is_broken_below_is_right_as_it_stands(tables):
    """Negative control: each error comes of the one edit."""
    dialect = tables.dialect()
    assert [rule.theirs.text for rule in dialect.rules] == [
        "embed",
        "layers.{layer}.q",
        "layers.{layer}.k",
        "head",
    ]


@pytest.mark.parametrize("case", BROKEN)
def test_an_error_names_file_line_rule_and_remedy(case, tables, line_of):
    edits, message, at = BROKEN[case]
    with pytest.raises(TableError) as caught:
        tables.dialect(*edits)
    error = caught.value
    path = tables.root / "toy" / "plain.toml"
    assert message in error.message
    assert error.message.startswith(f"{path}:{place(path, at, line_of)}: ")
    assert error.hint or error.cause, "what to do, or what was found"
    assert error.exit_code == 2


OVERLAPS = [
    ("a.{layer}.b", "a.7.b"),
    ("a.7.b", "a.{layer}.b"),
    ("a.{layer}.b", "a.{other}.b"),
    ("a.{layer}.0", "a.1.{layer}"),
]


@pytest.mark.parametrize(("one", "two"), OVERLAPS)
def test_no_stored_name_may_fit_two_rules(one, two, tables):
    canonical = tables.canonical(
        ('layer = "n_layer"', 'layer = "n_layer"\nother = "n_layer"'),
        (
            '"head"         =',
            '"x{layer}"     = "d_model"\n"y{other}"  = "d_model"\n"z"  = "d_model"\n"head"  =',
        ),
    )
    ours = {"layer": "x{layer}", "other": "y{other}"}
    names = [next((ours[v] for v in ours if f"{{{v}}}" in text), "z") for text in (one, two)]
    if names[0] == names[1]:
        names[1] = "y{other}"
        two = two.replace("{layer}", "{other}")
    rules = "".join(
        f'\n[[rule]]\ntheirs = "{theirs}"\nours = "{name}"\n'
        for theirs, name in zip((one, two), names, strict=True)
    )
    missing = {"x{layer}", "y{other}", "z"} - set(names)
    rules += "".join(f'\n[[rule]]\ntheirs = "w.{name}"\nours = "{name}"\n' for name in missing)
    head = 'theirs = "head"\nours   = "head"\n'
    with pytest.raises(TableError, match="could fit both") as caught:
        tables.dialect((head, head + rules), canonical=canonical)
    assert one in caught.value.message and two in caught.value.message
    assert re.search(r"plain\.toml:\d+", caught.value.cause)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("one", "two"), [("a.6.b", "a.7.b"), ("a.{layer}.b", "a.{layer}.c"), ("a.{layer}", "a.x")]
)
def test_names_that_can_never_meet_do_not_overlap(one, two):
    from porter.tables.patterns import Pattern

    assert not Pattern(one).overlaps(Pattern(two))


@pytest.mark.parametrize("ignored", ["layers.{layer}.k", "layers.0.k"])
def test_what_is_ignored_may_not_be_mapped_too(ignored, tables, line_of):
    with pytest.raises(TableError, match="could fit both") as caught:
        tables.dialect(('dialect = "plain"', f'dialect = "plain"\n\nignore = ["{ignored}"]'))
    path = tables.root / "toy" / "plain.toml"
    lines = {line_of(path, "ignore ="), place(path, ("[[rule]]", 2), line_of)}
    assert any(f"plain.toml:{line}:" in caught.value.message for line in lines)


def test_conditions_may_share_a_canonical_tensor_between_rules(tables):
    shared = 'ours   = "head"\nwhen   = "tie_embeddings"\n\n[[rule]]\ntheirs = "lm.head"\nours = "head"\n'
    tables.dialect(('ours   = "head"', shared + 'when = "not tie_embeddings"'))
    with pytest.raises(TableError, match="two rules make the canonical tensor 'head'") as caught:
        tables.dialect(('ours   = "head"', shared))
    assert "`when`" in caught.value.hint


def test_lines_are_right_below_a_list_that_runs_over_several(tables, line_of):
    """A line that begins with a bracket need not begin a section."""
    text = """\
    [config.fields]
    n_layer = { field = "n" }
    n_head = { field = "h", values = [
        ["gelu", "gelu_tanh"],
        ["relu", "relu"]
    ] }
    d_models = "d"

    [[rule]]
    theirs = "embed\""""
    with pytest.raises(TableError) as caught:
        tables.dialect(('[[rule]]\ntheirs = "embed"', "\n".join(line[4:] for line in text.split("\n"))))
    path = tables.root / "toy" / "plain.toml"
    assert caught.value.message.startswith(f"{path}:{line_of(path, 'd_models')}: ")
