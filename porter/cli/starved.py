"""An end for a run in which a thread could not begin.

A new thread takes memory for its first frame. Where the system gives none, CPython ends the thread before any
of its code has run, tells `sys.unraisablehook` alone, and leaves whoever started it waiting for ever. So the
hook ends the process: what is published then is what was published before, as after a kill.
"""

from __future__ import annotations

import os
import sys

_SAID = (
    b"error: memory ran out as a thread was to begin\n"
    b"cause: the system gives no more memory\n"
    b"hint: close other programs; the same command goes on with what is done\n"
)
_FAILURE = 1


def watch_threads() -> None:
    """Once in the life of a command, before its first thread."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is MemoryError and "thread started" in (unraisable.err_msg or ""):
            os.write(2, _SAID)
            os._exit(_FAILURE)
        before(unraisable)

    sys.unraisablehook = hook
