"""What killed runs have left beside outputs in a directory: listed, and removed where that is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from porter.errors import UsageError
from porter.execution.leftovers import find_leftovers, is_locked, lock_output, settle, unlock_output
from porter.execution.sinks.bucket_leftovers import end_leftover, find_bucket_leftovers
from porter.sources.buckets.bucket_address import BucketAddress


@dataclass(frozen=True)
class LeftBehind:
    """One of them, of the output `output`; `nbytes` on disk; `in_use` by a porter that runs.

    `path` and `output` are text for what lies in a bucket.
    """

    path: Path | str
    output: Path | str
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


def left_in_bucket(folder: BucketAddress) -> tuple[LeftBehind, ...]:
    """What lies in a folder of a bucket and below it, unchanged."""
    return tuple(
        LeftBehind(
            one.out.url,
            one.out.url,
            f"{len(one.uploads)} unfinished uploads" if one.claim else "an upload of another program's",
            one.nbytes,
            # What nobody has claimed may be in use.
            one.in_use or one.claim is None,
        )
        for one in find_bucket_leftovers(folder)
    )


def clean_bucket(folder: BucketAddress) -> tuple[str, ...]:
    """Ends what is in no use, in a folder of a bucket and below it; what was done and was not, in words."""
    said: list[str] = []
    for left in find_bucket_leftovers(folder):
        if left.claim is None:
            said.append(
                f"an upload to {left.out.url} was not begun by porter, or has lost its claim: left alone"
            )
        elif left.in_use:
            said.append(f"another porter is writing {left.out.url}: nothing of it is removed")
        else:
            nbytes = left.nbytes
            try:
                end_leftover(left)
            except UsageError as error:
                said.append(f"{error.message}: nothing of it is removed")
                continue
            said.append(
                f"an unfinished conversion to {left.out.url} is removed: {len(left.uploads)} uploads, "
                f"{nbytes / 1e6:.1f} MB"
            )
    return tuple(said)


def clean_directory(directory: Path) -> tuple[str, ...]:
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
