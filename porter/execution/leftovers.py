"""What porter puts beside an output while it works, and what of it is left behind by a run that was killed.

All of it bears one scheme of names, `.<output>.porter-<what>`, so that a later run for the same output, and
`porter doctor`, find it. Nothing is removed that has stood at the output's place without a receipt.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from porter import system
from porter.errors import UsageError
from porter.execution import journal
from porter.execution.ownership import is_ours
from porter.wording import command

RECEIPT = "porter-receipt.json"

# What is put into an output later, and its receipt does not list: another receipt before it takes the place
# of the first, which a killed run may leave, and a signature.
FRESH = f".{RECEIPT}.new"
SIGNATURE = "model.sig"

# Hexadecimal digits of a plan's hash, or of chance.
DIGITS = 12

Kind = Literal["stage", "new", "old", "gone", "arrays", "lock"]

# A plan's digits alone: the directory in which it is run. `new`: a finished output about to take its place
# and, from the exchange on, what has stood there. `old`: what has stood there, where nothing can be
# exchanged. `gone`: what is being removed. `arrays`: what a library has written out to be read, locked by the
# run that reads it. `lock`: the file that one run at a time locks.
_NAME = re.compile(
    rf"\.(?P<out>.+)\.porter-(?:(?:(?P<kind>new|old|gone|arrays)-)?[0-9a-f]{{{DIGITS}}}|(?P<lock>lock))"
)


def stage_name(out: Path, plan_hash: str) -> Path:
    return out.parent / f".{out.name}.porter-{plan_hash.rpartition(':')[2][:DIGITS]}"


def lock_name(out: Path) -> Path:
    return out.parent / f".{out.name}.porter-lock"


def fresh_name(out: Path, kind: Literal["new", "old", "gone", "arrays"]) -> Path:
    """A name that nothing has."""
    return out.parent / f".{out.name}.porter-{kind}-{secrets.token_hex(DIGITS // 2)}"


@dataclass(frozen=True)
class Leftover:
    """Something of porter's beside the output `out`. `whole` says that it holds a receipt."""

    path: Path
    out: Path
    kind: Kind
    whole: bool

    @property
    def words(self) -> str:
        if self.kind == "lock":
            return "a lock"
        if self.kind == "stage":
            return (
                "an unfinished conversion" if (self.path / journal.NAME).exists() else "an unfinished output"
            )
        if self.kind == "arrays":
            return "arrays that were to be read"
        if self.kind == "gone" or self.whole:
            return "an output that was replaced"
        return "a directory that porter did not write"

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        found = 0
        for directory, _, files in os.walk(self.path):
            for name in files:
                try:
                    found += (Path(directory) / name).lstat().st_blocks * 512
                except FileNotFoundError:
                    continue
        return found


def holds_receipt(directory: Path) -> bool:
    receipt = directory / RECEIPT
    return not directory.is_symlink() and not receipt.is_symlink() and receipt.is_file()


def find_leftovers(parent: Path, out: Path | None = None) -> Iterator[Leftover]:
    """What lies in a directory beside `out`, or beside any output."""
    for path in sorted(parent.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is None or (out is not None and match["out"] != out.name) or path.is_symlink():
            continue
        if path.is_dir() == bool(match["lock"]):
            continue
        kind: Kind = "lock" if match["lock"] else match["kind"] or "stage"  # type: ignore[assignment]
        yield Leftover(path, parent / match["out"], kind, not match["lock"] and holds_receipt(path))


def settle(out: Path, stage: Path | None, notice: Callable[[str], None]) -> None:
    """Ends what earlier runs for `out` have left half done; the caller holds the lock. `stage` is kept.

    What was moved aside and not replaced is put back; the rest is removed, but for what is not porter's.
    """
    left = [
        leftover
        for leftover in find_leftovers(out.parent, out)
        if leftover.kind != "lock" and is_ours(leftover.path.lstat(), fresh_name(out, "gone"))
    ]
    for leftover in left:
        if leftover.kind == "old" and not os.path.lexists(out):
            leftover.path.rename(out)
            system.sync_directory(out.parent)
            notice(f"{out} had been moved aside by a run that was killed; it is put back")
    for leftover in left:
        if leftover.path == stage or not os.path.lexists(leftover.path):
            continue
        if leftover.kind in ("new", "old") and not leftover.whole:
            notice(
                f"{leftover.path} has stood at {out} and was not written by porter; "
                "it is left to you to move it back"
            )
            continue
        if leftover.kind == "arrays" and _is_held(leftover.path):
            continue
        resumable = leftover.kind == "stage" and (leftover.path / journal.NAME).exists()
        if discard(leftover.path, out, notice):
            if resumable:
                by = " by another plan" if stage else ""
                notice(f"an unfinished conversion to {out}{by} is removed")
            elif leftover.kind == "arrays":
                notice(f"arrays that were to be read for {out} are removed")
            elif leftover.kind != "stage":
                notice(f"an output that stood at {out} and had been replaced is removed")


def discard(path: Path, out: Path, notice: Callable[[str], None]) -> bool:
    """Removes a directory beside `out`; says so, and where it is, if it cannot be removed."""
    there = path
    try:
        # What is removed in part must not be put back as something whole.
        match = _NAME.fullmatch(path.name)
        if match and match["kind"] in ("new", "old"):
            there = path.rename(fresh_name(out, "gone"))
        shutil.rmtree(there)
    except OSError as error:
        notice(
            f"{there} could not be removed ({error.strerror}); `{command('doctor', clean=True)}` tries again"
        )
        return False
    return True


def lock_output(out: Path) -> int:
    """Takes the lock on everything beside `out`: a descriptor, for `unlock_output`. Raises UsageError
    while another run holds it.

    The lock is on a file of its own, which is never renamed and is removed by the one who holds it: a lock on
    a directory would go with it to another name when outputs are exchanged.
    """
    path = lock_name(out)
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        except PermissionError as error:
            if not path.exists():
                raise
            raise UsageError(
                f"{path} cannot be locked",
                cause=f"{error.strerror}: most likely it belongs to another user",
                hint="choose another output directory",
            ) from None
        if not system.try_lock(fd):
            os.close(fd)
            raise UsageError(
                f"another porter is writing {out}",
                cause=f"it holds {path}",
                hint="wait for it, or choose another output directory",
            )
        # The one who held it may have removed it between the two steps.
        try:
            if os.path.samestat(path.lstat(), os.fstat(fd)):
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)


def is_locked(out: Path) -> bool:
    """Whether a run holds the lock now; nothing is changed."""
    return _is_held(lock_name(out))


def _is_held(path: Path) -> bool:
    """Whether another run has locked a file, or a directory."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not system.try_lock(fd)
    finally:
        os.close(fd)


def unlock_output(out: Path, fd: int) -> None:
    """Gives the lock back, and leaves no file behind."""
    with contextlib.suppress(OSError):
        lock_name(out).unlink()
    # The lock goes with the descriptor, whatever the system says of closing it; the output stands by then.
    with contextlib.suppress(OSError):
        os.close(fd)
