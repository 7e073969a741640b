"""The house rules that a test can keep: which package imports which, and which commands import torch."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import porter
from tests.tiny_llama import CONFIG, SHAPES

ROOT = Path(porter.__file__).parent

# Each imports only from those before it.
ORDER = [
    *("wording", "untrusted", "facts", "errors", "reading", "system", "dtypes", "layout", "values"),
    *("sources",),
    *("containers", "tables", "config", "tokenizers", "recognition", "planning", "execution", "models"),
    *("verification", "reporting", "api", "cli"),
]
# The front doors: they only open what lies behind.
DOORS = {"__init__", "__main__"}


def package_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree):
    """The parts of porter that a module imports, anywhere in it and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "porter" and len(parts) > 1 and parts[1] != "__version__":
                yield parts[1], node.lineno


def against_the_order(path, tree):
    own = package_of(path)
    return [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for other, line in imported(tree)
        if other not in ORDER or ORDER.index(other) > ORDER.index(own)
    ]


def test_data_walks_one_way():
    modules = [path for path in sorted(ROOT.rglob("*.py")) if package_of(path) not in DOORS]
    assert {package_of(path) for path in modules} == set(ORDER)
    wrong = [line for path in modules for line in against_the_order(path, ast.parse(path.read_text("utf-8")))]
    assert wrong == []


def test_a_step_backwards_is_seen():
    """Negative control."""
    path = ROOT / "layout" / "parse.py"
    for text in (
        "from porter.tables import bind",
        "def f():\n    import porter.cli.app",
        "from porter import api",
    ):
        assert against_the_order(path, ast.parse(text)) != []
    assert against_the_order(path, ast.parse("from porter.errors import PorterError")) == []


def modules_read(tree):
    """The modules and names of porter that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "porter":
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def circles(imports):
    """The modules that import themselves through others, of `imports` by module."""
    left = dict(imports)
    while free := {name for name, wanted in left.items() if not wanted & left.keys() - {name}}:
        left = {name: wanted for name, wanted in left.items() if name not in free}
    return sorted(left)


def test_no_modules_import_each_other():
    paths = [path for path in ROOT.rglob("*.py") if path.name != "__init__.py"]
    names = {".".join(("porter", *path.relative_to(ROOT).with_suffix("").parts)): path for path in paths}
    imports = {
        name: {other for other in modules_read(ast.parse(path.read_text("utf-8"))) if other in names}
        for name, path in names.items()
    }
    assert sum(map(len, imports.values())) > 400
    assert circles(imports) == []


def test_a_circle_is_seen():
    """Negative control."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == ["a", "b", "c", "d"]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def weights():
    """A Llama of one layer in Hugging Face's names: two heads of 4 over one kv head, every size different."""
    return {name: np.full(shape, number, np.float32) for number, (name, shape) in enumerate(SHAPES.items())}


# What is imported is told on the last line of stdout, whatever the command printed and however it ended.
PROGRAM = """
import json, sys
from porter.cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as done:
    code = done.code or 0
print()
print(json.dumps([code, "torch" in sys.modules]))
"""


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "llama"
    folder.mkdir()
    save_file(weights(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return folder


def porter_command(*args):
    """The exit code of a command, and whether it imported torch."""
    environment = {**os.environ, "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert ran.returncode == 0, ran.stderr
    code, torch = json.loads(ran.stdout.splitlines()[-1])
    assert code == 0, ran.stderr
    return torch


def test_no_torch_for_help_inspect_and_conversions_made_of_extents(source, tmp_path):
    assert not porter_command("--help")
    assert not porter_command("convert", "--help")
    assert not porter_command("inspect", source)
    assert not porter_command("inspect", source, "--json")
    assert not porter_command("convert", source, "--to", "litgpt", "--dry-run")
    assert not porter_command("convert", source, "--to", "litgpt", "-o", tmp_path / "lit")
    assert not porter_command("convert", tmp_path / "lit", "--to", "hf", "-o", tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").is_file()


def test_a_live_module_does_need_torch(source, tmp_path):
    """Negative control: the check sees torch where it is needed. Values are computed without it."""
    cast = ("convert", source, "--to", "litgpt", "--dtype", "bfloat16", "-o")
    assert not porter_command(*cast, tmp_path / "lit")
    assert porter_command(*cast, tmp_path / "live", "--target-model", "litgpt")
