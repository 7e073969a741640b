"""The wheel, made from the sdist, in a fresh environment away from the checkout: commands and a conversion.

The heavy packages are lent to that environment by path; porter itself comes from the wheel alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _python(code: str, *arguments: str | Path, cwd: Path) -> str:
    """What the last line says that a piece of Python prints."""
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    code = "import sys; from hatchling.build import build_sdist; print(build_sdist(sys.argv[1]))"
    return out / _python(code, out, cwd=ROOT)


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    source = sdist.parent / sdist.name.removesuffix(".tar.gz")
    return sdist.parent / _python(code, sdist.parent, cwd=source)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment with the wheel in it."""
    venv = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run([str(word) for word in pip], check=True, capture_output=True)
    packages = next((venv / "lib").glob("python*/site-packages"))
    # A path file that is found by way of a path file is not run, so an editable porter stays out.
    (packages / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python.parent


@pytest.fixture
def run(environment: Path, tmp_path: Path):
    here = tmp_path / "away"
    here.mkdir()
    dropped = ("PYTHON", "VIRTUAL_ENV", "HF_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}

    def call(command: str, *arguments: str | Path, **more: str) -> str:
        done = subprocess.run(
            [environment / command, *map(str, arguments)],
            cwd=here,
            env={**env, "HF_HOME": str(tmp_path / "hf"), **more},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    return call


def test_the_tables_are_in_both(sdist: Path, wheel: Path) -> None:
    tables = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mappings").rglob("*.toml")}
    assert "mappings/decoder/litgpt.toml" in tables
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert tables <= names and {"README.md", "LICENSE"} <= names
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    assert {f"porter/{table}" for table in tables} <= shipped
    assert "porter/py.typed" in shipped
    assert not any(name.startswith(("tests", "mappings", "benchmarks")) for name in shipped)


def test_it_is_the_wheel_that_runs(run, environment: Path) -> None:
    where = run(
        "python",
        "-c",
        "import porter, porter.tables.catalogue as c; print(porter.__file__, c.mappings_root())",
    )
    for path in where.split():
        assert Path(path).is_relative_to(environment.parent)


@pytest.mark.parametrize("command", ["porter", "weight-porter"])
def test_the_commands(run, command: str) -> None:
    assert re.fullmatch(r"porter \d+\.\d+\S*\n", run(command, "--version"))
    listed = run(command, "mappings", "ls")
    for family in ("gemma", "gemma2", "gemma3_text", "llama", "gpt_neox"):
        assert re.search(rf"^{family} +hf ", listed, re.MULTILINE)


@pytest.mark.peer
def test_a_conversion(run, tiny_gemma: Path, tmp_path: Path) -> None:
    run("porter", "convert", tiny_gemma, "--to", "litgpt", "-o", tmp_path / "out", "--target-model", "porter")
    run("porter", "convert", tmp_path / "out", "--to", "hf", "-o", tmp_path / "back")
    found = json.loads(run("porter", "inspect", tmp_path / "back", "--json"))
    assert (found["family"], found["dialect"], len(found["tensors"])) == ("gemma", "hf", 29)
    assert json.loads((tmp_path / "out" / "porter-receipt.json").read_text())["to"] == "litgpt"


@pytest.mark.parametrize("command", ["porter", "weight-porter"])
def test_what_is_completed(run, command: str) -> None:
    def completed(line: str) -> list[str]:
        return run(command, _PORTER_COMPLETE="bash", _PORTER_LINE=f"{command} {line}").split()[1:]

    assert {"download", "inspect", "convert", "mappings", "doctor"} <= set(completed(""))
    assert completed("dow") == ["download"]
    assert "--dry-run" in completed("convert --d")
