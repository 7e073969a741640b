"""The tensors that a plan would make, read by ranges of elements and never written."""

from __future__ import annotations

from porter.execution.buffers import Buffers
from porter.execution.open_files import OpenFiles
from porter.execution.run_unit import run_unit
from porter.execution.units import Part, copies_by_target, cut_unit, tensor_parts
from porter.execution.writers import MemoryRange
from porter.planning.plan import Plan

# Elements that are made at once. Ranges that follow one another are served from them.
WINDOW = 2 << 20


class PlannedValues:
    """For one thread. `memory` is in bytes, for the buffers of what turns and casts."""

    def __init__(self, plan: Plan, files: OpenFiles, memory: int) -> None:
        self._plan, self._files = plan, files
        self._copies = copies_by_target(plan)
        self._buffers = Buffers(memory)
        self._parts: tuple[str, list[Part]] = "", []
        self._held: tuple[str, int, int] = "", 0, 0
        self._room = bytearray()

    def read(self, name: str, low: int, high: int) -> memoryview:
        """The bytes of elements `low` to `high` of a tensor; valid until the next call."""
        tensor = self._plan.target_by_name[name]
        held, start, stop = self._held
        if held != name or not start <= low <= high <= stop:
            start, stop = low, min(max(high, low + WINDOW), tensor.elements)
            self._make(name, start, stop)
        item = tensor.dtype.itemsize
        return memoryview(self._room)[(low - start) * item : (high - start) * item]

    def _make(self, name: str, low: int, high: int) -> None:
        tensor = self._plan.target_by_name[name]
        if self._parts[0] != name:
            self._parts = name, tensor_parts(self._plan, tensor, self._copies[name])
        unit = cut_unit(tensor, self._parts[1], low, high)
        self._held = "", 0, 0
        if len(self._room) < unit.nbytes:
            self._room = bytearray(unit.nbytes)
        run_unit(unit, self._files, MemoryRange(name, unit.start, self._room), self._buffers)
        self._held = name, low, high
