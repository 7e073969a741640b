"""Every fenced block of the README and of docs/ is run, in order, as it stands; the pages hold together.

Commands run in a directory of their own, against a Hub on the loopback that holds a tiny Gemma. What is not
run is named here, with why.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# The beginning of a command, and why it is not run here.
NOT_RUN = {
    "make ": "runs this suite, or has a target and a test of its own",
    "pip install": "tests/users/test_wheel.py installs the wheel",
    "litgpt ": "`make finetune` runs LitGPT's own commands",
    "python examples/generate.py": "tests/real runs the demonstration",
    "porter inspect demo/": "tests/real runs the demonstration",
    "porter convert demo/": "tests/real runs the demonstration",
    "porter mappings check --against": "tests/peers holds the tables against the installed frameworks",
    "porter diff ": "test_diff.py has two models that differ; the command ends with 3 there",
    "porter convert full/final": "`make finetune` makes it",
    "porter convert lora/final": "`make finetune` makes it",
    "porter download --from keras": "tests/sources/test_kaggle_download.py has a Kaggle on the loopback",
    "porter download google/gemma-2b-keras": "tests/sources/test_hub_keras.py has such a repository",
    "porter convert tuned.keras": "tests/peers/keras has Keras save one",
}
# A part of a command, and why it is not run here.
NOT_RUN_WITH = {
    "s3://": "tests/cloud and `make cluster` have buckets",
    "kaggle://": "tests/sources/test_kaggle_download.py has a Kaggle on the loopback",
    "key.p": "test_sign.py makes keys, signs and verifies",
}
# What a page takes to be there already.
BEFORE = {
    "check.md": ["porter convert gemma-2b --to litgpt -o out/"],
    "fingerprint.md": [
        "porter convert gemma-2b --to litgpt -o out-litgpt/",
        "porter convert gemma-2b --to keras -o out-keras/",
    ],
    "flax.md": ["porter convert gemma-2b --to flax -o gemma2-2b-it"],
    "keras.md": [
        "porter convert gemma-2b --to keras -o tuned",
        "cp tuned/model.weights.h5 tuned.weights.h5",
    ],
}
# Pages whose Python has tests of its own, which compare what it makes with the frameworks.
PYTHON_ELSEWHERE = {
    "README.md": "test_docs.py and test_state_dict.py, on a Gemma of full size",
    "python.md": "test_docs.py, test_python_api.py and test_state_dict.py",
    "extending.md": "tests/examples",
    "verify.md": "tests/verification",
    "fingerprint.md": "test_fingerprint.py",
    "activations.md": "the tests of models and of logits",
}


def commands_of(page: Path) -> list[str]:
    """The commands that a page shows, without prompts and remarks; what is printed is left out."""
    found = []
    for kind, text in BLOCK.findall(page.read_text("utf-8")):
        if kind == "console":
            lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
            found += [re.sub(r"\s+# .*$", "", line) for line in lines]
    return found


@pytest.fixture
def around(hub: Any, here: Path, tiny_gemma: Path) -> Path:
    """What a reader of the pages has: models on the Hub, and the files that the pages name."""
    import torch
    from safetensors.torch import load_file

    for repo in ("google/gemma-2b", "google/gemma-3-270m"):
        hub.server.add(repo, tiny_gemma)
    small = {path.name: path.read_bytes() for path in tiny_gemma.iterdir() if path.suffix != ".safetensors"}
    hub.server.add("org/name", {**small, "name-q4.gguf": b"GGUF" + bytes(64), "name-Q2.gguf": b"GGUF"})
    hub.server.add("google/gemma-2b", tiny_gemma, revision="float16") if _takes_revision(hub) else None
    state: dict[str, Any] = {}
    for shard in sorted(tiny_gemma.glob("*.safetensors")):
        state |= load_file(shard)
    torch.save(state, here / "pytorch_model.bin")
    shutil.copy(tiny_gemma / "config.json", here)
    wrapped = here / "wrapped"
    wrapped.mkdir()
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, wrapped / "pytorch_model.bin")
    shutil.copy(tiny_gemma / "config.json", wrapped)
    return here


def _takes_revision(hub: Any) -> bool:
    return "revision" in hub.server.add.__code__.co_varnames


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_as_they_stand(page: Path, around: Path, hub: Any) -> None:
    ran = 0
    bin_ = around / ".bin"
    bin_.mkdir()
    (bin_ / "porter").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m porter "$@"\n')
    (bin_ / "porter").chmod(0o755)
    env = {**hub.env, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    # `porter completion --install` writes into the settings of a shell.
    env |= {"HOME": str(around), "SHELL": "/bin/bash", "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
    for command in (*BEFORE.get(page.name, ()), *commands_of(page)):
        if command.startswith(tuple(NOT_RUN)) or any(part in command for part in NOT_RUN_WITH):
            continue
        done = subprocess.run(
            command, shell=True, cwd=around, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        ran += 1
    assert ran or page.name in ("buckets.md", "scale.md", "diff.md", "litgpt.md"), (
        "the page has commands, and none was run"
    )


def test_what_is_not_run_is_still_there() -> None:
    shown = [command for page in PAGES for command in commands_of(page)]
    for beginning in NOT_RUN:
        assert any(command.startswith(beginning) for command in shown), beginning
    for name in PYTHON_ELSEWHERE:
        page = next(page for page in PAGES if page.name == name)
        assert any(kind == "python" for kind, _ in BLOCK.findall(page.read_text("utf-8"))), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_that_are_not_run_elsewhere_are_well_formed(page: Path) -> None:
    for kind, text in BLOCK.findall(page.read_text("utf-8")):
        if kind == "python":
            compile(text, page.name, "exec")
            assert page.name in PYTHON_ELSEWHERE, "its Python is run nowhere"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target
            # The site has the pages alone.
            assert page.parent != DOCS or not target.startswith("../"), target


def test_the_sites_menu_names_pages_that_there_are() -> None:
    menu = set(re.findall(r"([\w-]+\.md)", (ROOT / "mkdocs.yml").read_text("utf-8")))
    assert menu <= {page.name for page in DOCS.glob("*.md")}
    assert len(menu) > 20


def test_the_list_of_commands_is_what_the_help_says() -> None:
    """If this fails: python docs/commands.py"""
    spec = importlib.util.spec_from_file_location("docs_commands", DOCS / "commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "commands.md").read_text("utf-8") == module.page()


_DOCTESTS = """
import doctest, json, os, shutil, sys
import porter
failed, model = {}, os.path.abspath("gemma-2b")
for name in json.loads(sys.argv[1]):
    # Each function finds the model and nothing that another has written.
    os.makedirs(os.path.join(os.path.dirname(model), "of", name))
    os.chdir(os.path.join(os.path.dirname(model), "of", name))
    shutil.copytree(model, "gemma-2b")
    shutil.copy(os.path.join(os.path.dirname(model), "key.pem"), ".")
    function = getattr(porter, name)
    tests = doctest.DocTestFinder(recurse=False).find(function, name, globs={"porter": porter})
    examples = sum(len(test.examples) for test in tests)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said = []
    for test in tests:
        runner.run(test, out=said.append)
    failed[name] = "no example" if not examples else "".join(said)
emit(failed)
"""


@pytest.mark.peer
def test_the_examples_of_the_public_functions(hub: Any, python: Any, here: Path, tiny_gemma: Path) -> None:
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric import ec

    import porter

    hub.server.add("google/gemma-2b", tiny_gemma)
    shutil.copytree(tiny_gemma, here / "gemma-2b")
    key = ec.generate_private_key(ec.SECP256R1())
    plain = pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()
    (here / "key.pem").write_bytes(key.private_bytes(*plain))
    names = [name for name in porter.__all__ if name[0].islower() and callable(getattr(porter, name))]
    assert all(">>>" in getattr(porter, name).__doc__ for name in names)
    if importlib.util.find_spec("OpenSSL") is None:
        # As in test_sign.py: the extra sign is not installed.
        names.remove("sign")
    found = python(_DOCTESTS, json.dumps(names))
    assert {name: said for name, said in found.items() if said} == {}
    assert len(found) >= 12
