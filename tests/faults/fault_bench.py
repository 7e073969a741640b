"""A place for one experiment after the other: porter as its command, an output that stood there before or
none, and what a fault may leave of it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import fault_oracle as oracle
import traced

Item = TypeVar("Item")

# Exit codes that the documentation names, but for those of a process that was killed.
CODES = {0, 1, 2, 3, 4, 5, 6, 130}

RECEIPT = "porter-receipt.json"

# What is said where the fingerprint in a receipt, which is taken from the source, could not be made.
NO_FINGERPRINT = "the receipt states no fingerprint"

# What is said where an output stands whole under its name, and the disk would not promise to keep it.
STANDS = "holds the new output, but may not outlive"


def _admits(code: int, said: str) -> bool:
    """Whether it says that the output stands; of an interrupt, that it does not promise to go on with it."""
    return STANDS in said or (code == 130 and "The same command goes on" not in said)


@dataclass
class Tally:
    """One row of the table: how many faults, what was there after them, and what should not have been."""

    title: str
    found: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    seconds: float = 0.0
    megabytes: float = 0.0
    # The K-th of N parts of the row's faults, so that a long row can be run in pieces.
    part: tuple[int, int] = (0, 1)

    @property
    def faults(self) -> int:
        return self.found.total()

    def share(self, items: Iterable[Item]) -> list[Item]:
        """Of a row's faults those of this part, in their order."""
        at, parts = self.part
        return list(items)[at::parts]

    def worst(self, ended: traced.Ended) -> None:
        self.seconds = max(self.seconds, ended.seconds)
        self.megabytes = max(self.megabytes, ended.megabytes)


@dataclass(frozen=True)
class Command:
    """`porter` with these words, for a fork of this process; what it prints goes to the file `said`."""

    words: tuple[str, ...]
    said: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def ready(self) -> None:
        os.environ.update(self.environment)
        stream = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        os.close(stream)
        # A test runner's own streams would keep what is said from the file.
        sys.stdout, sys.stderr = (os.fdopen(fd, "w", 1, "utf-8", closefd=False) for fd in (1, 2))
        sys.argv = ["porter", *self.words]
        if "tqdm.std" in sys.modules:
            # Its lock is shared among forks, and a child that is killed in it would never give it back.
            sys.modules["tqdm.std"].tqdm.set_lock(threading.RLock())

    def __call__(self) -> int:
        from porter.cli import main

        try:
            main()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return 0


def here(work: Command) -> int:
    """Runs it in this process, so that a fork finds all modules loaded."""
    kept, words, data, remarks = [os.dup(fd) for fd in (1, 2)], sys.argv, sys.stdout, sys.stderr
    try:
        work.ready()
        return work()
    finally:
        sys.stdout.flush()
        sys.argv, sys.stdout, sys.stderr = words, data, remarks
        for stream, copy in enumerate(kept, 1):
            os.dup2(copy, stream)
            os.close(copy)


def quicken() -> None:
    """Small units and hasty notes, so that a run of a fraction of a second has all that a long one has."""
    from porter.execution import journal, streaming, units

    units.RANGE, journal.INTERVAL, streaming.CHUNK = 1 << 15, 0.002, 1 << 15


class Bench:
    """`old` is the tree of what stands at `out` before a forced run, `new` of what a run makes."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.source = oracle.write_checkpoint(base / "source", 1)
        self.place = base / "place"
        self.said = base / "said"
        self.before = base / "before"
        self.reference = base / "reference"
        other = oracle.write_checkpoint(base / "other", 2)
        for source, out, seed in ((self.source, self.reference, 1), (other, self.before, 2)):
            code = here(Command(self.words(source, out), self.said))
            assert code == 0, self.said.read_text()
            made = oracle.read_safetensors(out / "lit_model.safetensors")
            assert oracle.same(made, oracle.litgpt_tensors(seed)), "the run without a fault is wrong"
        self.new, self.old = oracle.tree(self.reference), oracle.tree(self.before)
        assert self.new != self.old

    @property
    def out(self) -> Path:
        return self.place / "out"

    @staticmethod
    def words(source: Path, out: Path, *more: str) -> tuple[str, ...]:
        return ("convert", str(source), "--to", "litgpt", "-o", str(out), *more)

    def set_up(self, *, force: bool) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        if force:
            shutil.copytree(self.before, self.out)

    def convert(self, *, force: bool) -> Command:
        more = ("--force",) if force else ()
        return Command(self.words(self.source, self.out, *more), self.said)

    def judge(
        self,
        tally: Tally,
        ended: traced.Ended,
        what: str,
        *,
        force: bool,
        rerun: bool = True,
        aside: bool = False,
    ) -> None:
        """Looks at what there is after a fault, then lets the same command run undisturbed. `aside` says that
        names cannot be exchanged there, so that the old output may be under another name for a moment.
        """
        tally.worst(ended)
        said = self.said.read_text(errors="replace") if self.said.exists() else ""
        tree = oracle.tree(self.out)
        state = {"": "nothing", self.old: "the old output", self.new: "the new output"}.get(tree, "a mixture")
        if (
            aside
            and state == "nothing"
            and any(oracle.tree(path) == self.old for path in self.place.iterdir())
        ):
            state = "the old output, aside"
        if state == "a mixture" and NO_FINGERPRINT in said and self._lacks_fingerprint():
            state = "the new output"
        tally.found[state] += 1
        what = f"{what}: exit code {ended.code}, {state}"
        killed = ended.code == 137
        if state == "a mixture" or (force and state == "nothing"):
            tally.lost.append(what)
        elif ended.code == 0 and state != "the new output":
            tally.lost.append(f"{what}, though it says that all is well")
        elif not killed and ended.code != 0 and state == "the new output" and not _admits(ended.code, said):
            tally.flaws.append(f"{what}, though it says that it failed: {said[-300:]}")
        if "Traceback" in said or not (killed or ended.code in CODES):
            tally.flaws.append(f"{what}: {said[-600:]}")
        self._look_around(tally, what)
        if rerun:
            self._again(tally, what, force=force)

    def _lacks_fingerprint(self) -> bool:
        """Whether the output is the new one but for the fingerprint in its receipt, as it says."""
        folders = (self.out, self.reference)
        there, wanted = ({path.name: path for path in folder.iterdir()} for folder in folders)
        if there.keys() != wanted.keys():
            return False
        receipts = [json.loads(files[RECEIPT].read_bytes()) for files in (there, wanted)]
        stated = [receipt.pop("fingerprint") for receipt in receipts]
        for receipt in receipts:
            receipt.pop("seal")
        same = all(there[name].read_bytes() == wanted[name].read_bytes() for name in there if name != RECEIPT)
        return same and stated[0] is None and receipts[0] == receipts[1]

    def _look_around(self, tally: Tally, what: str) -> None:
        from porter.api.leftovers import left_behind

        there = {path.name for path in self.place.iterdir()} - {self.out.name}
        known = {one.path.name for one in left_behind(self.place)}
        # A lock is an empty file that the next run takes.
        unknown = {name for name in there - known if not (name.endswith(".porter-lock"))}
        if unknown:
            tally.flaws.append(f"{what}: porter doctor does not know {', '.join(sorted(unknown))}")

    def _again(self, tally: Tally, what: str, *, force: bool) -> None:
        # A run that was killed may have published before.
        ended = traced.run(self.convert(force=force or oracle.tree(self.out) != ""))
        if ended.code != 0 or oracle.tree(self.out) != self.new:
            said = self.said.read_text(errors="replace")
            tally.flaws.append(f"{what}: run again, exit code {ended.code}: {said[-400:]}")
        left = sorted(path.name for path in self.place.iterdir() if path != self.out)
        if left:
            tally.flaws.append(f"{what}: run again, {', '.join(left)} stays behind")


def bench() -> Bench:
    """On a directory of its own in TMPDIR, with porter loaded and used once, so that each fork has little to
    do.
    """
    quicken()
    return Bench(Path(tempfile.mkdtemp(prefix="porter-faults-")))
