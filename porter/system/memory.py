"""Memory that is taken from the system in pages, and pages that are given back."""

from __future__ import annotations

import contextlib
import ctypes
import mmap

from porter.system import libc


def anonymous_memory(size: int) -> memoryview:
    """`size` bytes of zeros, in huge pages where the system has them; they go with the last reference."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    huge = getattr(mmap, "MADV_HUGEPAGE", None)
    if huge is not None:
        # A kernel without them says EINVAL.
        with contextlib.suppress(OSError):
            pages.madvise(huge)
    return memoryview(pages)


def forget(mapped: mmap.mmap, start: int, end: int) -> None:
    """Unmaps the pages of a mapped file that hold bytes `start` to `end`; they stay in the system's cache."""
    unneeded = getattr(mmap, "MADV_DONTNEED", None)
    if unneeded is not None:
        first = start - start % mmap.PAGESIZE
        mapped.madvise(unneeded, first, min(end, len(mapped)) - first)


def trim() -> None:
    """Gives back to the system what the C library keeps of freed memory; a library without that keeps it."""
    found = libc.function("malloc_trim", (ctypes.c_size_t,))
    if found is not None:
        found(0)
