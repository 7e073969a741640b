"""What a caller may watch of a run: one value with the things to be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(told: object) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """`progress` is told of bytes that have got their final value: (file, bytes since the last call); they
    add up to the files' sizes. `moving` is told of each target tensor, or source file, that is begun,
    `notice` of what a user should know. `arriving` is told of bytes of a source file on the Hub as they come,
    which is before anything of the output has its final value. `expect` is told, before the first of them,
    how many bytes `progress` will be told of. All may be called from other threads.
    """

    progress: Callable[[str, int], None] | None = None
    moving: Callable[[str], None] = _ignore
    notice: Callable[[str], None] = _ignore
    arriving: Callable[[str, int], None] | None = None
    expect: Callable[[int], None] = _ignore
