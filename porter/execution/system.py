"""System calls that Python does not offer: sharing blocks, reserving room, starting writeback.

Each says False, or why not, where the system or the file system lacks it; none is needed for a right result.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

# From Linux' <linux/fs.h>: _IOW(0x94, 13, struct file_clone_range).
_FICLONERANGE = 0x4020940D
_CLONE_RANGE = struct.Struct("=qQQQ")

# From Linux' <fcntl.h>.
_SYNC_FILE_RANGE_WRITE = 2

# What file systems answer that cannot share these blocks: none at all, across devices, other block sizes.
_CANNOT = {errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EPERM, errno.EBADF}

_LIBC = ctypes.CDLL(None, use_errno=True)


def clone_range(source: int, source_offset: int, target: int, target_offset: int, length: int) -> str | None:
    """Makes `length` bytes of an open file share the blocks of another's; why not, where it cannot.

    Offsets and length are multiples of the file system's block. Raises OSError for failures that copying
    would meet too, such as a full disk.
    """
    try:
        fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, source_offset, length, target_offset))
    except OSError as error:
        if error.errno in _CANNOT:
            return os.strerror(error.errno or 0)
        raise
    return None


def reserve(fd: int, size: int) -> None:
    """Gives the file `size` bytes, reserved on disk where the file system can.

    Reserved room is laid out in one piece: on ext4, a third less time than growing the file by writes. It
    also finds a full disk before the work is done. The C library's posix_fallocate would write zeros
    instead where it is not supported.
    """
    os.ftruncate(fd, size)
    call = getattr(_LIBC, "fallocate64", None)
    if call is None or size == 0:
        return
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while call(fd, 0, 0, size) != 0:
        code = ctypes.get_errno()
        if code == errno.ENOSPC:
            raise OSError(code, f"{os.strerror(code)}: {size} bytes are needed for one file")
        if code != errno.EINTR:
            return


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Lets the disk begin with these bytes, and does not wait for it: the fsync at the end has less to do."""
    call = getattr(_LIBC, "sync_file_range", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        call(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def sync_data(fd: int) -> None:
    """Makes a file's bytes durable. Raises OSError."""
    os.fdatasync(fd)
