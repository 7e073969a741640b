"""What a user may choose about how a plan is run; none of it changes the bytes of the output."""

from __future__ import annotations

from dataclasses import dataclass

from porter.errors import UsageError

AUTO, ALWAYS, NEVER = "auto", "always", "never"

# Bytes beyond the interpreter and torch.
MAX_MEMORY = 512 << 20

# Bytes. Below this a transpose would be written in runs shorter than a page.
LEAST_MEMORY = 8 << 20


@dataclass(frozen=True)
class ExecutionOptions:
    """`reflink`: share blocks with the source. `digest`: hash weight files on the way. Both auto|always|never.

    `resume` keeps a journal and goes on where an earlier run was stopped. `max_memory` is in bytes, for
    all buffers together. Raises UsageError for other words and for too little memory.
    """

    reflink: str = AUTO
    digest: str = AUTO
    resume: bool = True
    max_memory: int = MAX_MEMORY

    def __post_init__(self) -> None:
        for option, word in (("--reflink", self.reflink), ("--digest", self.digest)):
            if word not in (AUTO, ALWAYS, NEVER):
                raise UsageError(f"{option} must be auto, always or never, not {word!r}")
        if self.max_memory < LEAST_MEMORY:
            raise UsageError(
                f"--max-memory of {self.max_memory} bytes is too little",
                hint=f"at least {LEAST_MEMORY >> 20}MB",
            )
