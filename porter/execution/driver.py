"""What runs the units of a plan in the place of this process: a cluster. `execute` does all else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from porter.execution.run_options import RunOptions
from porter.execution.sinks.base import Ranges, Sink
from porter.execution.watch import Watch
from porter.planning.plan import Plan
from porter.sources.base import Source


class PartSum(NamedTuple):
    """Bytes `start` to `end` of an output file, as who wrote them summed them: CRC-32, and sha256 in hex."""

    start: int
    end: int
    crc: int
    digest: str


@dataclass(frozen=True)
class Written:
    """A finished file's `sha256:<hex>` where known, how many of its bytes share blocks with a source, and
    its CRC-32 and its parts where it was made in parts.
    """

    digest: str | None
    shared: int
    crc: int | None = None
    parts: tuple[PartSum, ...] = ()


class Driver(Protocol):
    @property
    def key(self) -> Mapping[str, Any]:
        """What has to be the same for a later run to go on."""
        ...

    def check(self, plan: Plan, source: Source, watch: Watch) -> None:
        """Runs all checks of the plan. Raises DifferenceError at the first failure."""
        ...

    def run(
        self,
        plan: Plan,
        source: Source,
        sink: Sink,
        kept: Mapping[str, Ranges],
        options: RunOptions,
        watch: Watch,
    ) -> Mapping[str, Written]:
        """Makes every output file of the plan, ready to be committed."""
        ...
