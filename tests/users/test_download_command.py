"""`porter download` as it is typed: what it prints, what it leaves, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FILES = {
    "README.md": b"# a model",
    "config.json": b'{"model_type": "gemma"}',
    "generation_config.json": b"{}",
    "tokenizer.model": b"\x0a" * 5_003,
    "tokenizer_config.json": b"{ }",
    "model.safetensors": b"s" * 90_001,
    "pytorch_model.bin": b"p" * 90_001,
    "gemma-2b.gguf": b"g" * 80_000,
}
FETCHED = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.model",
    "tokenizer_config.json",
]
SIZE = sum(len(FILES[name]) for name in FETCHED)
TOKEN = "hf_averysecrettokenthatnobodymaysee"
LICENCE = "https://huggingface.co/google/gemma-2b"

# Gemma 1, 1.1, CodeGemma, Gemma 2 and the text models of Gemma 3, as Google has released them.
RELEASES = [
    *("gemma-2b", "gemma-2b-it", "gemma-7b", "gemma-7b-it", "gemma-1.1-2b-it", "gemma-1.1-7b-it"),
    *("codegemma-2b", "codegemma-7b", "codegemma-7b-it", "codegemma-1.1-2b", "codegemma-1.1-7b-it"),
    *("gemma-2-2b", "gemma-2-2b-it", "gemma-2-9b", "gemma-2-9b-it", "gemma-2-27b", "gemma-2-27b-it"),
    *("gemma-3-270m", "gemma-3-270m-it", "gemma-3-1b-pt", "gemma-3-1b-it"),
]


@pytest.fixture
def model(hub: Any) -> str:
    return str(hub.server.add("google/gemma-2b", FILES))


def names(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if path.parts[0] != ".cache")


def test_the_list(hub: Any, porter: Any) -> None:
    lines = porter("download", "--list").stdout.splitlines()
    assert lines[0].split() == ["Name", "Repository", "Family", "Params"]
    listed = {line.split()[0]: line.split()[1] for line in lines[1:]}
    assert listed.items() >= {name: f"google/{name}" for name in RELEASES}.items()
    models = json.loads(porter("download", "--list", "--json").stdout)["models"]
    assert {model["alias"]: model["repo"] for model in models} == listed
    assert hub.server.log == []


@pytest.mark.parametrize("alias", ["gemma-2b", "google/gemma-2b", "hf://google/gemma-2b"])
def test_a_name_in_any_form(hub: Any, porter: Any, model: str, alias: str) -> None:
    done = porter("download", alias)
    snapshot = Path(done.stdout.strip())
    assert names(snapshot) == FETCHED, "safetensors, and never .bin beside them"
    assert f"google/gemma-2b@{model}" in done.stderr


def test_again_nothing_is_fetched(hub: Any, porter: Any, model: str) -> None:
    porter("download", "gemma-2b")
    hub.server.forget()
    again = porter("download", "gemma-2b")
    assert hub.server.file_bytes == 0
    assert "nothing, all was there" in again.stderr


def test_dry_run(hub: Any, porter: Any, model: str) -> None:
    shown = porter("download", "gemma-2b", "--dry-run").stdout
    for name in FETCHED:
        assert name in shown
    assert "README.md" not in shown and "pytorch_model.bin" not in shown
    assert "5 files, 95.03 kB" in shown and SIZE == 95_032
    assert f"to fetch 95.03 kB of google/gemma-2b@{model}" in shown
    assert hub.server.file_bytes == 0 and not hub.cache.exists()


def test_json(porter: Any, model: str) -> None:
    plan = json.loads(porter("download", "gemma-2b", "--dry-run", "--json").stdout)
    assert (plan["schema"], plan["dry_run"], plan["bytes_to_fetch"], plan["bytes_fetched"]) == (
        1,
        True,
        SIZE,
        0,
    )
    done = json.loads(porter("download", "gemma-2b", "--json").stdout)
    assert (done["repo"], done["commit"], done["bytes_fetched"]) == ("google/gemma-2b", model, SIZE)
    assert {file["name"]: (file["size"], file["status"]) for file in done["files"]} == {
        name: (len(FILES[name]), "downloaded") for name in FETCHED
    }


def test_into_a_directory(hub: Any, porter: Any, model: str, here: Path) -> None:
    done = porter("download", "gemma-2b", "-o", "mine")
    assert done.stdout.strip() == "mine"
    assert names(here / "mine") == FETCHED
    assert {(here / "mine" / name).read_bytes() for name in FETCHED} == {FILES[name] for name in FETCHED}
    hub.server.forget()
    assert "nothing, all was there" in porter("download", "gemma-2b", "-o", "mine").stderr
    assert hub.server.file_bytes == 0
    (here / "other").mkdir()
    (here / "other" / "config.json").write_text('{"mine": true}')
    assert "in the way" in porter("download", "gemma-2b", "-o", "other", code=2).stderr
    (here / "file").touch()
    assert "is a file" in porter("download", "gemma-2b", "-o", "file", code=2).stderr


def test_a_revision(hub: Any, porter: Any, model: str) -> None:
    other = hub.server.add("google/gemma-2b", {**FILES, "config.json": b"{}"}, revision="float16")
    for words in (["gemma-2b", "--revision", "float16"], ["gemma-2b@float16"], [f"gemma-2b@{other}"]):
        assert porter("download", *words).stdout.strip().endswith(other)
    assert porter("download", "gemma-2b").stdout.strip().endswith(model)


def test_include_and_exclude(porter: Any, model: str) -> None:
    def chosen(*words: str) -> list[str]:
        plan = json.loads(porter("download", "gemma-2b", "--dry-run", "--json", *words).stdout)
        return sorted(file["name"] for file in plan["files"])

    assert chosen("--include", "*.gguf") == ["gemma-2b.gguf"]
    assert chosen("--include", "*.json", "--include", "*.md", "--exclude", "gen*") == [
        "README.md",
        "config.json",
        "tokenizer_config.json",
    ]
    assert chosen("--exclude", "*.safetensors") == [name for name in FETCHED if "safetensors" not in name]
    assert "no file is left" in porter("download", "gemma-2b", "--include", "*.none", code=2).stderr


def test_quiet_says_nothing_but_the_path(porter: Any, model: str) -> None:
    done = porter("download", "gemma-2b", "--quiet")
    assert done.stderr == "" and done.stdout.strip().endswith(model)


# Refusals: each its own words, exit code, and next step.


def test_gated_without_a_token(hub: Any, porter: Any) -> None:
    hub.server.add("google/gemma-2b", FILES, gated=True)
    for command in (["download"], ["download", "--dry-run"], ["inspect"]):
        told = porter(*command, "gemma-2b", code=4).stderr
        assert "gated" in told and LICENCE in told and "`hf auth login`" in told
    assert hub.server.file_bytes == 0


def test_gated_with_a_token_that_has_no_access(hub: Any, porter: Any) -> None:
    hub.server.add("google/gemma-2b", FILES, gated=True)
    hub.server.token(TOKEN)
    for command in ("download", "inspect"):
        told = porter(command, "gemma-2b", code=4, env={"HF_TOKEN": TOKEN}).stderr
        assert "your token has no access to google/gemma-2b" in told and LICENCE in told
        assert "hf auth login" not in told
    assert hub.server.file_bytes == 0


def test_gated_with_access(hub: Any, porter: Any) -> None:
    hub.server.add("google/gemma-2b", FILES, gated=True)
    hub.server.token(TOKEN, "google/gemma-2b")
    porter("download", "gemma-2b", env={"HF_TOKEN": TOKEN})
    assert not any(request.authorized for request in hub.server.log if request.server == "storage")
    # What lies in the cache was accepted once; it is read without any token.
    hub.server.forget()
    porter("download", "gemma-2b", "--offline")
    assert hub.server.log == []


def test_a_token_that_is_none(hub: Any, porter: Any, model: str) -> None:
    told = porter("download", "gemma-2b", code=4, env={"HF_TOKEN": TOKEN}).stderr
    assert "invalid" in told and "`hf auth login`" in told


def test_a_stored_login_counts_as_a_token(hub: Any, porter: Any) -> None:
    hub.server.add("google/gemma-2b", FILES, gated=True)
    hub.server.token(TOKEN, "google/gemma-2b")
    hub.home.mkdir(parents=True)
    (hub.home / "token").write_text(TOKEN)
    porter("download", "gemma-2b")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gemma-2b@v9"], ["google/gemma-2b has no revision 'v9'", "/tree/main"]),
        (["gemma-2b", "--revision", "v9"], ["google/gemma-2b has no revision 'v9'"]),
        (["gemma-2b@a", "--revision", "b"], ["two revisions"]),
        (["google/gemma-5b"], ["there is no model google/gemma-5b on the Hub", "check the spelling"]),
        (["gemma-2bb"], ["'gemma-2bb'", "did you mean gemma-2b"]),
        (["./gemma-2b"], ["reads as a path"]),
        (["hf://gemma"], ["no address", "hf://org/name"]),
        ([], ["no model was named", "porter download --list"]),
    ],
)
def test_what_does_not_exist(porter: Any, model: str, words: list[str], said: list[str]) -> None:
    told = porter("download", *words, code=2).stderr
    for text in said:
        assert text in told


@pytest.mark.parametrize("way", ["option", "environment"])
def test_offline_and_not_there(hub: Any, porter: Any, model: str, way: str) -> None:
    words, env = (["--offline"], {}) if way == "option" else ([], {"HF_HUB_OFFLINE": "1"})
    told = porter("download", "gemma-2b", *words, code=2, env=env).stderr
    assert "offline" in told and "porter download google/gemma-2b" in told and "local directory" in told
    assert hub.server.log == []


def test_nobody_answers(hub: Any, porter: Any) -> None:
    hub.server.close()
    told = porter("download", "gemma-2b", code=1).stderr
    assert "cannot reach the Hub for google/gemma-2b" in told and "HF_ENDPOINT" in told


def test_a_full_disk(hub: Any, porter: Any) -> None:
    """The Hub tells of more than any disk holds; nothing is fetched."""
    hub.server.add("google/gemma-2b", FILES)
    for files in hub.server.repos["google/gemma-2b"].commits.values():
        files["model.safetensors"] = _Huge(files["model.safetensors"])
    told = porter("download", "gemma-2b", code=1).stderr
    assert "not enough space on the disk" in told and "needed: 1000000000.00 GB" in told
    assert "-o or HF_HOME" in told
    assert hub.server.file_bytes == 0
    # A dry run needs no room.
    assert "1000000.00 TB" in porter("download", "gemma-2b", "--dry-run").stdout


class _Huge:
    """A file of 10¹⁸ bytes, as far as its length tells."""

    class _Length(bytes):
        def __len__(self) -> int:
            return 10**18

    def __init__(self, content: Any) -> None:
        self.data, self.large, self.etag = self._Length(content.data), True, content.etag
        self.sha256, self.blob_id = content.sha256, content.blob_id


def test_wrong_bytes(hub: Any, porter: Any, model: str) -> None:
    hub.server.fault("model.safetensors", "corrupt", times=1)
    told = porter("download", "gemma-2b", code=3).stderr
    assert "model.safetensors differs from what google/gemma-2b holds" in told and "sha256" in told
    assert "run it again" in told
    snapshot = Path(porter("download", "gemma-2b").stdout.strip())
    assert (snapshot / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_disconnect_in_the_middle(hub: Any, porter: Any, model: str) -> None:
    # The client takes up a broken transfer where it ended, a few times; this one never comes through.
    hub.server.fault("model.safetensors", "disconnect")
    told = porter("download", "gemma-2b", code=1).stderr
    assert "google/gemma-2b" in told and "run it again" in told
    folder = hub.cache / "models--google--gemma-2b" / "snapshots" / model
    assert not (folder / "model.safetensors").exists(), "no unfinished file under its name"
    assert "porter download google/gemma-2b" in porter("inspect", "gemma-2b", "--offline", code=2).stderr
    hub.server.faults.clear()
    hub.server.forget()
    assert names(Path(porter("download", "gemma-2b").stdout.strip())) == FETCHED
    assert hub.server.file_bytes <= len(FILES["model.safetensors"]), "what had arrived is not fetched again"


def test_a_disconnect_that_passes(hub: Any, porter: Any, model: str) -> None:
    hub.server.fault("model.safetensors", "disconnect", times=1)
    assert names(Path(porter("download", "gemma-2b").stdout.strip())) == FETCHED


@pytest.mark.parametrize("status", ["500", "429"])
def test_the_hub_is_unwell(hub: Any, porter: Any, model: str, status: str) -> None:
    hub.server.fault("api", status)
    told = porter("download", "gemma-2b", code=1).stderr
    assert ("too many requests" if status == "429" else "status 500") in told


def test_a_repository_without_weights_of_the_usual_kind(hub: Any, porter: Any) -> None:
    hub.server.add("org/quantised", {"config.json": b"{}", "model.gguf": b"GGUF"})
    told = porter("download", "org/quantised", code=2).stderr
    assert "--include model.gguf" in told
    assert (
        "porter download org/quantised --include model.gguf"
        in porter("inspect", "org/quantised", code=5).stderr
    )
