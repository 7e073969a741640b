"""The plan that changes nothing: every tensor of a checkpoint under its own name, as it is."""

from __future__ import annotations

from porter.containers.base import OutputFile
from porter.containers.checkpoint import Checkpoint
from porter.layout.copies import Loop
from porter.planning.plan import EXTENT, Copy, Plan, Summary


def as_stored(checkpoint: Checkpoint) -> Plan:
    """For whoever reads tensors as they are; no table is asked, and nothing is proved."""
    tensors = tuple(checkpoint.tensors.values())
    copies = tuple(
        Copy(tensor.name, tensor.name, tensor.name, 0, 0, (Loop(tensor.elements, 1, 1),), EXTENT)
        for tensor in tensors
    )
    files = tuple(
        OutputFile(name, checkpoint.container, size, tuple(t for t in tensors if t.file == name))
        for name, size in checkpoint.sizes.items()
    )
    return Plan(
        family="",
        source_dialect="",
        target_dialect="",
        tables={},
        hyperparameters={},
        sources=tensors,
        source_sizes=checkpoint.sizes,
        files=files,
        copies=copies,
        checks=(),
        side_files=(),
        summary=Summary(len(tensors), len(tensors)),
    )
