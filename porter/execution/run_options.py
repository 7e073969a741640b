"""What a user may choose about how a plan is run; none of it changes the bytes of the output."""

from __future__ import annotations

import re
from dataclasses import dataclass

from porter.errors import UsageError
from porter.wording import option

AUTO, ALWAYS, NEVER = "auto", "always", "never"

# Bytes beyond the interpreter.
MAX_MEMORY = 512 << 20

# Bytes. Below this a transpose would be written in runs shorter than a page.
LEAST_MEMORY = 8 << 20


@dataclass(frozen=True)
class RunOptions:
    """`reflink` shares blocks with the source, `digest` hashes weight files on the way: auto|always|never.

    `resume` keeps a journal and goes on where an earlier run was stopped. `max_memory` is in bytes, for
    all buffers together. `on` is the cluster that runs it: `ray`, or `ray=ADDRESS` for one that runs.
    Raises UsageError for other words and for too little memory.
    """

    reflink: str = AUTO
    digest: str = AUTO
    resume: bool = True
    max_memory: int = MAX_MEMORY
    on: str | None = None

    def __post_init__(self) -> None:
        for name, word in (("reflink", self.reflink), ("digest", self.digest)):
            if word not in (AUTO, ALWAYS, NEVER):
                raise UsageError(f"{option(name)} must be auto, always or never, not {word!r}")
        if self.on is not None and self.on.partition("=")[0] != "ray":
            raise UsageError(f"{option('on')} must be ray or ray=ADDRESS, not {self.on!r}")
        if not isinstance(self.max_memory, int):
            raise UsageError(f"{option('max-memory')} must be bytes, not {self.max_memory!r}")
        if self.max_memory < LEAST_MEMORY:
            raise UsageError(
                f"{option('max-memory')} of {self.max_memory} bytes is too little",
                hint=f"at least {LEAST_MEMORY >> 20}MiB",
            )


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}


def memory_spoken(text: str) -> int:
    """Bytes, as a user says them: `512MB`, `1GiB`, `700000000`. Raises UsageError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMG]?I?)B?", text.strip().upper())
    if found is None or found[2] not in _UNITS:
        raise UsageError(f"{text!r} is no amount of memory", hint="bytes, or text such as 512MB or 1GiB")
    return int(float(found[1]) * _UNITS[found[2]])
