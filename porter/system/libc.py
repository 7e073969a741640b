"""Functions of the C library that Python does not offer."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

# Not looked for by name: None stands for what the process itself has loaded.
_LIBC = ctypes.CDLL(None, use_errno=True)


@cache
def function(name: str, arguments: Sequence[Any]) -> Any:
    """The function with arguments of these ctypes, returning a C int; None where the library lacks it."""
    found = getattr(_LIBC, name, None)
    if found is not None:
        found.argtypes = list(arguments)
        found.restype = ctypes.c_int
    return found
