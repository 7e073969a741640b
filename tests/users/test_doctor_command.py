"""`porter doctor`: what the machine offers, and of a token only that there is one."""

from __future__ import annotations

import fcntl
import json
import platform
import shutil
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

import pytest

from porter import __version__

TOKEN = "hf_averysecrettokenthatnobodymaysee"


def lines(text: str) -> dict[str, str]:
    """The report by its left column."""
    width = text.splitlines()[0].index(__version__)
    return {line[:width].strip(): line[width:].strip() for line in text.splitlines()}


def test_what_it_shows(hub: Any, porter: Any, here: Path) -> None:
    shown = lines(porter("doctor").stdout)
    assert shown["porter"] == __version__
    assert shown["python"].startswith(platform.python_version())
    for package in ("torch", "safetensors", "huggingface_hub", "typer"):
        assert shown[package] == version(package)
    assert shown["peer litgpt"] == version("litgpt")
    assert shown["extra gguf"] == "installed"
    assert shown["hub cache"] == str(hub.cache)
    assert shown["hub"] == hub.server.endpoint
    assert shown["token"].startswith("none") and "hf auth login" in shown["token"]
    assert shown["disk"].startswith(f"{here}: ") and shown["disk"].endswith(" free")
    assert shown["blocks"].split(" bytes, ")[1] in ("can be shared", "cannot be shared")
    assert hub.server.log == []
    assert list(here.iterdir()) == [], "what the file system is tried with is gone again"


@pytest.mark.parametrize("way", ["environment", "login"])
def test_a_token_is_there_but_never_shown(hub: Any, porter: Any, way: str) -> None:
    env = {"HF_TOKEN": TOKEN} if way == "environment" else {}
    if way == "login":
        hub.home.mkdir()
        (hub.home / "token").write_text(TOKEN)
    # The `porter` fixture looks for the token's text in all that is printed.
    assert lines(porter("doctor", env=env).stdout)["token"] == "present"
    found = json.loads(porter("doctor", "--json", env=env).stdout)
    assert found["token"] is True
    assert TOKEN[3:20] not in json.dumps(found)


def test_json(porter: Any, here: Path) -> None:
    found = json.loads(porter("doctor", "--json").stdout)
    assert (found["schema"], found["porter"], found["token"]) == (1, __version__, False)
    assert found["packages"]["torch"] == version("torch")
    assert found["extras"].items() >= {"gguf": True}.items()
    named = set(metadata("weight-porter").get_all("Provides-Extra"))
    assert set(found["extras"]) == named, "what `pip install 'weight-porter[…]'` knows"
    disk = found["file_system"]
    assert disk["path"] == str(here) and disk["writable"] is True and disk["block"] >= 512
    assert disk["free"] == pytest.approx(shutil.disk_usage(here).free, rel=0.1)


def test_the_file_system_at_a_path(porter: Any, tmp_path: Path) -> None:
    """Where an output would be made: the nearest directory that exists."""
    (tmp_path / "there").mkdir()
    found = json.loads(porter("doctor", tmp_path / "there" / "not" / "yet", "--json").stdout)
    assert found["file_system"]["path"] == str(tmp_path / "there")


def test_offline_is_said(porter: Any) -> None:
    assert lines(porter("doctor", "--offline").stdout)["hub"].endswith(" (offline)")
    assert lines(porter("doctor", env={"HF_HUB_OFFLINE": "1"}).stdout)["hub"].endswith(" (offline)")


def test_what_killed_runs_left_is_listed_and_removed(porter: Any, here: Path) -> None:
    """An unfinished run, an output half removed, one moved aside, one in use; a directory of the user's."""
    for name in (".a.porter-0123456789ab", ".b.porter-gone-0123456789ab", ".c.porter-old-0123456789ab"):
        (here / name).mkdir()
        (here / name / "weights").write_bytes(bytes(5000))
    (here / ".a.porter-0123456789ab" / ".porter-journal").write_text("")
    (here / ".c.porter-old-0123456789ab" / "porter-receipt.json").write_text("{}")
    (here / ".d.porter-new-0123456789ab").mkdir()
    (here / ".d.porter-mine").mkdir()
    (here / ".e.porter-0123456789ab").mkdir()
    with (here / ".e.porter-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = json.loads(porter("doctor", "--json").stdout)["left_behind"]
        assert [(Path(one["output"]).name, one["what"], one["in_use"]) for one in found] == [
            ("a", "an unfinished conversion", False),
            ("b", "an output that was replaced", False),
            ("c", "an output that was replaced", False),
            ("d", "a directory that porter did not write", False),
            ("e", "an unfinished output", True),
        ]
        assert all(one["nbytes"] >= 5000 for one in found[:3])
        shown = porter("doctor")
        assert shown.stdout.count("left behind") == 5 and "8.19 kB, in use" not in shown.stdout
        assert "doctor --clean" in shown.stderr
        cleaned = porter("doctor", "--clean")
    assert sorted(path.name for path in here.iterdir()) == [
        ".d.porter-mine",
        ".d.porter-new-0123456789ab",
        ".e.porter-0123456789ab",
        ".e.porter-lock",
        "c",
    ]
    assert "is put back" in cleaned.stderr and "another porter is writing" in cleaned.stderr
    assert (here / "c" / "weights").exists()
