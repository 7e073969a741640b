"""One copy of a plan together with the two open files that it moves bytes between."""

from __future__ import annotations

from dataclasses import dataclass, field

from porter.containers.base import StoredTensor
from porter.errors import MalformedError, PorterError
from porter.execution.buffers import Buffers
from porter.execution.kernels.boxes import Box
from porter.execution.run_options import MAX_MEMORY
from porter.execution.writers import RangeWriter
from porter.layout.copies import coalesce
from porter.planning.plan import COMPUTE, Copy
from porter.sources.base import SourceFile


@dataclass(frozen=True)
class Move:
    """What an executor needs: the copy, its tensors, their files, and buffers.

    `part` is the part of the copy that is to be moved; None is all of it. `factors` are those of the
    source's rows, where it has some.
    """

    copy: Copy
    source: StoredTensor
    target: StoredTensor
    reader: SourceFile
    writer: RangeWriter
    buffers: Buffers = field(default_factory=lambda: Buffers(MAX_MEMORY))
    part: Box | None = None
    factors: tuple[StoredTensor, SourceFile] | None = None

    @property
    def box(self) -> Box:
        """What is to be moved, coalesced."""
        if self.part is not None:
            return self.part
        return Box(coalesce(self.copy.loops), self.copy.source_offset, self.copy.target_offset)

    def check(self) -> None:
        """Raises PorterError if the copy leaves its tensors or would relabel a dtype.

        A proved plan never does; a plan that came from elsewhere must not write over its neighbours.
        """
        box = self.box
        if box.elements == 0:
            return
        strides = [stride for loop in box.loops for stride in (loop.source_stride, loop.target_stride)]
        inside = (
            min(strides, default=0) >= 0
            and 0 <= box.source <= self.source.span - box.source_span
            and 0 <= box.target <= self.target.elements - box.target_span
        )
        if not inside:
            raise PorterError(f"{self.label}: the copy leaves its tensors")
        end = self.source.offset + self.source.dtype.nbytes(self.source.span)
        if end > self.reader.size:
            raise MalformedError(
                f"{self.source.file} ends inside tensor {self.source.name!r}",
                cause=f"expected {end} bytes, found {self.reader.size}",
            )
        if self.copy.copy_class != COMPUTE and self.source.dtype != self.target.dtype:
            raise PorterError(
                f"{self.label}: only a compute copy can change the dtype",
                cause=f"{self.source.dtype.name} to {self.target.dtype.name} as {self.copy.copy_class}",
            )

    @property
    def label(self) -> str:
        return f"{self.copy.source!r} to {self.copy.target!r}"
