"""`make hostile`: every hostile input through porter, and the peers' own readers; writes docs/reliability.md.

    python tests/hostile/run.py [--only WORDS] [--part K/N] [--results FILE] [--peers | --docs]

Prints each input that does what it should not, and ends with 1 if any did.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[2]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_COLOR", "1")

import crafted
import inputs
import peers
import report
import runner
import seeds

# What porter is asked to do with each input. The first looks, the second writes.
COMMANDS = {
    "inspect": ("inspect", "{source}", "--json"),
    "convert": ("convert", "{source}", "--to", "hf", "-o", "{out}", "--quiet"),
}
TABLE_COMMANDS = {
    "inspect": ("inspect", "{source}", "--map", "{source}/mine.toml"),
    "convert": (
        "convert",
        "{source}",
        "--map",
        "{source}/mine.toml",
        "--to",
        "mine",
        "-o",
        "{out}",
        "--quiet",
    ),
}


@dataclass
class Result:
    """What the commands did with one input."""

    one: inputs.Input
    outcomes: dict[str, runner.Outcome]

    def faults(self) -> list[str]:
        return [f"{name}: {fault}" for name, each in self.outcomes.items() for fault in each.faults()]

    def told(self) -> dict[str, Any]:
        return {
            "parser": self.one.parser,
            "name": self.one.name,
            "outcomes": {name: dataclasses.asdict(each) for name, each in self.outcomes.items()},
            "faults": self.faults(),
        }


def make_seeds(folder: Path) -> dict[str, Path]:
    """The sound checkpoints. What making them imports stays in a process of its own."""
    outcome = runner.in_child(lambda outcome: seeds.make_all(folder / "seeds"), [], folder, hooked=False)
    assert outcome.code == 0, outcome
    return {path.name: path for path in sorted((folder / "seeds").iterdir())}


def warm(made: dict[str, Path], folder: Path) -> None:
    """Run each command on what is sound: no input pays for what is imported, or for reading the tables."""
    import gguf  # noqa: F401
    import h5py  # noqa: F401
    import yaml  # noqa: F401

    from porter.cli.app import app

    for number, (name, path) in enumerate(made.items()):
        for template in (TABLE_COMMANDS if name == "table" else COMMANDS).values():
            out = folder / f"warm-{number}"
            arguments = [part.format(source=path, out=out) for part in template]
            if name not in ("hf", "litgpt") and template[0] == "convert":
                # Where values are computed, torch is imported: for those inputs to pay that are sound.
                arguments.append("--dry-run")
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                app(arguments, prog_name="porter")
    # A process that is forked should not share the collector's work with its parent.
    gc.collect()
    gc.freeze()


def run_one(one: inputs.Input, made: dict[str, Path], scratch: Path) -> Result:
    """Make the input and run the commands on it."""
    source, beside = scratch / "checkpoint", scratch / "out"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    shutil.copytree(made[one.seed], source)
    beside.mkdir()
    one.make(source)
    outcomes = {}
    held = sum(path.stat().st_blocks * 512 for path in source.rglob("*") if path.is_file())
    for name, template in (TABLE_COMMANDS if one.own else COMMANDS).items():
        arguments = [part.format(source=source, out=beside / "made") for part in template]
        outcomes[name] = runner.run_command(arguments, [source, beside], beside)
        # What is data may be printed whole: no more than the input says.
        outcomes[name].read = 4 * held
    return Result(one, outcomes)


def run_all(
    chosen: Sequence[inputs.Input], made: dict[str, Path], scratch: Path, file: Path | None
) -> list[Result]:
    results = []
    for one in chosen:
        result = run_one(one, made, scratch)
        results.append(result)
        if file is not None:
            with file.open("a") as stream:
                stream.write(json.dumps(result.told()) + "\n")
        for fault in result.faults():
            print(f"{one}: {fault}", flush=True)
    return results


def run_peers(made: dict[str, Path], scratch: Path, file: Path | None) -> int:
    """Each peer's reader on the inputs of its format that are made from its seed."""
    peers.warm(made)
    gc.collect()
    gc.freeze()
    canary = Path(crafted.CANARY)
    for name, (_, parser, seed, read) in peers.PEERS.items():
        base = runner.in_child(lambda outcome, r=read, s=seed: r(made[s]), [], scratch.parent, hooked=False)
        for one in inputs.every():
            if one.parser != parser or one.seed != seed:
                continue
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.copytree(made[seed], scratch)
            one.make(scratch)
            canary.unlink(missing_ok=True)
            outcome = runner.in_child(lambda outcome, r=read: r(scratch), [], scratch.parent, hooked=False)
            told = {
                "peer": peers.title(name),
                "parser": parser,
                "name": one.name,
                "outcome": dataclasses.asdict(outcome),
                "base": base.peak,
                "canary": canary.exists(),
            }
            if file is not None:
                with file.open("a") as stream:
                    stream.write(json.dumps(told) + "\n")
        print(f"{name} is done", flush=True)
    return 0


def _all_and_docs() -> int:
    """In a process each: the peers import much that porter should not have."""
    with tempfile.TemporaryDirectory(prefix="porter-results-") as folder:
        own, theirs = Path(folder) / "porter", Path(folder) / "peers"
        for options in (["--results", own], ["--peers", "--results", theirs]):
            subprocess.run([sys.executable, __file__, *map(str, options)], check=False)
        return _write([own, theirs])


def _write(files: Sequence[Path]) -> int:
    results = report.read(files)
    own = [one for one in results if "peer" not in one]
    report.write(report.section(own, [one for one in results if "peer" in one]))
    return 1 if any(one["faults"] for one in own) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="only inputs whose name holds these words")
    parser.add_argument("--every", type=int, default=1, help="only each so many")
    parser.add_argument("--part", default="0/1", help="K/N: the K-th of N parts, from 0")
    parser.add_argument("--peers", action="store_true", help="the peers' readers in porter's place")
    parser.add_argument("--docs", action="store_true", help="porter, then the peers; write the page")
    parser.add_argument("--write", type=Path, nargs="*", help="write the page from results, and run nothing")
    parser.add_argument("--results", type=Path, help="a file to add the results to, a JSON object a line")
    asked = parser.parse_args(arguments)
    part, parts = map(int, asked.part.split("/"))
    if asked.write:
        return _write(asked.write)
    if asked.docs:
        return _all_and_docs()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="porter-hostile-") as folder:
        made = make_seeds(Path(folder))
        if asked.peers:
            return run_peers(made, Path(folder) / "scratch", asked.results)
        warm(made, Path(folder))
        chosen = [one for one in inputs.every() if asked.only in str(one)][:: asked.every][part::parts]
        results = run_all(chosen, made, Path(folder) / "scratch", asked.results)
    wrong = [result for result in results if result.faults()]
    print(f"{len(results)} inputs, {len(wrong)} at fault, {time.monotonic() - began:.0f} s")
    if Path("/tmp/porter-was-here").exists():
        print("code was run: /tmp/porter-was-here is there")
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
