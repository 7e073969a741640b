"""What killed runs have left beside outputs in a directory: listed, and removed where that is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from porter.errors import UsageError
from porter.execution.leftovers import find_leftovers, is_locked, lock_output, settle, unlock_output


@dataclass(frozen=True)
class LeftBehind:
    """One of them, of the output `output`; `nbytes` on disk; `in_use` by a porter that runs."""

    path: Path
    output: Path
    what: str
    nbytes: int
    in_use: bool


def left_behind(directory: Path) -> tuple[LeftBehind, ...]:
    """What lies in a directory, unchanged."""
    if not os.access(directory, os.R_OK | os.X_OK):
        return ()
    return tuple(
        LeftBehind(one.path, one.out, one.words, one.nbytes, is_locked(one.out))
        for one in find_leftovers(directory)
        if one.kind != "lock"
    )


def clean(directory: Path) -> tuple[str, ...]:
    """Removes what is in no use, puts back what was moved aside; what was done and what was not, in words."""
    said: list[str] = []
    for out in sorted({leftover.out for leftover in find_leftovers(directory)}):
        try:
            lock = lock_output(out)
        except UsageError as error:
            said.append(f"{error.message}: nothing of it is removed")
            continue
        except OSError as error:
            said.append(f"what is left of {out} cannot be removed: {error.strerror}")
            continue
        try:
            settle(out, None, said.append)
        finally:
            unlock_output(out, lock)
    return tuple(said)
