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
from collections.abc import Iterator, Sequence
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
CHECK_COMMANDS = {
    "inspect": ("inspect", "{source}", "--report", "{out}.html"),
    "check": ("check", "{source}", "--json"),
}
# The commands that compare, asked about the input and the sound checkpoint that it was made from.
MORE_COMMANDS = {
    "fingerprint": ("fingerprint", "{source}"),
    "diff": ("diff", "{source}", "{sound}"),
    "verify": ("verify", "{sound}", "{source}"),
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


def commands_for(one: inputs.Input, more: bool = False) -> dict[str, tuple[str, ...]]:
    if more:
        return MORE_COMMANDS
    return {"convert": COMMANDS, "table": TABLE_COMMANDS, "check": CHECK_COMMANDS}[one.asked]


@dataclass
class Result:
    """What the commands did with one input."""

    one: inputs.Input
    outcomes: dict[str, runner.Outcome]

    def faults(self, seconds: float = 1.0, peak: int = 200_000_000) -> list[str]:
        # What has no digest cannot be verified, which is exit code 1 of `check` and `verify` alone.
        unverified, refused = (1, 2, 3, 5, 6), (2, 3, 5, 6)
        found = {
            name: each.faults(seconds, peak, unverified if name in ("check", "verify") else refused)
            for name, each in self.outcomes.items()
        }
        return [f"{name}: {fault}" for name, faults in found.items() for fault in faults]

    def told(self) -> dict[str, Any]:
        return {
            "parser": self.one.parser,
            "name": self.one.name,
            "outcomes": {name: dataclasses.asdict(each) for name, each in self.outcomes.items()},
            "faults": self.faults(),
        }


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder that goes afterwards, whatever is in it."""
    folder = tempfile.mkdtemp(prefix="porter-hostile-")
    try:
        yield folder
    finally:
        sweep(Path(folder))


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
        if name == "ocdbt":
            # tensorstore starts threads, which a fork has not.
            continue
        one = inputs.Input("", "", name, lambda folder: None)
        for template in commands_for(one).values():
            out = folder / f"warm-{number}"
            arguments = [part.format(source=path, out=out, sound=path) for part in template]
            if name not in ("hf", "litgpt") and template[0] == "convert":
                # Where values are computed, torch is imported: for those inputs to pay that are sound.
                arguments.append("--dry-run")
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                app(arguments, prog_name="porter")
    # A process that is forked should not share the collector's work with its parent.
    gc.collect()
    gc.freeze()


def sweep(scratch: Path) -> None:
    """Remove a folder, however deep."""
    subprocess.run(["rm", "-rf", "--", scratch], check=True)


def run_one(one: inputs.Input, made: dict[str, Path], scratch: Path, more: bool = False) -> Result:
    """Make the input and run the commands on it."""
    source, beside = scratch / "checkpoint", scratch / "out"
    sweep(scratch)
    scratch.mkdir(parents=True)
    shutil.copytree(made[one.seed], source)
    beside.mkdir()
    # What it takes to make it is not what it takes to read it: a fork has all that its parent had.
    made_in = runner.in_child(lambda outcome: one.make(source), [], beside, hooked=False)
    assert made_in.code == 0, (str(one), made_in)
    outcomes = {}
    told = subprocess.run(["du", "-sk", "--", source], capture_output=True, text=True, check=False).stdout
    held = 1024 * int(told.split()[0])
    for name, template in commands_for(one, more).items():
        places = {"source": source, "out": beside / "made", "sound": made[one.seed]}
        arguments = [part.format(**places) for part in template]
        outcomes[name] = runner.run_command(arguments, [source, beside, *([made[one.seed]] * more)], beside)
        # What is data may be printed whole: no more than the input says.
        outcomes[name].read = 4 * held
    return Result(one, outcomes)


def run_all(
    chosen: Sequence[inputs.Input], made: dict[str, Path], scratch: Path, file: Path | None, more: bool
) -> list[Result]:
    results = []
    for one in chosen:
        result = run_one(one, made, scratch, more)
        results.append(result)
        if file is not None:
            with file.open("a") as stream:
                stream.write(json.dumps(result.told()) + "\n")
        for fault in result.faults():
            print(f"{one}: {fault}", flush=True)
    return results


def run_peers(
    made: dict[str, Path],
    folder: Path,
    file: Path | None,
    only: str,
    part: tuple[int, int],
) -> int:
    """Each peer's reader on the inputs of its formats, made from its seeds."""
    scratch = folder / "scratch"
    canary = Path(crafted.CANARY)
    every = inputs.every()

    def read(peer: peers.Peer, source: Path, one: inputs.Input | None = None) -> runner.Outcome:
        sweep(scratch)
        shutil.copytree(source, scratch)
        if one is not None:
            made_in = runner.in_child(lambda outcome: one.make(scratch), [], folder, hooked=False)
            assert made_in.code == 0, (str(one), made_in)
        return runner.in_child(lambda outcome: peer.read(scratch), [], folder, hooked=False, wall=60)

    def warm() -> None:
        for peer in peers.PEERS.values():
            sweep(scratch)
            shutil.copytree(made[peer.inputs[0][1]], scratch)
            peer.read(scratch)

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warm()
    gc.collect()
    gc.freeze()
    for name, peer in peers.PEERS.items():
        if only not in name:
            continue
        # What is sound it reads: else nothing that it refuses would say anything.
        base = {seed: read(peer, made[seed]) for _, seed in peer.inputs}
        assert all(one.code == 0 for one in base.values()), (name, base)
        for one in [one for one in every if (one.parser, one.seed) in peer.inputs][part[0] :: part[1]]:
            canary.unlink(missing_ok=True)
            outcome = read(peer, made[one.seed], one)
            told = {
                "peer": peers.title(name),
                "parser": one.parser,
                "name": one.name,
                "outcome": dataclasses.asdict(outcome),
                "base": base[one.seed].peak,
                "canary": canary.exists(),
            }
            if file is not None:
                with file.open("a") as stream:
                    stream.write(json.dumps(told) + "\n")
        print(f"{peers.title(name)} is done", flush=True)
    canary.unlink(missing_ok=True)
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
    # Files of one name in two seeds are told as one.
    there = len({(one.parser, one.name) for one in inputs.every()})
    part = (
        f"This table is of a part: {there - len(own):,} of the {there:,} inputs that there are were not run."
    )
    told = None if len(own) >= there else part
    report.write(report.section(own, [one for one in results if "peer" in one], told))
    return 1 if any(one["faults"] for one in own) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="only inputs whose name holds these words")
    parser.add_argument("--every", type=int, default=1, help="only each so many")
    parser.add_argument("--part", default="0/1", help="K/N: the K-th of N parts, from 0")
    parser.add_argument("--peers", action="store_true", help="the peers' readers in porter's place")
    parser.add_argument("--more", action="store_true", help="the commands that compare, in their place")
    parser.add_argument("--docs", action="store_true", help="porter, then the peers; write the page")
    parser.add_argument("--write", type=Path, nargs="*", help="write the page from results, and run nothing")
    parser.add_argument("--skip", type=Path, nargs="*", default=[], help="results of inputs not to run again")
    parser.add_argument("--results", type=Path, help="a file to add the results to, a JSON object a line")
    asked = parser.parse_args(arguments)
    part, parts = map(int, asked.part.split("/"))
    if asked.write:
        return _write(asked.write)
    if asked.docs:
        return _all_and_docs()
    began = time.monotonic()
    with scratch_folder() as folder:
        made = make_seeds(Path(folder))
        if asked.peers:
            return run_peers(made, Path(folder), asked.results, asked.only, (part, parts))
        warm(made, Path(folder))
        chosen = [one for one in inputs.every() if asked.only in str(one)][:: asked.every]
        done = {(one["parser"], one["name"]) for one in report.read(asked.skip) if not one["faults"]}
        chosen = [one for one in chosen if (one.parser, one.name) not in done][part::parts]
        results = run_all(chosen, made, Path(folder) / "scratch", asked.results, asked.more)
    wrong = [result for result in results if result.faults()]
    print(f"{len(results)} inputs, {len(wrong)} at fault, {time.monotonic() - began:.0f} s")
    if Path("/tmp/porter-was-here").exists():
        print("code was run: /tmp/porter-was-here is there")
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
