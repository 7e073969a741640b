"""The ways in which a plan is run: each a source of some kind and a sink of some kind.

A runner takes a plan, the directory with the source files and a directory of its own; it returns what was
made: dtype, shape and bytes by name. A new way is one function and one entry of RUNNERS.
"""

import random
from contextlib import contextmanager

import torch
from oracle import read_safetensors

from porter.execution import checks, executor, streaming, units, writers
from porter.execution.executor import execute
from porter.execution.open_files import OpenFiles
from porter.execution.publish import publish_plan
from porter.execution.sinks import digest
from porter.execution.sinks.compare import CompareSink
from porter.execution.sinks.digest import DigestSink
from porter.execution.sinks.memory import MemorySink
from porter.execution.state_dict import StateDict
from porter.sources.in_memory import MemorySource
from porter.sources.local_files import LocalSource

_TORCH = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F64": torch.float64,
    "F8_E5M2": torch.float8_e5m2,
}
_NAME = {dtype: name for name, dtype in _TORCH.items()}


def made_in(out):
    found = {}
    for path in sorted(out.glob("*.safetensors")):
        found |= read_safetensors(path)
    return found


def in_memory(root, *, near=True):
    source = MemorySource({path.name: path.read_bytes() for path in root.iterdir()})
    source.near = near
    return source


def near_to_directory(plan, source, work):
    return made_in(publish_plan(plan, LocalSource(source), work / "near").out)


def memory_to_directory(plan, source, work):
    return made_in(publish_plan(plan, in_memory(source), work / "memory").out)


def far_to_directory(plan, source, work):
    """From afar every byte passes by once, and what needs more than one look is spooled."""
    return made_in(publish_plan(plan, in_memory(source, near=False), work / "far").out)


def near_to_state_dict(plan, source, work):
    return {
        name: (
            _NAME[tensor.dtype],
            tuple(tensor.shape),
            tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"",
        )
        for name, tensor in StateDict(plan, LocalSource(source)).items()
    }


def described(plan, contents):
    return {t.name: (t.dtype.name, t.shape, bytes(contents[t.name])) for t in plan.targets()}


def near_to_memory(plan, source, work):
    sink = MemorySink()
    execute(plan, LocalSource(source), sink)
    return described(plan, sink.tensors)


def far_to_memory(plan, source, work):
    sink = MemorySink()
    execute(plan, in_memory(source, near=False), sink)
    return described(plan, sink.tensors)


RUNNERS = {
    "near to directory": near_to_directory,
    "memory to directory": memory_to_directory,
    "far to directory": far_to_directory,
    "near to state dict": near_to_state_dict,
    "near to memory": near_to_memory,
    "far to memory": far_to_memory,
}


def compared(plan, source, out):
    """The tensors that a comparison with an output finds unequal."""
    from porter.containers.checkpoint import open_checkpoint
    from porter.sources.local import Location

    there = open_checkpoint(Location(out, None, "out"))
    with OpenFiles(LocalSource(out), there.sizes) as files:
        sink = CompareSink(there.tensors, files)
        execute(plan, LocalSource(source), sink)
    return sink.differing


def hashed(plan, source):
    """The digest of each tensor that a plan makes: the sha256 of those of its pieces."""
    sink = DigestSink()
    execute(plan, LocalSource(source), sink)
    return sink.digests


@contextmanager
def few_bytes(seed):
    """Chunks, ranges and buffers of a few bytes, so that each tensor has several."""
    chance = random.Random(seed)
    small = [
        (streaming, "CHUNK", chance.choice((40, 97, 256))),
        (units, "RANGE", chance.choice((16, 40, 1 << 10))),
        (writers, "WRITE", chance.choice((8, 24, 512 << 10))),
        (checks, "BUFFER", chance.choice((8, 1 << 20))),
        (executor, "_SIDE_BUFFER", 16),
        (digest, "PIECE", chance.choice((8, 24, 256 << 10))),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in small]
    try:
        for module, name, value in small:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
