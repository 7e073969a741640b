"""The real `kagglehub` against a Kaggle on the loopback: real requests, no word of what it prints.

The client can be pointed at one port only (KAGGLE_API_ENVIRONMENT=TEST), where it prints the token.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from porter.config.write import dump_config, write_config
from porter.tables import load_families
from porter.tables.bind import bind_dialect

PORT = 7777
HANDLE = "kaggle://keras/gemma/keras/gemma_2b_en"
WELCOME, STRANGER, WRONG = "KGAT_dummywelcome", "KGAT_dummystranger", "KGAT_dummywrong"

importlib.import_module("kagglehub")


class Kaggle(ThreadingHTTPServer):
    daemon_threads = True
    # A port that was in use a moment ago is free.
    allow_reuse_address = True

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.calls: list[str] = []
        super().__init__(("127.0.0.1", PORT), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", PORT


class _Handler(BaseHTTPRequestHandler):
    server: Kaggle

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def reply(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, message: str) -> None:
        self.reply(status, json.dumps({"code": status, "message": message}).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        what = self.path.rsplit("/", 1)[-1]
        self.server.calls.append(what)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token == WRONG:
            return self.refuse(401, "Unauthenticated")
        if token != WELCOME:
            return self.refuse(403, "Permission 'models.get' was denied")
        if asked["modelSlug"] != "gemma" or asked.get("versionNumber", 3) != 3:
            return self.refuse(404, "Not found")
        if what == "GetModelInstance":
            return self.reply(200, b'{"versionNumber": 3}')
        if what == "ListModelInstanceVersionFiles":
            names = [{"name": name} for name in self.server.files]
            return self.reply(200, json.dumps({"files": names, "nextPageToken": ""}).encode())
        data = self.server.files[asked["path"]]
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        return self.reply(200, data, "application/octet-stream", x_goog_hash=f"md5={md5}")


def preset(folder: Path) -> dict[str, bytes]:
    """The files of a tiny preset."""
    import h5py

    family = load_families()["gemma"]
    neutral = {name: item.neutral for name, item in family.canonical.hyperparameters.items()}
    sizes = {**neutral, **family.canonical.example, "context_length": 8192, "rope_theta": 10000.0}
    dialect = family.dialect("keras")
    shapes = {t.name: t.shape for t in bind_dialect(dialect, family.canonical, sizes)}
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith("embedding/vars/1")}
    folder.mkdir()
    with h5py.File(folder / "w", "w") as file:
        for number, (name, shape) in enumerate(shapes.items()):
            file[name] = np.full(shape, number, np.float32)
    config = write_config(dialect, family.canonical, sizes, shapes=shapes, weights_dtype="float32")
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    return {
        "config.json": dump_config(config, "config.json"),
        "metadata.json": json.dumps({"parameter_count": count}).encode(),
        "model.weights.h5": (folder / "w").read_bytes(),
        "assets/notes.txt": b"\x0a" * 997,
    }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Kaggle]:
    with FileLock(Path(tempfile.gettempdir()) / "porter-kaggle-7777.lock"):
        try:
            kaggle = Kaggle(preset(tmp_path / "preset"))
        except OSError as error:
            pytest.skip(f"port {PORT}, the only one that kagglehub can be pointed at, is taken: {error}")
        threading.Thread(target=kaggle.serve_forever, args=(0.02,), daemon=True).start()
        yield kaggle
        kaggle.shutdown()
        kaggle.server_close()


@pytest.fixture
def porter(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("KAGGLE", "HF_"))}
    env |= {
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "KAGGLEHUB_CACHE": str(tmp_path / "cache"),
        "KAGGLE_API_ENVIRONMENT": "TEST",
        "NO_PROXY": "localhost",
        "no_proxy": "localhost",
    }

    def run(*arguments: str, code: int = 0, token: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "porter", *arguments],
            env={**env, **({"KAGGLE_API_TOKEN": token} if token else {})},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "KGAT_dummy" not in done.stdout + done.stderr, "the client prints the token in this mode"
        return done

    return run


def test_from_kaggle_to_a_checkpoint_of_another_framework(
    server: Kaggle, porter: Any, tmp_path: Path
) -> None:
    asked = porter("inspect", HANDLE, code=2).stderr
    assert f"porter download {HANDLE}" in asked and server.calls == []

    done = porter("download", "--from", "keras", "gemma-2b", token=WELCOME)
    folder = tmp_path / "cache" / "models" / "keras" / "gemma" / "keras" / "gemma_2b_en" / "3"
    assert done.stdout == f"{folder}\n", "data on stdout, and nothing of the client's"
    assert {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()} == set(server.files)

    server.calls.clear()
    again = porter("download", "--from", "keras", "gemma-2b", "--json")
    assert json.loads(again.stdout)["bytes_fetched"] == 0
    assert json.loads(again.stdout)["repo"] == "keras/gemma/keras/gemma_2b_en"
    porter("download", HANDLE, "--offline", "-o", "copy")
    assert (tmp_path / "copy" / "assets" / "notes.txt").stat().st_size == 997
    assert porter("inspect", HANDLE).stdout.startswith("keras/gemma_2b_en · gemma (keras) · 1 file")
    plan = porter("convert", f"{HANDLE}/3", "--to", "hf", "--dry-run")
    assert "gemma: keras → hf" in plan.stdout
    assert server.calls == [], "a copy needs no network"

    newest = porter("download", HANDLE, token=WELCOME)
    assert server.calls == ["GetModelInstance"] and "nothing, all was there" in newest.stderr


def test_refusals_are_told_apart(server: Kaggle, porter: Any) -> None:
    none = porter("download", HANDLE, code=4).stderr
    assert "there are none" in none and "KAGGLE_API_TOKEN" in none
    consent = porter("download", HANDLE, code=4, token=STRANGER).stderr
    assert "licence" in consent and "https://www.kaggle.com/models/keras/gemma" in consent
    wrong = porter("download", HANDLE, code=4, token=WRONG).stderr
    assert "refuses the credentials" in wrong
    assert len({none, consent, wrong}) == 3
    for missing in (f"{HANDLE}/9", "kaggle://keras/gemmy/keras/gemma_2b_en"):
        assert "there is no" in porter("download", missing, code=2, token=WELCOME).stderr


def test_without_a_server(porter: Any) -> None:
    with FileLock(Path(tempfile.gettempdir()) / "porter-kaggle-7777.lock"):
        try:
            # Binding shows that nobody else listens there.
            Kaggle({}).server_close()
        except OSError:
            pytest.skip(f"port {PORT} is taken")
        done = porter("download", HANDLE, code=1, token=WELCOME)
    assert "cannot reach Kaggle" in done.stderr
