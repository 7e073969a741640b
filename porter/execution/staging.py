"""The output directory: refused, staged beside its place, and published by one rename.

Until the rename nothing exists under the final name, and a failure leaves nothing behind. What is
replaced by force is only ever a directory that holds a receipt; it is removed after the new one stands
in its place.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from porter.errors import UsageError

RECEIPT = "porter-receipt.json"

# From Linux' <fcntl.h> and <linux/fs.h>.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_output(
    out: Path, source_root: Path, sources: Iterable[Path], *, force: bool, inside: bool = False
) -> Path:
    """The real path that `out` stands for. Raises UsageError where it must not be written.

    `sources` are the real paths of the files to be read. With `inside`, `out` may lie in `source_root`:
    where a single file is the source, the directory around it is not.
    """
    out, root = out.resolve(), source_root.resolve()
    within = root in out.parents and not inside
    if out == root or out in root.parents or within or any(out in source.parents for source in sources):
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


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A fresh directory beside `out`, with the mode of a directory that a user makes; gone at the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.porter-", dir=out.parent))
    try:
        stage.chmod(0o777 & ~_umask())
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def publish(stage: Path, out: Path, *, force: bool) -> None:
    """Puts the staged directory in the place of `out`, durably; what stood there is removed last.

    Without force only a missing or empty `out` is replaced; OSError if something else has come there.
    """
    for directory, _, _ in os.walk(stage):
        _sync(Path(directory))
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


def _umask() -> int:
    # It can only be read by setting it.
    current = os.umask(0o077)
    os.umask(current)
    return current
