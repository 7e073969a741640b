"""Blocks of a file: shared with another file, or reserved on the disk.

Neither is needed for a right result; both say so where the system or the file system lacks them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import sys

from porter.system import libc

# From Linux' <linux/fs.h>: _IOW(0x94, 13, struct file_clone_range).
_FICLONERANGE = 0x4020940D
_CLONE_RANGE = struct.Struct("=qQQQ")

# What file systems answer that cannot share these blocks: none at all, across devices, other block sizes.
_CANNOT = {errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EPERM, errno.EBADF}

# From macOS' <sys/fcntl.h>: fcntl F_PREALLOCATE with struct fstore (flags, posmode, offset, length,
# bytesalloc); all or nothing, counted from the end of what the file has on disk.
_F_PREALLOCATE = 42
_FSTORE = struct.Struct("=Iiqqq")
_F_ALLOCATEALL = 4
_F_PEOFPOSMODE = 3


def clone_range(source: int, source_offset: int, target: int, target_offset: int, length: int) -> str | None:
    """Makes `length` bytes of an open file share the blocks of another's; why not, where it cannot.

    Offsets and length are multiples of the file system's block. Raises OSError for failures that copying
    would meet too, such as a full disk. Only Linux shares parts of files.
    """
    if not sys.platform.startswith("linux"):
        return "this system shares only whole files"
    try:
        fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, source_offset, length, target_offset))
    except OSError as error:
        if error.errno in _CANNOT:
            return os.strerror(error.errno or 0)
        raise
    return None


def reserve(fd: int, size: int) -> None:
    """Gives the file `size` bytes, reserved on disk where the file system can. Raises OSError on a full disk.

    Reserved room is laid out in one piece: on ext4, a third less time than growing the file by writes. It
    also finds a full disk before the work is done. The C library's posix_fallocate would write zeros
    instead where it is not supported.
    """
    if sys.platform == "darwin" and size:
        _preallocate(fd, size)
    os.ftruncate(fd, size)
    call = libc.function("fallocate64", (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64))
    if call is None or size == 0:
        return
    while call(fd, 0, 0, size) != 0:
        code = ctypes.get_errno()
        if code == errno.ENOSPC:
            raise _no_room(size)
        if code != errno.EINTR:
            return


def _preallocate(fd: int, size: int) -> None:
    there = os.fstat(fd).st_blocks * 512
    if there >= size:
        return
    try:
        request = _FSTORE.pack(_F_ALLOCATEALL, _F_PEOFPOSMODE, 0, size - there, 0)
        fcntl.fcntl(fd, _F_PREALLOCATE, request)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_room(size) from error


def _no_room(size: int) -> OSError:
    return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {size} bytes are needed for one file")
