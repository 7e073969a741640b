"""`porter.download` against a Hub on the loopback: what is fetched, proved, never done twice."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

CONFIG = b'{"model_type": "gemma"}'
SHARDS = {
    f"model-0000{number}-of-00002.safetensors": bytes([number]) * (90_000 + number) for number in (1, 2)
}
INDEX = json.dumps({"weight_map": {f"t{n}": name for n, name in enumerate(SHARDS)}}).encode()
FILES = {
    "README.md": b"# a model",
    "config.json": CONFIG,
    "generation_config.json": b"{}",
    "model.safetensors.index.json": INDEX,
    "tokenizer.model": b"\x0a" * 5_003,
    "tokenizer_config.json": b"{ }",
    **SHARDS,
}
FETCHED = sorted(FILES.keys() - {"README.md"})
SIZE = sum(len(FILES[name]) for name in FETCHED)
BIG = "model-00002-of-00002.safetensors"


@pytest.fixture
def model(hub: Any) -> str:
    """The commit of org/model."""
    return str(hub.server.add("org/model", FILES))


def statuses(result: Any) -> set[str]:
    return {file["status"] for file in result["files"]}


def contents(directory: str | Path) -> dict[str, bytes]:
    root = Path(directory)
    files = (path for path in root.rglob("*") if path.is_file())
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in found.items() if not name.startswith(".cache/")}


# What is fetched, and how often.


def test_a_download_brings_the_files_of_a_checkpoint_into_the_hubs_cache(hub: Any, model: str) -> None:
    result = hub.download("org/model")
    assert (result["repo"], result["revision"], result["commit"]) == ("org/model", "main", model)
    assert Path(result["path"]) == hub.cache / "models--org--model" / "snapshots" / model
    assert contents(result["path"]) == {name: FILES[name] for name in FETCHED}
    assert sorted(file["name"] for file in result["files"]) == FETCHED
    assert statuses(result) == {"downloaded"}
    assert result["bytes_total"] == result["bytes_fetched"] == SIZE == hub.server.file_bytes
    digests = {file["name"]: file["sha256"] for file in result["files"]}
    assert digests[BIG] == hashlib.sha256(FILES[BIG]).hexdigest()
    assert digests["config.json"] is None


def test_a_second_download_fetches_no_byte(hub: Any, model: str) -> None:
    hub.download("org/model")
    hub.server.forget()
    again = hub.download("org/model")
    assert statuses(again) == {"cached"}
    assert again["bytes_fetched"] == again["bytes_to_fetch"] == 0
    assert [request.path for request in hub.server.log] == ["/api/models/org/model?blobs=true"]


def test_another_tool_finds_the_revision_offline(hub: Any, model: str) -> None:
    hub.download("org/model")
    found = hub.python(
        "from huggingface_hub import snapshot_download\n"
        "emit(snapshot_download('org/model', local_files_only=True, allow_patterns=['config.json']))"
    )
    assert Path(found).name == model


def test_a_file_that_lacks_bytes_in_the_cache_is_fetched_again_alone(hub: Any, model: str) -> None:
    path = Path(hub.download("org/model")["path"]) / BIG
    path.resolve().write_bytes(FILES[BIG][:-1])
    hub.server.forget()
    result = hub.download("org/model")
    assert path.read_bytes() == FILES[BIG]
    assert hub.server.file_bytes == result["bytes_fetched"] == len(FILES[BIG])


def test_a_new_commit_fetches_what_changed(hub: Any, model: str) -> None:
    hub.download("org/model")
    changed = FILES | {"config.json": b'{"model_type": "gemma2"}'}
    commit = hub.server.add("org/model", changed)
    hub.server.forget()
    result = hub.download("org/model")
    assert result["commit"] == commit != model
    assert hub.server.file_bytes == result["bytes_fetched"] == len(changed["config.json"])
    assert contents(result["path"])["config.json"] == changed["config.json"]


@pytest.mark.parametrize("way", ["org/model@v2", "hf://org/model@v2"])
def test_a_revision_is_a_tag_or_a_commit(hub: Any, model: str, way: str) -> None:
    commit = hub.server.add("org/model", {**FILES, "config.json": b"{}"}, revision="v2")
    assert hub.download(way, dry_run=True)["commit"] == commit
    assert hub.download("org/model", revision="v2", dry_run=True)["commit"] == commit
    assert hub.download(f"org/model@{model}", dry_run=True)["commit"] == model
    assert hub.download("org/model@v2", revision="v3")["exit"] == 2


def test_an_alias_names_a_repository_even_beside_a_directory_of_that_name(hub: Any, tmp_path: Path) -> None:
    hub.server.add("google/gemma-2b", FILES)
    out = tmp_path / "gemma-2b"
    assert hub.download("gemma-2b", out=out)["repo"] == "google/gemma-2b"
    assert statuses(hub.download("gemma-2b", out=out)) == {"cached"}


def test_progress_tells_every_byte_once(hub: Any, model: str) -> None:
    told = hub.python(
        "from porter.api.download import download\n"
        "told = {}\n"
        "def progress(name, count): told[name] = told.get(name, 0) + count\n"
        "download('org/model', progress=progress)\n"
        "emit(told)"
    )
    assert told == {name: len(FILES[name]) for name in FETCHED}


# Patterns.


def test_include_and_exclude_decide_instead_of_the_default(hub: Any) -> None:
    hub.server.add("org/model", {**FILES, "model.gguf": b"GGUF"})
    assert [f["name"] for f in hub.download("org/model", include=["*.gguf"])["files"]] == ["model.gguf"]
    less = hub.download("org/model", exclude=["*.safetensors"])
    assert BIG not in {file["name"] for file in less["files"]}
    assert hub.download("org/model", include=["*.nothing"])["exit"] == 2


# A dry run.


def test_weights_of_other_frameworks_are_left_and_named(hub: Any) -> None:
    others = {
        "pytorch_model.bin": b"bin",
        "flax_model.msgpack": b"flax",
        "tf_model.h5": b"tf",
        "q/x-Q4.gguf": b"g",
    }
    hub.server.add("org/several", FILES | others)
    result = hub.download("org/several")
    assert sorted(file["name"] for file in result["files"]) == FETCHED
    assert sorted(result["left"]) == sorted(others)
    said = hub.porter("download", "org/several", "--dry-run")
    assert "pytorch_model.bin" in said.stderr and "--include takes them" in said.stderr
    # Negative controls: nothing else is there; and what was asked for by a pattern is all that is wanted.
    hub.server.add("org/model", FILES)
    assert hub.download("org/model")["left"] == []
    assert "left" not in hub.porter("download", "org/model", "--dry-run").stderr
    assert hub.download("org/several", include=["*.bin"])["left"] == []


def test_a_dry_run_says_what_would_be_fetched_and_fetches_nothing(hub: Any, model: str) -> None:
    result = hub.download("org/model", dry_run=True)
    assert statuses(result) == {"to download"}
    assert (result["bytes_to_fetch"], result["bytes_fetched"]) == (SIZE, 0)
    assert hub.server.file_bytes == 0 and not hub.cache.exists()
    hub.download("org/model", include=["config.json"])
    after = {f["name"]: f["status"] for f in hub.download("org/model", dry_run=True)["files"]}
    assert after.pop("config.json") == "cached"
    assert set(after.values()) == {"to download"}


# Into a directory.


def test_into_a_directory(hub: Any, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = hub.download("org/model", out=out)
    assert result["path"] == str(out)
    assert contents(out) == {name: FILES[name] for name in FETCHED}
    hub.server.forget()
    assert hub.download("org/model", out=out)["bytes_fetched"] == hub.server.file_bytes == 0


def test_a_file_cut_short_in_a_directory_is_fetched_again(hub: Any, model: str, tmp_path: Path) -> None:
    hub.download("org/model", out=tmp_path / "out")
    (tmp_path / "out" / BIG).write_bytes(b"short")
    hub.server.forget()
    hub.download("org/model", out=tmp_path / "out")
    assert contents(tmp_path / "out")[BIG] == FILES[BIG]
    assert hub.server.file_bytes == len(FILES[BIG])


def test_a_directory_takes_from_the_cache_what_is_there(hub: Any, model: str, tmp_path: Path) -> None:
    hub.download("org/model")
    hub.server.forget()
    result = hub.download("org/model", out=tmp_path / "out")
    assert contents(tmp_path / "out") == {name: FILES[name] for name in FETCHED}
    assert statuses(result) == {"cached"} and hub.server.file_bytes == 0


def test_a_file_of_ones_own_is_never_overwritten(hub: Any, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_bytes(b'{"mine": true}')
    result = hub.download("org/model", out=out)
    assert (result["error"], result["exit"]) == ("UsageError", 2)
    assert contents(out) == {"config.json": b'{"mine": true}'}
    # The Hub's own content, put there by hand, is no stranger.
    (out / "config.json").write_bytes(CONFIG)
    (out / BIG).write_bytes(FILES[BIG])
    hub.server.forget()
    hub.download("org/model", out=out)
    assert contents(out) == {name: FILES[name] for name in FETCHED}
    assert hub.server.file_bytes == SIZE - len(CONFIG) - len(FILES[BIG])


# Digests.


@pytest.mark.parametrize("name", [BIG, "config.json"])
@pytest.mark.parametrize("into", ["cache", "directory"])
def test_wrong_bytes_of_the_right_length_are_refused_and_removed(
    hub: Any, model: str, tmp_path: Path, name: str, into: str
) -> None:
    where = {"to": tmp_path / "out"} if into == "directory" else {}
    hub.server.fault(name, "corrupt", times=1)
    result = hub.download("org/model", **where)
    assert (result["error"], result["exit"]) == ("DifferenceError", 3)
    assert name in result["text"]
    root = tmp_path / "out" if where else hub.cache / "models--org--model" / "snapshots" / model
    assert not (root / name).exists()
    again = hub.download("org/model", **where)
    assert contents(again["path"]) == {file: FILES[file] for file in FETCHED}
    assert {f["name"]: f["status"] for f in again["files"]}[name] == "downloaded"


def test_a_run_stopped_before_the_digest_was_compared_is_caught_by_the_next(hub: Any, model: str) -> None:
    hub.download("org/model")
    folder = hub.cache / "models--org--model"
    blob = folder / "blobs" / hashlib.sha256(FILES[BIG]).hexdigest()
    blob.write_bytes(b"!" * len(FILES[BIG]))
    assert statuses(hub.download("org/model")) == {"cached"}, "what is present is not hashed again"
    (folder / ".porter-unverified").mkdir()
    (folder / ".porter-unverified" / blob.name).touch()
    assert hub.download("org/model", offline=True)["exit"] == 2
    assert hub.download("org/model")["exit"] == 3
    hub.download("org/model")
    assert blob.read_bytes() == FILES[BIG]
    assert not (folder / ".porter-unverified").exists()


# Offline.


@pytest.mark.parametrize("way", [{"offline": True}, {"env": {"HF_HUB_OFFLINE": "1"}}])
def test_offline_uses_the_cache_and_never_the_network(hub: Any, model: str, way: Any, tmp_path: Path) -> None:
    missing = hub.download("org/model", **way)
    assert (missing["error"], missing["exit"]) == ("UsageError", 2)
    assert "offline" in missing["text"]
    hub.download("org/model")
    hub.server.forget()
    there = hub.download("org/model", **way)
    assert there["commit"] == model and statuses(there) == {"cached"}
    copied = hub.download("org/model", out=tmp_path / "out", **way)
    assert contents(copied["path"]) == {name: FILES[name] for name in FETCHED}
    assert hub.server.log == []


def test_offline_does_not_take_a_part_for_the_whole(hub: Any, model: str) -> None:
    hub.download("org/model", exclude=[BIG])
    assert hub.download("org/model", offline=True)["exit"] == 2
    assert hub.download("org/model", include=["config.json"], offline=True)["bytes_total"] == len(CONFIG)


# The disk.


def test_the_disk_is_asked_before_the_first_byte(hub: Any, model: str) -> None:
    margin = 128 << 20
    result = hub.download("org/model", free=SIZE + margin - 1)
    assert (result["error"], result["exit"]) == ("PorterError", 1)
    assert "needed" in result["text"] and "free" in result["text"]
    assert hub.server.file_bytes == 0
    assert "error" not in hub.download("org/model", free=SIZE + margin)
    # What is cached needs no room.
    assert "error" not in hub.download("org/model", free=0)


# An interrupt.


@pytest.mark.parametrize("into", ["cache", "directory"])
def test_an_interrupt_leaves_no_unfinished_file_under_its_name(hub: Any, tmp_path: Path, into: str) -> None:
    data = b"s" * 40_000_000
    hub.server.add("org/model", {"config.json": CONFIG, "model.safetensors": data})
    hub.server.fault("model.safetensors", "slow")
    to = tmp_path / "out" if into == "directory" else None
    code = "from porter.api.download import download\ndownload('org/model', out=sys.argv[1] or None)"
    started = hub.start(code, str(to or ""))
    while not any(request.path.endswith("config.json") for request in hub.server.log):
        time.sleep(0.05)
    time.sleep(0.5)
    started.send_signal(signal.SIGINT)
    # Sent slowly, the rest would take three minutes.
    _, said = started.communicate(timeout=20)
    assert started.returncode != 0 and "KeyboardInterrupt" in said
    found = contents(to or hub.cache / "models--org--model" / "snapshots")
    assert {Path(name).name for name in found} == {"config.json"}
    hub.server.faults.clear()
    again = hub.download("org/model", out=to) if to else hub.download("org/model")
    assert contents(again["path"])["model.safetensors"] == data
