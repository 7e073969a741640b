"""The output directory: refused, staged beside its place, and published by one rename.

Until the rename nothing exists under the final name. The staging directory's name follows from the plan,
so that a later run finds it again; one run at a time may use it, and it goes at the end unless it is kept
to be resumed. What is replaced by force is only ever a directory that holds a receipt; it is removed after
the new one stands in its place.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from porter.errors import UsageError
from porter.execution import journal

RECEIPT = "porter-receipt.json"

# Of the plan's hash, in the staging directory's name.
_DIGITS = 12

# From Linux' <fcntl.h> and <linux/fs.h>.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_output(
    out: Path, source_root: Path | None, sources: Iterable[Path], *, force: bool, inside: bool = False
) -> Path:
    """The real path that `out` stands for. Raises UsageError where it must not be written.

    `sources` are the real paths of the files to be read. With `inside`, `out` may lie in `source_root`:
    where a single file is the source, the directory around it is not.
    """
    out = out.resolve()
    root = None if source_root is None else source_root.resolve()
    within = root is not None and (out == root or out in root.parents or (root in out.parents and not inside))
    if within or any(out in source.parents for source in sources):
        raise UsageError(
            f"{out} and the source lie in one another",
            cause=f"the source is {root}",
            hint="choose an output directory elsewhere",
        )
    if not out.exists():
        return out
    if not out.is_dir():
        raise UsageError(f"{out} exists and is no directory", hint="choose another output directory")
    if not any(out.iterdir()):
        return out
    if not force:
        raise UsageError(f"{out} exists and is not empty", hint="choose another one, or pass --force")
    receipt = out / RECEIPT
    if receipt.is_symlink() or not receipt.is_file():
        raise UsageError(
            f"{out} was not written by porter",
            cause=f"--force replaces only a directory that holds {RECEIPT}",
            hint="choose another output directory, or remove this one yourself",
        )
    return out


@dataclass
class Stage:
    """A staging directory of this run alone. `keep` leaves it where it is at the end."""

    path: Path
    keep: bool = False

    @property
    def journal(self) -> Path:
        return self.path / journal.NAME

    def clear(self) -> None:
        """Removes everything in it."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


@contextmanager
def staging(out: Path, plan_hash: str, notice: Callable[[str], None]) -> Iterator[Stage]:
    """The directory beside `out` in which the plan is run, with the mode of one that a user makes.

    It may hold what an earlier run of the same plan left. What runs of other plans left for the same `out`
    is removed. Raises UsageError if another process is working there.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    name = re.escape(f".{out.name}.porter-") + f"[0-9a-f]{{{_DIGITS}}}"
    path = out.parent / f".{out.name}.porter-{plan_hash.rpartition(':')[2][:_DIGITS]}"
    for other in out.parent.iterdir():
        if other != path and re.fullmatch(name, other.name) and other.is_dir() and not other.is_symlink():
            with _locked(other, out):
                if (other / journal.NAME).exists():
                    notice(f"an unfinished conversion to {out} by another plan is removed")
                shutil.rmtree(other)
    while True:
        path.mkdir(exist_ok=True)
        with _locked(path, out) as descriptor:
            # It may have been published or removed between the two steps.
            if not _same(path, descriptor):
                continue
            stage = Stage(path)
            try:
                yield stage
            finally:
                if not stage.keep:
                    shutil.rmtree(path, ignore_errors=True)
            return


@contextmanager
def _locked(directory: Path, out: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(
            f"another porter is writing {out}",
            cause=f"it works in {directory}",
            hint="wait for it, or choose another output directory",
        ) from None
    except OSError:
        # Some network file systems have no locks; there it is the user who has to take care.
        pass
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def publish(stage: Path, out: Path, *, force: bool) -> None:
    """Puts the staged directory in the place of `out`, durably; what stood there is removed last.

    Without force only a missing or empty `out` is replaced; OSError if something else has come there.
    """
    for directory, _, _ in os.walk(stage):
        _sync(Path(directory))
    (stage / journal.NAME).unlink(missing_ok=True)
    if force and out.exists() and any(out.iterdir()):
        _replace(stage, out)
    else:
        stage.rename(out)
    _sync(out.parent)


def _replace(stage: Path, out: Path) -> None:
    if _exchange(stage, out):
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.porter-", dir=out.parent))
    out.rename(aside)
    try:
        stage.rename(out)
    except BaseException:
        aside.rename(out)
        raise
    # Under the staging name the old directory is removed like any staging directory.
    aside.rename(stage)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two directories in one step; False where the system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
