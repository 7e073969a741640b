"""Ray as what carries the tasks: so many under way as the cluster has processors for, lost ones run again.

Only slices of the plan and records pass through Ray; a tensor never enters its object store. A task declares
a processor and its memory. Ray is found at an address, or started on this machine for the run.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from porter.errors import PorterError, UsageError
from porter.execution.cluster.divide import MEMORY
from porter.execution.watch import Watch
from porter.sources.buckets.bucket_errors import Unreachable, needs_extra
from porter.wording import option

# Tasks under way for each processor: one runs, one waits, so that none is idle between two.
_AHEAD = 2

# A task is made again so often where its worker, its node or the network was lost.
_ATTEMPTS = 4

# Seconds to wait for tasks that were cancelled.
_PATIENCE = 20.0


@dataclass
class RayPool:
    """Use it as a context. `address` is `host:port`, `ray://host:port`, `auto`, or None: RAY_ADDRESS, a Ray
    that runs on this machine, or a new one.
    """

    address: str | None = None
    memory: int = MEMORY
    lost: int = 0
    _started: bool = field(default=False, init=False)

    def __enter__(self) -> Self:
        ray = _ray()
        if not ray.is_initialized():
            # Of a Ray that is started here, what it would ask for: usage statistics, a dashboard, a log.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            try:
                ray.init(
                    address=self.address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **_loopback(self.address),
                )
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                raise PorterError(
                    f"there is no Ray at {self.address or 'this machine'}",
                    cause=str(error).split("\n", 1)[0][:200],
                    hint=f"ray start --head, there; or {option('on', 'ray')} alone, for one on this machine",
                ) from error
            self._started = True
        self._check_memory()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            _ray().shutdown()

    @property
    def workers(self) -> int:
        """Processors of all nodes."""
        return max(1, int(_ray().cluster_resources().get("CPU", 1)))

    def _check_memory(self) -> None:
        """Raises UsageError where no node has the memory that a task declares: it would wait for ever."""
        nodes = [node for node in _ray().nodes() if node["Alive"]]
        most = max((node["Resources"].get("memory", 0) for node in nodes), default=0)
        if most < self.memory:
            raise UsageError(
                "no node of the cluster has the memory for a task",
                cause=f"a task takes {self.memory >> 20} MiB, the largest node offers {int(most) >> 20}",
                hint="start nodes with more memory (ray start --memory)",
            )

    def map(
        self, function: Callable[..., Any], shared: Any, items: Iterable[tuple[Any, ...]], watch: Watch
    ) -> Iterator[Any]:
        ray = _ray()
        from ray.exceptions import RayError, RayTaskError

        remote = ray.remote(num_cpus=1, memory=self.memory, max_retries=0, scheduling_strategy="SPREAD")(
            function
        )
        common, waiting = ray.put(shared), iter([(item, 1) for item in items])
        again: list[tuple[tuple[Any, ...], int]] = []
        flying: dict[Any, tuple[tuple[Any, ...], int]] = {}
        try:
            while True:
                while len(flying) < _AHEAD * self.workers:
                    found = again.pop() if again else next(waiting, None)
                    if found is None:
                        break
                    flying[remote.remote(common, *found[0])] = found
                if not flying:
                    return
                ready, _ = ray.wait(list(flying), num_returns=1, timeout=1.0)
                for reference in ready:
                    item, attempt = flying.pop(reference)
                    try:
                        yield ray.get(reference)
                    except RayTaskError as error:
                        cause = error.cause
                        if not isinstance(cause, Unreachable) or attempt == _ATTEMPTS:
                            raise _own(error) from None
                        watch.notice(f"a task is made again: {cause.message}")
                        again.append((item, attempt + 1))
                    except RayError as error:
                        # The worker, or all of its machine, is gone.
                        self.lost += 1
                        if attempt == _ATTEMPTS:
                            raise PorterError(
                                f"a task was lost {_ATTEMPTS} times",
                                cause=str(error).split("\n", 1)[0][:200],
                                hint="does it have the memory that it needs? The same command goes on",
                            ) from None
                        watch.notice(f"a worker was lost; its task is made again ({type(error).__name__})")
                        again.append((item, attempt + 1))
        finally:
            self._cancel(list(flying))

    @staticmethod
    def _cancel(flying: list[Any]) -> None:
        """Nothing may be written any more when whoever asked begins to clear up."""
        ray = _ray()
        from ray.exceptions import RayError

        for reference in flying:
            try:
                ray.cancel(reference, force=True)
            except (RayError, ValueError):
                continue
        end = time.monotonic() + _PATIENCE
        while flying and time.monotonic() < end:
            _, flying = ray.wait(flying, num_returns=len(flying), timeout=1.0)


def _loopback(address: str | None) -> dict[str, str]:
    """A Ray on the loopback is looked for at this machine's other address unless it is told not to."""
    host = (address or "").removeprefix("ray://").partition(":")[0]
    return {"_node_ip_address": host} if host.startswith("127.") and "://" not in (address or "") else {}


def require_ray() -> None:
    """Raises UnsupportedError where Ray is not installed. It is not imported, which takes a second."""
    if find_spec("ray") is None:
        raise needs_extra("ray", "ray", option("on", "ray"))


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise needs_extra("ray", "ray", option("on", "ray")) from None


def _own(error: Any) -> BaseException:
    """What a task has raised, as it raised it."""
    cause = error.cause
    if isinstance(cause, PorterError | KeyboardInterrupt | MemoryError):
        return cause
    return PorterError("a task failed", cause=f"{type(cause).__name__}: {cause}"[:300])
