"""A pytest plugin that takes from the process what CPython lacks on macOS: a use of it fails as there.

Used as `-p as_on_macos` by test_as_on_macos.
"""

import builtins
import importlib
import io
import os

ABSENT = (
    "fdatasync",
    "posix_fallocate",
    "posix_fadvise",
    "copy_file_range",
    "memfd_create",
    "splice",
    "eventfd",
    "getrandom",
    "sched_getaffinity",
    "sched_setaffinity",
    "O_TMPFILE",
    "O_DIRECT",
    "O_PATH",
)
LINUX_LIBC = {"renameat2", "sync_file_range", "fallocate", "fallocate64", "copy_file_range", "memfd_create"}


def _no_proc(call):
    def opened(path, *given, **options):
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory", os.fsdecode(path))
        return call(path, *given, **options)

    return opened


def pytest_configure():
    # These ask for what they need when they are imported, and are not porter's.
    for name in ("multiprocessing", "random", "subprocess", "numpy", "torch"):
        importlib.import_module(name)
    import mmap
    import tempfile

    from porter.system import libc

    for name in ABSENT:
        if hasattr(os, name):
            delattr(os, name)
    # Looked up when that module was imported.
    tempfile._O_TMPFILE_WORKS = False
    for name in ("MADV_HUGEPAGE", "MAP_POPULATE"):
        if hasattr(mmap, name):
            delattr(mmap, name)
    os.open, builtins.open, io.open = _no_proc(os.open), _no_proc(builtins.open), _no_proc(io.open)
    function = libc.function
    libc.function = lambda name, arguments: None if name in LINUX_LIBC else function(name, arguments)
