"""Faults between here and the Hub, against the Hub on the loopback: each kind once and lasting, for the first
requests of a file and for later ones, and kills while bytes come.

`reach` has to be called before anything imports the Hub's client, which reads its settings then.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import fault_oracle as oracle
import traced
from fault_bench import Bench, Command, Tally, here
from fault_kinds import at, some

REPO = "google/gemma-2b"
BIG = "model-00001-of-00002.safetensors"


def _hub_server() -> ModuleType:
    path = Path(__file__).parents[1] / "sources" / "hub_server.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def reach(home: Path) -> Any:
    """A Hub without a repository, for the client in this process and its forks."""
    server = _hub_server().HubServer()
    os.environ |= {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "NO_PROXY": "127.0.0.1",
    }
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        os.environ.pop(name, None)
    return server


class FarBench:
    """`porter download` and `porter convert` of a model on the Hub; nothing of it is in the cache before."""

    def __init__(self, near: Bench, server: Any, home: Path) -> None:
        self.near, self.server, self.home = near, server, home
        self.files = {path.name: path.read_bytes() for path in sorted(near.source.iterdir())}
        server.add(REPO, self.files)
        self.set_up()
        assert here(self.download()) == 0, near.said.read_text()
        self.set_up()
        assert here(self.convert()) == 0, near.said.read_text()
        made = oracle.read_safetensors(near.out / "lit_model.safetensors")
        assert oracle.same(made, oracle.litgpt_tensors(1)), "the run without a fault is wrong"
        self.new = oracle.tree(near.out)

    def set_up(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        self.near.set_up(force=False)
        self.server.faults.clear()

    def download(self) -> Command:
        return Command(("download", REPO), self.near.said)

    def convert(self) -> Command:
        return Command(("convert", REPO, "--to", "litgpt", "-o", str(self.near.out)), self.near.said)

    def judge(self, tally: Tally, ended: traced.Ended, work: Command, what: str) -> None:
        tally.worst(ended)
        said = self.near.said.read_text(errors="replace")
        what = f"{work.words[0]}, {what}: exit code {ended.code}"
        tree = oracle.tree(self.near.out)
        wrong = [path.name for path in self._snapshots() if path.read_bytes() != self.files.get(path.name)]
        whole = {path.name for path in self._snapshots()} == set(self.files)
        done = tree == self.new if work.words[0] == "convert" else whole
        state = "the new output" if done else "nothing"
        if wrong or tree not in ("", self.new):
            state = "a mixture"
            tally.lost.append(f"{what}: {wrong or 'the output is a mixture'}")
        elif ended.code == 0 and not done:
            tally.lost.append(f"{what}, and not all is there")
        tally.found[state] += 1
        if "Traceback" in said or ended.code not in (0, 1, 3, 6, 137):
            tally.flaws.append(f"{what}: {said[-500:]}")
        if "signed-for" in said:
            tally.flaws.append(f"{what}: a signature is shown")
        self.server.faults.clear()
        again = traced.run(work)
        if again.code not in (0, 2) or (again.code == 2 and tree != self.new):
            tally.flaws.append(f"{what}: run again: {self.near.said.read_text()[-400:]}")
        unfinished = [path.name for path in self.home.rglob("*.incomplete")]
        left = [path.name for path in self.near.place.iterdir() if path != self.near.out]
        if unfinished or left:
            tally.flaws.append(f"{what}: run again, {unfinished + left} stay behind")

    def _snapshots(self) -> list[Path]:
        return [path for path in self.home.rglob("snapshots/*/*") if path.is_file()]


def answers(far: FarBench, tally: Tally) -> None:
    """Each kind of bad answer, once and lasting."""
    from porter.sources.hub import hub_retry

    hub_retry._PAUSE = 0.01
    kinds = [*sys.modules["hub_server"].KINDS, "400", "403", "404", "408", "429", "500", "502", "503", "504"]
    for kind in tally.share(kinds):
        for times in (1, 2, 1_000):
            for work in (far.download(), far.convert()):
                far.set_up()
                far.server.fault(BIG, kind, times)
                ended = traced.run(work)
                far.judge(tally, ended, work, f"{kind} {times} times")


def cut_short(far: FarBench, tally: Tally, *, most: int) -> None:
    """Kills spread over a download, and over a conversion that streams."""
    for work in (far.download(), far.convert()):
        far.set_up()
        calls = traced.run(work, lambda call: None).calls
        for number in tally.share(some(range(len(calls)), most)):
            far.set_up()
            ended = traced.run(work, at(number, traced.KILL))
            far.judge(tally, ended, work, f"killed at call {number}")
