"""What befalls bytes on their way from the Hub: nothing wrong is kept, nothing is given up at once, nothing
secret is shown, and what has come is not fetched twice.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import hub_server
import pytest

DATA = random.Random(7).randbytes(70_001)

# What the digest alone can tell.
LIES = {"corrupt", "other-bytes"}
KINDS = [*hub_server.KINDS, "500", "503", "429", "403"]

# Each file's outcome, in one process: starting one takes longer than all of it.
_EACH = """
import hashlib, time, traceback
from pathlib import Path
from porter.api.download import download
from porter.sources.hub import hub_retry
hub_retry._PAUSE = 0.01
for name in json.loads(sys.argv[1]):
    started = time.monotonic()
    found = {"name": name}
    try:
        result = download(f"org/{name}", include="*")
        found["sha256"] = hashlib.sha256(
            (Path(result.path) / f"{name}.safetensors").read_bytes()
        ).hexdigest()
    except PorterError as error:
        found |= {"exit": error.exit_code, "text": str(error), "debug": traceback.format_exc()}
    found["seconds"] = time.monotonic() - started
    print(json.dumps(found))
"""


def outcomes(hub: Any, kinds: list[str], times: int, *, after: str | None = None) -> dict[str, Any]:
    for kind in kinds:
        hub.server.add(f"org/{kind}", {f"{kind}.safetensors": kind.encode() + DATA, "config.json": b"{}"})
        hub.server.fault(f"{kind}.safetensors", kind, times, after)
    started = hub.start(_EACH, json.dumps(kinds), env={"HF_HUB_DOWNLOAD_TIMEOUT": "1"})
    said, errors = started.communicate(timeout=300)
    assert started.returncode == 0, errors
    # Tracebacks are among what was said.
    assert hub_server.SIGNATURE not in said + errors and "signature=" not in said + errors
    return {found["name"]: found for found in map(json.loads, said.splitlines())}


def digest(kind: str) -> str:
    return hashlib.sha256(kind.encode() + DATA).hexdigest()


def below(hub: Any) -> list[str]:
    return sorted(path.name for path in hub.cache.rglob("*") if path.is_file() and ".locks" not in path.parts)


def test_a_passing_fault_is_got_over_or_noticed(hub: Any) -> None:
    found = outcomes(hub, KINDS, 1)
    for kind in KINDS:
        if kind in LIES:
            assert found[kind]["exit"] == 3, found[kind]
        else:
            assert found[kind].get("sha256") == digest(kind), found[kind]
    assert not [name for name in below(hub) if "incomplete" in name]


def test_a_lasting_fault_leaves_no_wrong_byte_under_a_name(hub: Any) -> None:
    # A server that is slow, sends more than was asked for, or redirects for no reason but once, harms nobody.
    kinds = [kind for kind in KINDS if kind not in ("slow", "long")]
    found = outcomes(hub, kinds, 1_000)
    for kind in kinds:
        assert found[kind]["exit"] == (3 if kind in LIES else 1), found[kind]
        assert "licence" not in found[kind]["text"]
    assert "refuses to send" in found["expired"]["text"]
    assert "login page" in found["html"]["text"]
    snapshots = [path.name for path in hub.cache.rglob("*.safetensors")]
    assert snapshots == []


def test_a_pause_that_is_asked_for_is_kept_up_to_a_minute(hub: Any) -> None:
    found = outcomes(hub, ["503"], 1, after="2")["503"]
    assert found["sha256"] == digest("503") and found["seconds"] >= 2
    hub.server.faults.clear()
    found = outcomes(hub, ["429"], 1, after="3600")["429"]
    assert found["exit"] == 1 and "3600 seconds" in found["text"] and found["seconds"] < 30


def big(hub: Any) -> bytes:
    data = random.Random(11).randbytes(3_000_003)
    hub.server.add("org/model", {"config.json": b"{}", "model.safetensors": data})
    return data


def stopped(hub: Any, by: int, to: Path | None) -> None:
    """A download ended in the middle, some chunks of which have come."""
    hub.server.fault("model.safetensors", "slow")
    code = (
        "from porter.api.download import download\nfrom porter.sources.hub import hub_transfer\n"
        "hub_transfer.CHUNK = 1 << 18\ndownload('org/model', to=sys.argv[1] or None)"
    )
    started = hub.start(code, str(to or ""))
    where = to if to is not None else hub.cache
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 0 for path in where.rglob("*.incomplete")):
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    started.send_signal(by)
    started.communicate(timeout=30)
    assert started.returncode != 0
    hub.server.faults.clear()
    hub.server.forget()


@pytest.mark.parametrize("into", ["cache", "directory"])
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_stopped_download_goes_on(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, into: str, by: int
) -> None:
    monkeypatch.setattr(hub_server, "_PAUSE", 0.01)
    data = big(hub)
    to = tmp_path / "out" if into == "directory" else None
    stopped(hub, by, to)
    result = hub.download("org/model", **({"to": to} if to else {}))
    assert (Path(result["path"]) / "model.safetensors").read_bytes() == data
    assert hub.server.file_bytes < len(data), "what had come was fetched again"
    assert not list((to or hub.cache).rglob("*.incomplete"))
    hub.server.forget()
    again = hub.download("org/model", **({"to": to} if to else {}))
    assert again["bytes_to_fetch"] == hub.server.file_bytes == 0


@pytest.mark.parametrize("content", ["right", "wrong", "longer"])
def test_what_killed_clients_have_left_is_used_if_it_is_right_and_removed(hub: Any, content: str) -> None:
    data = DATA * 40
    hub.server.add("org/model", {"config.json": b"{}", "model.safetensors": data})
    blobs = hub.cache / "models--org--model" / "blobs"
    blobs.mkdir(parents=True)
    left = {"right": data[:2_000_000], "wrong": b"x" + data[1:2_000_000], "longer": data + b"more"}[content]
    name = hashlib.sha256(data).hexdigest()
    (blobs / f"{name}.0a1b2c3d.incomplete").write_bytes(left)
    (blobs / f"{name}.incomplete").write_bytes(b"")
    small = hashlib.sha1(b"blob 2\0{}").hexdigest()
    (blobs / f"{small}.0a1b2c3d.incomplete").write_bytes(b"{")
    result = hub.download("org/model")
    assert (Path(result["path"]) / "model.safetensors").read_bytes() == data
    assert not list(blobs.glob("*.incomplete"))
    fetched = {"right": len(data) - 2_000_000, "wrong": 2 * len(data) - 2_000_000, "longer": len(data)}
    assert hub.server.file_bytes == fetched[content] + len(b"{}")


@pytest.mark.parametrize("into", ["cache", "directory"])
def test_two_downloads_at_once_both_end_well(hub: Any, tmp_path: Path, into: str) -> None:
    hub.server.add("org/model", {"config.json": b"{}", "model.safetensors": DATA})
    hub.server.fault("model.safetensors", "slow", 2)
    command = ["download", "org/model", *(["-o", str(tmp_path / "out")] if into == "directory" else [])]
    code = (
        "import runpy\nsys.argv = ['porter', *sys.argv[1:]]\nrunpy.run_module('porter', run_name='__main__')"
    )
    running = [hub.start(code, *command) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    places = list((tmp_path / "out" if into == "directory" else hub.cache).rglob("model.safetensors"))
    assert [place.read_bytes() for place in places] == [DATA]
    assert not [path for path in tmp_path.rglob("*") if ".porter" in path.name]


def test_the_listing_is_asked_for_again(hub: Any) -> None:
    hub.server.add("org/model", {"config.json": b"{}", "model.safetensors": DATA})
    hub.server.fault("api", "503", 2)
    assert "error" not in hub.download("org/model")
