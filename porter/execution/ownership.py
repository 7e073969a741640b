"""Whose a file is: where others may write, anybody can have made what an earlier run seems to have left.

Such a thing is used only if it belongs to the effective user and nobody else could have written to it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from porter.errors import UsageError

# Only for this user: others must not even look for names in a directory that is being filled.
PRIVATE = 0o700

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def is_ours(found: os.stat_result, probe: Path) -> bool:
    """Whether it belongs to the effective user, as the file system tells owners.

    `probe` is a name that nothing has, for a directory that is made there for a moment.
    """
    return found.st_uid == os.geteuid() or found.st_uid == _fresh(probe).st_uid


def refuse_foreign(directory: Path, probe: Path) -> None:
    """Raises UsageError unless this is a directory of the effective user, to which nobody else could write.

    That goes for what is in it too: directories and files with one name each, nothing else. `probe` is as for
    `is_ours`.
    """
    top = directory.lstat()
    if not stat.S_ISDIR(top.st_mode):
        raise _foreign(directory, "expected a directory")
    _check(directory, top, probe)
    if top.st_mode & _WRITABLE and _fresh(probe).st_mode & _WRITABLE == 0:
        raise _foreign(directory, "others may write to it")
    entered = bool(top.st_mode & _OTHERS)
    for folder, folders, files in os.walk(directory, onerror=_raise):
        for name in (*folders, *files):
            path = Path(folder, name)
            found = path.lstat()
            _check(path, found, probe)
            if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
                raise _foreign(path, "it is neither a file nor a directory")
            if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                raise _foreign(path, "it has another name besides")
            # Where nobody else may enter, a file's own mode lets nobody in.
            if entered and found.st_mode & _WRITABLE and _fresh(probe).st_mode & _WRITABLE == 0:
                raise _foreign(path, "others may write to it")


def _check(path: Path, found: os.stat_result, probe: Path) -> None:
    if not is_ours(found, probe):
        raise _foreign(path, f"it belongs to user {found.st_uid}, and this is user {os.geteuid()}")


def _raise(error: OSError) -> None:
    raise error


def _foreign(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is not taken for the work of an earlier run",
        cause=why,
        hint="remove it, or choose an output in a directory of your own",
    )


def _fresh(path: Path) -> os.stat_result:
    """How a private directory of this user's looks there.

    Some file systems know no owners or modes, or give all that root makes to another user.
    """
    path.mkdir(PRIVATE)
    try:
        return path.lstat()
    finally:
        path.rmdir()
