"""Open files and names: read and written at an offset, locked, exchanged."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from porter.system import libc

# Bytes of one call. macOS refuses reads and writes from 2 GiB on, Linux cuts them there.
_LONGEST = 1 << 30

# Buffers of one call: what every system takes.
_MOST = 1024

# From Linux' <fcntl.h> and <linux/fs.h>, and from macOS' <stdio.h>.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAME_SWAP = 2

# What is answered where directories cannot be exchanged.
_CANNOT_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def read_into(fd: int, views: Sequence[memoryview], offset: int) -> int:
    """Reads what stands from byte `offset` on into `views`, one after the other; how many bytes came.

    It may be fewer than there is room for, and is 0 only at the file's end. The file's own position stays.
    """
    views = _within(views)
    scatter = getattr(os, "preadv", None)
    if scatter is not None:
        return int(scatter(fd, views, offset))
    done = 0
    for view in views:
        content = os.pread(fd, len(view), offset + done)
        view[: len(content)] = content
        done += len(content)
        if len(content) < len(view):
            break
    return done


def write_from(fd: int, views: Sequence[memoryview], offset: int) -> int:
    """Writes `views`, one after the other, from byte `offset` on; how many bytes went, perhaps not all."""
    views = _within(views)
    gather = getattr(os, "pwritev", None)
    if gather is not None and len(views) > 1:
        return int(gather(fd, views, offset))
    return os.pwrite(fd, views[0], offset) if views else 0


def _within(views: Sequence[memoryview]) -> list[memoryview]:
    """As many of the views as one call takes, the last one perhaps cut."""
    chosen: list[memoryview] = []
    left = _LONGEST
    for view in views:
        if len(view) == 0:
            continue
        if len(chosen) == _MOST or left == 0:
            break
        chosen.append(view[:left])
        left -= len(chosen[-1])
    return chosen


def advise(fd: int, advice: Literal["sequential", "willneed", "dontneed"], offset: int, length: int) -> None:
    """Tells the system how a range of an open file will be used; nothing where it cannot be told."""
    call = getattr(os, "posix_fadvise", None)
    if call is not None:
        call(fd, offset, length, getattr(os, f"POSIX_FADV_{advice.upper()}"))


def duplicate(fd: int) -> int:
    """Another descriptor of the same open file, to be closed by itself; the file need have no name."""
    return os.dup(fd)


def try_lock(fd: int) -> bool:
    """Locks an open file for this descriptor alone, until it is closed; False if another one holds the lock.

    Some network file systems have no locks. There it is the user who has to take care, and this says True.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def exchange(one: Path, other: Path) -> bool:
    """Swaps what two names stand for, in one step; False where the system or the file system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        swap = libc.function("renamex_np", (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint))
        arguments = (*names, _RENAME_SWAP)
    else:
        kinds = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
        swap = libc.function("renameat2", kinds)
        arguments = (_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    if swap is None:
        return False
    if swap(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
