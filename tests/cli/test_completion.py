"""What TAB offers, asked as the shells ask; and in a real bash, what it puts on the line."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from porter.cli.app import app
from porter.cli.shells import SHELLS
from porter.cli.typed_line import offers, read_line

ROOT = Path(__file__).resolve().parents[2]

Complete = Callable[[str], list[str]]


@pytest.fixture
def complete(gemma: Path, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """What is offered behind a command line, beside a tiny Gemma."""
    monkeypatch.chdir(gemma.parent)
    root = typer.main.get_command(app)
    return lambda line: [offer.text for offer in offers(root, read_line(line))]


def test_a_shell_is_answered(gemma):
    def asked(shell: str, line: str) -> str:
        more = {"_PORTER_COMPLETE": shell, "_PORTER_LINE": line, "_PORTER_BREAKS": "=:"}
        done = subprocess.run(
            [sys.executable, "-m", "porter"],
            env={"PYTHONPATH": str(ROOT), **more},
            cwd=gemma.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert asked("bash", "porter convert x --dtype=b") == "words\nbfloat16\n"
    assert asked("bash", f"porter inspect {gemma.name[:-1]}") == f"paths\n{gemma.name}\n"
    assert asked("zsh", f"porter inspect {gemma.name[:-1]}") == f"{gemma.name}/\n"
    assert asked("fish", "porter convert x --forc") == "--force\tReplace a directory that porter wrote.\n"
    assert asked("bash", "porter inspect x > ") == ""


def test_words_of_closed_sets(complete):
    assert complete("porter conv") == ["convert"]
    assert complete("porter --quiet mappings sh") == ["show"]
    assert complete("porter convert x --dtype b") == ["bfloat16"]
    assert complete("porter convert x --container p") == ["pth"]
    assert complete("porter inspect x --family gemma3_") == ["gemma3_text"]
    assert complete("porter inspect gemma-3-270") == ["gemma-3-270m", "gemma-3-270m-it"]
    assert complete("porter mappings check --against ") == ["litgpt", "transformers", "porter"]
    assert complete("porter mappings show gemma --to litgpt-") == ["litgpt-legacy"]
    assert complete("porter mappings show gemma2 --to flax") == ["flax", "flax-transposed"]
    assert complete("porter mappings show llama --to flax") == []
    assert complete("porter check --color al") == ["always"]
    assert complete("porter inspect x --family nobody") == []
    assert complete("porter konvert ") == []


def test_a_value_behind_the_equals_sign(complete):
    assert complete("porter convert x --dtype=b") == ["--dtype=bfloat16"]
    assert complete("porter convert x --to=litgpt-") == ["--to=litgpt-legacy"]
    assert complete("porter convert x --force=") == []


def test_options_are_offered_once(complete):
    assert complete("porter convert x --dry") == ["--dry-run"]
    assert "--dry-run" not in complete("porter convert x --dry-run --")
    assert "--map" in complete("porter convert x --map a.toml --")
    assert complete("porter convert x -- --dry") == []
    assert "--to" in complete("porter convert x ")


def test_the_targets_of_a_source_are_those_that_it_can_go_to(complete, gemma):
    every = complete("porter convert somebody/model --to ")
    assert "gguf" not in every
    assert {"flax-transposed", "keras", "litgpt"} <= set(every)
    own = complete("porter convert gemma-2b --to ")
    assert "litgpt" in own
    assert "flax-transposed" not in own
    here = complete(f"porter convert {gemma.name} --to ")
    assert {"hf", "litgpt", "keras"} <= set(here)
    assert "flax-transposed" not in here


def test_paths_with_what_a_shell_would_break_at(complete, gemma):
    shutil.copytree(gemma, gemma.parent / "my model")
    (gemma.parent / "my model" / "notes.txt").touch()
    assert complete("porter inspect my") == ["my model/"]
    assert complete("porter inspect my\\ mo") == ["my model/"]
    assert complete("porter inspect 'my mo") == ["my model/"]
    inside = ["my model/model.safetensors"]
    assert complete('porter inspect "my model/') == inside
    assert complete("porter convert x -o my") == ["my model/"]
    assert complete("porter convert x -o my\\ model/") == []
    assert complete("porter inspect x --config my\\ model/") == ["my model/config.json"]
    assert complete("porter verify gemma-2b my\\ model/m") == inside


@pytest.mark.parametrize(
    ("text", "words", "current", "kept"),
    [
        ("porter convert ", ("porter", "convert"), "", 0),
        ("porter 'a b' \"c\\\"d", ("porter", "a b"), 'c"d', 0),
        ("porter a\\ b\\", ("porter",), "a b", 0),
        ("porter x --to=l", ("porter", "x"), "--to=l", 5),
        ("porter '--to=l", ("porter",), "--to=l", 0),
        ("porter hf://o/m", ("porter",), "hf://o/m", 3),
        ("porter '' x", ("porter", ""), "x", 0),
    ],
)
def test_a_line_is_read_as_shells_read_it(text, words, current, kept):
    line = read_line(text, breaks="=:")
    assert (line.words, line.current, line.kept) == (words, current, kept)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_shell_is_told_is_printed_and_installed(run, shell, tmp_path):
    script = run("completion", shell).stdout
    assert f"_PORTER_COMPLETE={shell}" in script or f"_PORTER_COMPLETE {shell}" in script
    home = {"HOME": str(tmp_path / "home"), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
    settings = tmp_path / "home" / f".{shell}rc"
    settings.parent.mkdir()
    settings.write_text("alias x=y")
    for _ in range(2):
        done = run("completion", shell, "--install", env=home)
        assert done.returncode == 0, done.stderr
    wrote = Path(done.stderr.split("wrote", 1)[1].split("\n")[0].strip())
    assert wrote.read_text() == script
    lines = settings.read_text().splitlines()
    assert lines[0] == "alias x=y"
    assert len(lines) == (1 if shell == "fish" else 2), "once, and on a line of its own"
    if shutil.which(shell):
        subprocess.run([shell, "-n", wrote], check=True)


def test_an_unknown_shell_is_said(call):
    done = call("completion", "tcsh")
    assert done.returncode == 2
    assert "bash, zsh, fish" in done.stderr
    assert "porter completion --install" in call("--install-completion").stderr


Typed = Callable[[str, str], list[str]]

# How each shell is started with nothing of the user's but porter's script, and how it is told of it.
START: dict[str, tuple[list[str], str]] = {
    "bash": (
        ["bash", "--noprofile", "--rcfile", "{rc}", "-i"],
        "PS1='$ '\n{script}bind 'set bell-style none'\n",
    ),
    "zsh": (
        ["zsh", "-d", "-i"],
        "PS1='$ '; unsetopt beep; autoload -Uz compinit; compinit -u -d {rc}.dump\n{script}",
    ),
    "fish": (
        ["fish", "--no-config", "-i", "-C", "source {rc}"],
        "{script}function fish_prompt; echo -n '$ '; end\nfunction fish_greeting; end\n",
    ),
}


@pytest.fixture
def shell(request: pytest.FixtureRequest, gemma: Path, tmp_path: Path) -> Iterator[Typed]:
    """A real shell: types, presses TAB until something stands there, then Enter; what porter got."""
    script = tmp_path / "bin" / "porter"
    script.parent.mkdir()
    script.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={ROOT}\n"
        f'[ -z "$_PORTER_COMPLETE" ] || exec {sys.executable} -m porter\n'
        "printf 'GOT%s' ''; printf '<%s>' \"$@\"; printf 'END'\n"
    )
    script.chmod(0o755)
    words, told = START[request.param]
    rc = tmp_path / ".zshrc"
    rc.write_text(told.replace("{script}", SHELLS[request.param].script).replace("{rc}", str(rc)))
    if not (gemma.parent / "my model").exists():
        shutil.copytree(gemma, gemma.parent / "my model")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(gemma.parent)
        env = {"PATH": f"{script.parent}:/usr/bin:/bin", "HOME": str(gemma.parent), "TERM": "dumb"}
        env |= {"ZDOTDIR": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "LC_ALL": "C.UTF-8"}
        os.execvpe(words[0], [word.replace("{rc}", str(rc)) for word in words], env)

    def until(sign: str) -> str:
        seen, end = "", time.monotonic() + 30
        while sign not in seen and time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                seen += os.read(terminal, 65536).decode()
        assert sign in seen, seen
        return seen

    def typed(line: str, shown: str) -> list[str]:
        os.write(terminal, f"{line}\t".encode())
        until(shown)
        os.write(terminal, b"\r")
        said = until("END")
        return said.partition("GOT<")[2].partition(">END")[0].split("><")

    until("$ ")
    yield typed
    os.close(terminal)
    os.waitpid(pid, 0)


def real(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "shell",
        [
            pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}"))
            for name in names
        ],
        indirect=True,
    )


@real("bash")
def test_a_real_bash(shell):
    assert shell("porter inspect my", "model/") == ["inspect", "my model/"]
    assert shell('porter inspect "my', 'model"/') == ["inspect", "my model/"]
    assert shell("porter inspect ~/my", "model/")[1].endswith("/my model/")
    assert shell("porter convert x --to=litgpt-", "legacy") == ["convert", "x", "--to=litgpt-legacy"]
    assert shell("porter convert x --dtype=b", "float16") == ["convert", "x", "--dtype=bfloat16"]
    assert shell("porter mappings check --against l", "itgpt ") == [
        "mappings",
        "check",
        "--against",
        "litgpt",
    ]


@real("zsh", "fish")
def test_a_real_zsh_and_a_real_fish(shell):
    assert shell("porter inspect my", "model/") == ["inspect", "my model/"]
    assert shell("porter inspect ~/my", "model/")[1].endswith("/my model/")
    assert shell("porter convert x --to=litgpt-", "legacy") == ["convert", "x", "--to=litgpt-legacy"]
    assert shell("porter convert x --dtype b", "float16") == ["convert", "x", "--dtype", "bfloat16"]
    assert shell("porter mappings check --against l", "itgpt") == ["mappings", "check", "--against", "litgpt"]
