"""A table of the wrong types is an error that names file, line and entry; whatever is wrong with it."""

import random
import sys
import time
from pathlib import Path

import pytest

from porter.errors import PorterError, UnforeseenError
from porter.tables.catalogue import load_user_table, mappings_root
from porter.tables.model import TableError

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

import mutants

HEAD = 'extends = "gemma/hf"\nfamily = "gemma"\ndialect = "mine"\n'

WRONG = {
    "a list where a text belongs": ('title = ["x"]\n', "`title` must be a text", 4),
    "a number in a list of names": ('ignore = ["a", 3]\n', "`ignore` must be a text", 4),
    "a text where a list belongs": ('beyond = "a"\n', "`beyond` must be a list of names", 4),
    "a number where a section belongs": ("config = 3\n", "`config` must be a table", 4),
    "a list as a field": ("[config.fields]\nnorm_eps = [1]\n", "`norm_eps` must be a text", 5),
    "a number as an expression": ("[config.fields]\nnorm_eps = { read = 1 }\n", "`read` must be a text", 5),
    "a flag that is a number": ("[config]\nfloat32 = 1\n", "`float32` must be true or false", 5),
    "values that are no pairs": (
        '[config.fields]\nnorm_eps = { values = "ab" }\n',
        "`values` must be a list",
        5,
    ),
    "a caution that is a text": ('[config.caution]\na = "b"\n', "`a` must be a table", 5),
    "a file that is a list": ('[files]\nweights = ["a"]\n', "`weights` must be a text", 5),
    "a prefix that is a number": ("[prefixes]\na = 1\n", "`a` must be a text or a list of names", 5),
    "a rule that is a number": ('[rules]\n"a" = 1\n', "`a` must be false or a text", 5),
    "a size beyond any": ("[rules]\n\"a\" = { ours = 'norm', add = " + "9" * 50 + " }\n", "`add` must be", 5),
    "a text without end": (f'title = "{"x" * 3_000}"\n', "`title` must be a text", 4),
    "a list without end": (f"ignore = [{'1,' * 6_000}]\n", "a list of at most 5,000 items", 4),
    "a key of 40 parts": (f"{'a.' * 40}b = 1\n", "not valid TOML", 1),
    "a number of 5,000 digits": (
        f"[config.fields]\nnorm_eps = {{ default = {'9' * 5_000} }}\n",
        "not valid TOML",
        1,
    ),
    "lists in lists": (f"a = {'[' * 5_000}\n", "not valid TOML", 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_entry_of_another_type_is_named(tmp_path, name):
    text, message, line = WRONG[name]
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + text, "utf-8")
    began = time.process_time()
    with pytest.raises(TableError) as caught:
        load_user_table(path)
    assert time.process_time() - began < 1
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert len(str(caught.value)) < 2_000


def test_negative_control_the_head_alone_is_a_table(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(HEAD, "utf-8")
    assert load_user_table(path).name == "mine"


def test_a_long_line_of_blanks_takes_no_time(tmp_path):
    path = tmp_path / "mine.toml"
    began = time.process_time()
    for text in ("[" + " " * 300_000 + "x\n", " " * 300_000 + "a\n", " " * 300_000 + "[rules\n"):
        path.write_text(HEAD + text, "utf-8")
        with pytest.raises(PorterError):
            load_user_table(path)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_shipped_tables_with_another_value_are_tables_or_errors_of_porters_own(tmp_path, first):
    refused = 0
    for seed in range(first, first + 100):
        rng = random.Random(seed)
        base = rng.choice(("gemma/hf", "decoder/hf", "gemma/keras", "gemma3_text/hf", "llama/hf"))
        text = (mappings_root() / f"{base}.toml").read_text("utf-8").replace("family =", "# family =")
        path = tmp_path / "mine.toml"
        path.write_text(mutants.other_toml('dialect = "mine"\nfamily = "gemma"\n' + text, rng), "utf-8")
        try:
            load_user_table(path)
        except UnforeseenError:
            raise
        except PorterError:
            refused += 1
    assert refused > 20
