"""What somebody is told to do is told in the words of the front that he uses, and by no module on its own."""

from __future__ import annotations

import ast
import doctest
import re
from pathlib import Path

import pytest

import porter
from porter import wording
from porter.errors import PorterError, UsageError
from porter.wording import command, flag, option, renamed, typed

ROOT = Path(porter.__file__).parent

# What stands in a string and looks like an option of porter's, and is none or is meant as it stands.
OTHERS = (
    r"llama-gguf-split --merge|ray start --\w+|porter mappings new \{?\w*\}? ?--name|porter mappings new "
    r"|--name mine|porter download --list|--json lists every tensor"
)
SPELT = re.compile(r"(?<![\w-])--[a-z][a-z-]+|(?<!\w)-o(?!\w)")


def spelt(path: Path) -> list[str]:
    """Options that a module spells out in what it says: text that is neither a docstring nor a page's."""
    tree = ast.parse(path.read_text("utf-8"))
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        f"{path.name}:{node.lineno} {match.group()}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents
        for match in SPELT.finditer(re.sub(OTHERS, "", node.value))
    ]


def test_no_module_but_those_of_the_command_line_spells_an_option() -> None:
    # A page's style sheet has names that begin so, the command line's next step is printed by it alone.
    but = {"wording.py", "html_page.py", "html_heat.py", "next_steps.py"}
    modules = [p for p in ROOT.rglob("*.py") if "cli" not in p.parts and p.name not in but]
    assert [line for path in modules for line in spelt(path)] == []


def test_what_spells_one_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""Does `--this`."""\nhint = f"say --from {1}"\nother = "choose with -o"\n')
    assert sorted(spelt(module)) == ["module.py:2 --from", "module.py:3 -o"]


def test_the_two_ways_to_say_one_thing() -> None:
    said = {
        option("to", "keras"): "--to keras",
        option("from", "hf"): "--from hf",
        option("map", "FILE.toml"): "--map FILE.toml",
        option("out"): "-o",
        flag("force"): "--force",
        flag("no-resume"): "--no-resume",
        option("allow-unmapped", "a b*"): "--allow-unmapped 'a b*'",
        command("download", "gemma-2b", include="*.gguf"): "porter download gemma-2b --include '*.gguf'",
        command("verify", "SRC", "OUT"): "porter verify SRC OUT",
    }
    assert list(said) == [
        'to="keras"',
        'source_dialect="hf"',
        'maps="FILE.toml"',
        "out=",
        "force=True",
        "resume=False",
        'allow_unmapped="a b*"',
        'porter.download("gemma-2b", include="*.gguf")',
        'porter.verify("SRC", "OUT")',
    ]
    with typed():
        assert [
            option("to", "keras"),
            option("from", "hf"),
            option("map", "FILE.toml"),
            option("out"),
            flag("force"),
            flag("no-resume"),
            option("allow-unmapped", "a b*"),
            command("download", "gemma-2b", include="*.gguf"),
            command("verify", "SRC", "OUT"),
        ] == list(said.values())
    assert option("to", "keras") == 'to="keras"', "and Python's again afterwards"


def test_the_second_of_two_checkpoints_has_options_of_its_own() -> None:
    with renamed({"from": "as", "key": "out-key"}):
        assert (option("from", "hf"), option("key")) == ('out_dialect="hf"', "out_key=")
        with typed():
            assert (option("from", "hf"), option("key")) == ("--as hf", "--out-key")
    assert option("key") == "key="


def test_what_is_quoted_is_python() -> None:
    for text in ("a", "it's", 'say "a"', "two\nlines", "\\"):
        assert ast.literal_eval(option("to", text).removeprefix("to=")) == text


def test_the_examples() -> None:
    assert doctest.testmod(wording).failed == 0


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"to": "litgpt", "tied": "both"}, UsageError, "tied= must be write, omit or untie, not 'both'"),
        (
            {"to": "litgpt", "container": "zip"},
            UsageError,
            "must be safetensors or pth, not 'zip'",
        ),
        ({"to": 7}, UsageError, "to= takes one name, not 7"),
    ],
)
def test_errors_of_the_functions(options: dict[str, object], kind: type[PorterError], said: str) -> None:
    with pytest.raises(kind, match=re.escape(said)):
        porter.PlanOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at_command_line", "hint"),
    [(True, "--allow-unmapped rest"), (False, 'allow_unmapped="rest"')],
)
def test_what_a_worker_refuses_is_worded_for_whoever_has_begun_the_run(
    at_command_line: bool, hint: str
) -> None:
    """A worker is a process of its own, which nobody has told of a command line."""
    from porter.containers.base import StoredTensor
    from porter.dtypes import DTYPES
    from porter.execution.cluster.tasks import Job, run_check
    from porter.layout.copies import Loop
    from porter.planning.plan import ZeroCheck
    from porter.sources.in_memory import MemorySource

    source = MemorySource({"file": bytes([0, 0, 7])})
    rest = StoredTensor("rest", DTYPES["U8"], (3,), "file", 0)
    job = Job("a run", porter.__version__, source, {"file": 3}, typed=at_command_line)
    with pytest.raises(PorterError) as refused:
        run_check(job, ZeroCheck("rest", "its elements", 0, (Loop(3, 1, 1),)), {"rest": rest})
    assert hint in str(refused.value)
    assert not wording.at_command_line()
