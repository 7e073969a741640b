"""Bad answers over `porter download` and over the Hub's own client: one file each, each kind of answer once
and lasting.

    python tests/faults/fault_downloads.py      both rows, as JSON
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import fault_network as network  # noqa: E402
import traced  # noqa: E402

DATA = bytes(range(251)) * 900
KINDS = ("400", "403", "404", "408", "429", "500", "502", "503", "504")


def by_client() -> str:
    from huggingface_hub import hf_hub_download

    return str(hf_hub_download(network.REPO, network.BIG))


def by_porter() -> str:
    from porter.api.download import download
    from porter.sources.hub import hub_retry

    hub_retry._PAUSE = 0.01
    return str(Path(download(network.REPO, include=network.BIG).path) / network.BIG)


class _Work:
    def __init__(self, fetch: Callable[[], str], said: Path) -> None:
        self.fetch, self.said = fetch, said

    def ready(self) -> None:
        stream = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(stream, 1)
        os.dup2(stream, 2)

    def __call__(self) -> int:
        try:
            found = Path(self.fetch()).read_bytes()
        except Exception as error:
            print(error)
            return 1
        return 0 if found == DATA else 2


def strike(title: str, fetch: Callable[[], str], server: Any, base: Path) -> dict[str, Any]:
    found: Counter[str] = Counter()
    for kind in (*sys.modules["hub_server"].KINDS, *KINDS):
        for times in (1, 1_000):
            shutil.rmtree(base / "home", ignore_errors=True)
            server.fault(network.BIG, kind, times)
            ended = traced.run(_Work(fetch, base / "said"))
            kept = [path.read_bytes() for path in (base / "home").rglob("snapshots/*/*") if path.is_file()]
            often = "once" if times == 1 else "lasting"
            if any(content != DATA for content in kept):
                found[f"{often}: wrong bytes under the name"] += 1
            else:
                found[f"{often}: {'got over' if ended.code == 0 else 'refused'}"] += 1
            found["signature shown"] += "signed-for" in (base / "said").read_text(errors="replace")
    return {"title": title, "found": dict(found)}


def main() -> None:
    base = Path(tempfile.mkdtemp(prefix="porter-faults-"))
    try:
        server = network.reach(base / "home")
        server.add(network.REPO, {"config.json": b"{}", network.BIG: DATA})
        import porter

        rows = [
            (f"porter {porter.__version__}, download", by_porter),
            (f"huggingface_hub {version('huggingface_hub')}, hf_hub_download", by_client),
        ]
        for title, fetch in rows:
            server.faults.clear()
            fetch()
            print(json.dumps(strike(title, fetch, server, base)), flush=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
