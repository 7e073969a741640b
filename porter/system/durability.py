"""Bytes and names that outlive a power cut. Every failure is an OSError: none of them may be passed over.

macOS' fsync hands the bytes to the drive, which may keep them in its cache; F_FULLFSYNC waits for the disk.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path

from porter.system import libc

# From Linux' <fcntl.h>.
_SYNC_FILE_RANGE_WRITE = 2

# What file systems answer that cannot do it: then a plainer call is made.
_CANNOT = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.ENODEV}


def sync_file(fd: int) -> None:
    """Makes an open file's bytes, size and times durable."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(fd, full)
            return
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    os.fsync(fd)


def sync_data(fd: int) -> None:
    """Makes an open file's bytes durable, and of the rest only what is needed to read them."""
    data = getattr(os, "fdatasync", None)
    if data is None or hasattr(fcntl, "F_FULLFSYNC"):
        sync_file(fd)
    else:
        data(fd)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable, where its file system can do that at all."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(fd)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(fd)


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Lets the disk begin with these bytes, and does not wait for it: the sync at the end has less to do."""
    call = libc.function("sync_file_range", (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint))
    if call is not None:
        call(fd, offset, length, _SYNC_FILE_RANGE_WRITE)
