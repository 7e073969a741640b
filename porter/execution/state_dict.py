"""A plan's tensors as PyTorch tensors, each made when it is first asked for.

A tensor that is a range of a file on this machine is a view of the mapped file; all others are made by the
units that would write them, in memory. Mappings are private: writing to a tensor changes the process's own
page and never the file. A file that is cut short while it is mapped ends the process, as with every mapping.
"""

from __future__ import annotations

import mmap
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from porter.containers.base import OutputFile, StoredTensor
from porter.errors import PorterError, UnsupportedError
from porter.execution.buffers import Buffers
from porter.execution.checks import run_checks
from porter.execution.open_files import OpenFiles
from porter.execution.run_options import RunOptions
from porter.execution.run_unit import run_unit
from porter.execution.sinks.memory import MemoryWriter
from porter.execution.units import RANGE, copies_by_target, tensor_units
from porter.layout.copies import coalesce, elements
from porter.planning.plan import EXTENT, Copy, Plan
from porter.sources.base import NearFile, Source
from porter.system import forget


class StateDict(Mapping[str, Tensor]):
    """The targets of `plan`, by name, on `device`. Names whose bytes are the same share one tensor.

    Checks of the plan are run at once. Raises PorterError and its kinds, here and when a tensor is made.
    `stack` is what has to stay open for as long as this is used; it is closed with this value at the latest.
    """

    def __init__(
        self, plan: Plan, source: Source, device: str | torch.device = "cpu", stack: ExitStack | None = None
    ) -> None:
        self._plan = plan
        self._device = device
        self._stack = stack or ExitStack()
        self._files = self._stack.enter_context(OpenFiles(source, plan.source_sizes))
        weakref.finalize(self, self._stack.close)
        self._maps: dict[str, tuple[mmap.mmap, Tensor]] = {}
        self._made: dict[tuple[Any, ...], Tensor] = {}
        self._copies = copies_by_target(plan)
        run_checks(plan, self._files)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._plan!r}, on {self._device}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.target_by_name)

    def __len__(self) -> int:
        return len(self._plan.target_by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._plan.target_by_name

    def __getitem__(self, name: str) -> Tensor:
        target = self._plan.target_by_name[name]
        copies = self._copies.get(name, [])
        key = (target.shape, target.dtype.name, *map(self._content, copies))
        if key not in self._made:
            self._made[key] = self._tensor(target, copies).to(self._device)
        return self._made[key]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and saved (`torch.save`, `pickle`) as an OrderedDict of all tensors, which are made for it.

        What is a view of a file is set apart from it, or the whole file would go along.
        """
        apart: dict[tuple[int, torch.dtype, torch.Size], Tensor] = {}
        found: OrderedDict[str, Tensor] = OrderedDict()
        for name, tensor in self.items():
            key = tensor.data_ptr(), tensor.dtype, tensor.shape
            if key not in apart:
                whole = tensor.untyped_storage().nbytes() == tensor.nbytes
                apart[key] = tensor if whole else tensor.clone()
            found[name] = apart[key]
        return OrderedDict, (), None, None, iter(found.items())

    def release(self) -> None:
        """Lets go of the tensors that were made, and of the pages that were read through views.

        For whoever walks through a model that does not fit. A tensor that is still held stays valid, and is
        read again; but what was written to a view of the file is lost.
        """
        self._made.clear()
        for mapped, _ in self._maps.values():
            forget(mapped, 0, len(mapped))

    def close(self) -> None:
        """Lets the files go. Tensors that were made stay valid."""
        self._stack.close()

    def _content(self, copy: Copy) -> tuple[Any, ...]:
        """What makes two targets the same bytes: then they share one tensor, as tied weights do."""
        source = self._plan.source_by_name.get(copy.source)
        place = (source.file, source.offset, source.dtype.name) if source is not None else ()
        return (place, copy.source_offset, copy.target_offset, copy.loops, copy.operations)

    def _tensor(self, target: StoredTensor, copies: list[Copy]) -> Tensor:
        dtype = torch_dtype(target)
        if not target.elements:
            return torch.empty(target.shape, dtype=dtype)
        raw = self._view(target, copies)
        if raw is None:
            size = target.offset + target.nbytes
            writer = MemoryWriter(OutputFile(target.file, "", size, (target,)))
            buffers = Buffers(RunOptions().max_memory)
            for unit in tensor_units(self._plan, target, copies, RANGE):
                run_unit(unit, self._files, writer, buffers)
            raw = torch.frombuffer(writer.content(target), dtype=torch.uint8)
        return raw.view(dtype).view(target.shape)

    def _view(self, target: StoredTensor, copies: list[Copy]) -> Tensor | None:
        """The target's bytes as they are mapped; None where they are not one range of a file here."""
        if len(copies) != 1 or copies[0].copy_class != EXTENT:
            return None
        (copy,) = copies
        source = self._plan.source_by_name[copy.source]
        loops = coalesce(copy.loops)
        whole = len(loops) <= 1 and elements(loops) == target.elements
        if not whole or source.dtype != target.dtype:
            return None
        file = self._files[source.file]
        if not isinstance(file, NearFile):
            return None
        start = source.offset + source.dtype.nbytes(copy.source_offset)
        if start + target.nbytes > file.size:
            raise PorterError(f"{source.file} ends inside {source.name!r}")
        # A view as wider numbers must begin at one.
        if start % target.dtype.itemsize:
            return None
        return self._map(source.file, file)[start : start + target.nbytes]

    def _map(self, name: str, file: NearFile) -> Tensor:
        if name not in self._maps:
            mapped = mmap.mmap(file.fd, file.size, access=mmap.ACCESS_COPY)
            self._maps[name] = mapped, torch.frombuffer(mapped, dtype=torch.uint8)
        return self._maps[name][1]


def torch_dtype(tensor: StoredTensor) -> torch.dtype:
    """The dtype of a stored tensor. Raises UnsupportedError where torch has none."""
    found = getattr(torch, tensor.dtype.torch or "", None)
    if not isinstance(found, torch.dtype):
        raise UnsupportedError(f"torch has no dtype for {tensor.name!r}", cause=tensor.dtype.name)
    return found
