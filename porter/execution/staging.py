"""The output directory: refused, staged beside its place, and published by one rename.

Until the rename nothing exists under the final name. The staging directory's name follows from the plan,
so that a later run finds it again; one run at a time writes an output, and its staging directory goes at the
end unless it is kept to be resumed. What is replaced by force is only ever a directory that holds a receipt
and nothing that the receipt does not list, which is looked at again when it has been taken from its place; it
is removed after the new one stands there.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from porter import system
from porter.errors import PorterError, UsageError
from porter.execution import journal
from porter.execution.leftovers import (
    RECEIPT,
    discard,
    fresh_name,
    holds_receipt,
    lock_output,
    settle,
    stage_name,
    unlock_output,
)
from porter.execution.ownership import PRIVATE, refuse_foreign
from porter.execution.receipts import names_in, read_receipt, receipt_bytes, unlisted
from porter.wording import flag

__all__ = ["RECEIPT", "Stage", "check_output", "publish", "staging"]

# What a rename of a directory answers where something stands: a directory with files, or a file.
_OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


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
    _check_replaced(out, force=force)
    return out


def _check_replaced(out: Path, *, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} exists and is no directory", hint="choose another output directory")
    if not any(out.iterdir()):
        return
    if not force:
        raise UsageError(
            f"{out} exists and is not empty", hint=f"choose another one, or pass {flag('force')}"
        )
    _check_ours(out, out)


def _check_ours(directory: Path, out: Path) -> None:
    """Raises UsageError unless all of `directory`, which stands or stood at `out`, was written by porter."""
    if not holds_receipt(directory):
        raise UsageError(
            f"{out} was not written by porter",
            cause=f"{flag('force')} replaces only a directory that holds {RECEIPT}",
            hint="choose another output directory, or remove this one yourself",
        )
    if others := _others(directory):
        raise UsageError(
            f"{out} holds what porter did not write, and would lose it",
            cause=f"{RECEIPT} does not list {', '.join(others[:3])}"
            + (f" and {len(others) - 3} more" if len(others) > 3 else ""),
            hint="move it elsewhere or remove it, or choose another output directory",
        )


def _others(directory: Path) -> list[str]:
    """Files of an output that its receipt does not list; none where the receipt is damaged."""
    try:
        known = read_receipt(receipt_bytes(directory / RECEIPT))
    except PorterError:
        return []
    return unlisted(known, names_in(directory))


@dataclass
class Stage:
    """A staging directory of this run alone. `keep` leaves it where it is at the end.

    `notice` is told of what a user should know.
    """

    path: Path
    keep: bool = False
    notice: Callable[[str], None] = lambda text: None

    @property
    def journal(self) -> Path:
        return self.path / journal.NAME

    def clear(self) -> None:
        """Removes everything in it."""
        for entry in self.path.iterdir():
            _remove(entry)

    def remove_foreign(self, files: Collection[str]) -> list[str]:
        """Removes all but `files` and the directories they are in; the names of what was removed.

        Raises PorterError where one of `files` is missing, or is no plain file with one name.
        """
        expected = {PurePosixPath(name) for name in files}
        folders = {folder for path in expected for folder in path.parents}
        removed = []
        for folder, names, others in os.walk(self.path):
            inside = PurePosixPath(Path(folder).relative_to(self.path).as_posix())
            for name in [*names, *others]:
                path = Path(folder, name)
                if inside / name in expected or (inside / name in folders and not path.is_symlink()):
                    continue
                _remove(path)
                removed.append(str(inside / name))
            names[:] = [name for name in names if inside / name in folders]
        for name in sorted(files):
            try:
                found = (self.path / name).lstat()
            except FileNotFoundError:
                raise PorterError(f"{name} was written, and is gone from the staging directory") from None
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise PorterError(
                    f"{name} is not the file that was written", cause="another one has come in its place"
                )
        return removed


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def staging(
    out: Path, plan_hash: str, notice: Callable[[str], None], *, force: bool = False
) -> Iterator[Stage]:
    """The directory beside `out` in which the plan is run. Nobody else may enter it.

    It may hold what an earlier run of the same plan left. What runs of other plans left for the same `out`
    is removed, and an output that a killed run had moved aside is put back. Raises UsageError if another
    process is writing `out`, or if somebody else could have written to what seems to be left.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_output(out)
    try:
        path = stage_name(out, plan_hash)
        settle(out, path, notice)
        _check_replaced(out, force=force)
        try:
            path.mkdir(PRIVATE)
        except FileExistsError:
            refuse_foreign(path, fresh_name(out, "gone"))
            path.chmod(PRIVATE)
        made = path.lstat()
        stage = Stage(path, notice=notice)
        try:
            yield stage
        finally:
            if not stage.keep and _is(path, made):
                discard(path, out, notice)
    finally:
        unlock_output(out, lock)


def _is(path: Path, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), found)
    except OSError:
        # Gone, or nobody can tell: what may be another's is left where it is, and `porter doctor` knows it.
        return False


def publish(stage: Stage, out: Path, *, force: bool, files: Collection[str] | None = None) -> None:
    """Puts the staged directory in the place of `out`, durably; what stood there is removed last.

    What is not among `files` does not go out. Modes are those of files that a user makes now. Without force
    only a missing or empty `out` is replaced, with force one that is all porter's at the moment in which it
    is replaced; else UsageError, and `out` is as it was. PorterError where the names cannot be made durable:
    then it says what stands where.
    """
    stage.journal.unlink(missing_ok=True)
    if files is not None:
        for name in stage.remove_foreign(files):
            stage.notice(f"{name} was in the staging directory and is no part of the output; it is removed")
    _open_up(stage.path)
    old = None
    try:
        stage.path.rename(out)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        if not force or error.errno == errno.ENOTDIR:
            raise UsageError(
                f"{out} has come to be while its content was made",
                cause="it was missing or empty before",
                hint=f"choose another output directory, or pass {flag('force')}",
            ) from None
        old = _replace(stage.path, out)
    try:
        system.sync_directory(out.parent)
    except OSError as error:
        kept = f"; what stood there before is in {old}" if old else ""
        raise PorterError(
            f"{out} holds the new output, but may not outlive a power cut",
            cause=f"its directory could not be written to the disk: {error.strerror}{kept}",
            hint=f"look after the disk, then convert again with {flag('force')}",
        ) from error
    if old is not None:
        discard(old, out, stage.notice)


def _replace(stage: Path, out: Path) -> Path:
    """Puts `stage` in the place of `out`; where that lies now. Raises, with `out` as it was."""
    new, made = fresh_name(out, "new"), stage.lstat()
    stage.rename(new)
    try:
        if not system.exchange(new, out):
            return _move_aside(new, out)
        try:
            _check_ours(new, out)
        except (OSError, UsageError):
            _change_back(new, out)
            raise
        return new
    except BaseException:
        # It is still there if it was not put in place, or was taken back.
        if _is(new, made):
            new.rename(stage)
        raise


def _change_back(new: Path, out: Path) -> None:
    try:
        if system.exchange(new, out):
            return
        cause = "they could not be exchanged again"
    except OSError as error:
        cause = f"they could not be exchanged again: {error.strerror}"
    raise PorterError(f"what stood at {out} is in {new} now, and was not written by porter", cause=cause)


def _move_aside(new: Path, out: Path) -> Path:
    old = fresh_name(out, "old")
    out.rename(old)
    try:
        _check_ours(old, out)
        new.rename(out)
    except BaseException:
        old.rename(out)
        raise
    return old


def _open_up(stage: Path) -> None:
    """Gives everything the mode that this user's files and directories have there, and makes it durable."""
    probe = stage / ".porter-modes"
    probe.mkdir(0o777)
    folder_mode = stat.S_IMODE(probe.stat().st_mode)
    probe.rmdir()
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    file_mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for folder, _, files in os.walk(stage, topdown=False):
        for name in files:
            _set_mode(Path(folder, name), file_mode)
        _set_mode(Path(folder), folder_mode)
        system.sync_directory(Path(folder))


def _set_mode(path: Path, mode: int) -> None:
    if stat.S_IMODE(path.stat().st_mode) != mode:
        # Some file systems know no modes.
        with suppress(PermissionError):
            path.chmod(mode)
