"""The ways in which a plan is run: each a source of some kind and a sink of some kind.

A runner takes a plan, the directory with the source files and a directory of its own; it returns what was
made: dtype, shape and bytes by name. A new way is one function and one entry of RUNNERS.
"""

import hashlib
import random
from contextlib import contextmanager
from pathlib import Path

import torch
from oracle import read_safetensors

from porter.api import state_dict
from porter.execution import checks, open_files, run, streaming, units
from porter.execution.remote import execute_remote
from porter.execution.run import execute

_TORCH = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U8": torch.uint8,
}
_NAME = {dtype: name for name, dtype in _TORCH.items()}


def made_in(out):
    found = {}
    for path in sorted(out.glob("*.safetensors")):
        found |= read_safetensors(path)
    return found


def near_to_directory(plan, source, work):
    return made_in(execute(plan, source, work / "near").out)


def near_to_memory(plan, source, work):
    loaded = state_dict._load(state_dict._Loader(plan, source, {}), plan, "cpu")
    return {
        name: (
            _NAME[tensor.dtype],
            tuple(tensor.shape),
            tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"",
        )
        for name, tensor in loaded.items()
    }


class Far:
    """Files that are read by ranges, with a digest each."""

    version = "one"

    def __init__(self, root: Path) -> None:
        self.content = {path.name: path.read_bytes() for path in root.iterdir()}

    def read(self, file, start, view, stopped):
        view[:] = self.content[file][start : start + len(view)]

    def sha256(self, file):
        return hashlib.sha256(self.content[file]).hexdigest()


def far_to_directory(plan, source, work):
    return made_in(execute_remote(plan, Far(source), source, work / "far").out)


RUNNERS = {
    "near to directory": near_to_directory,
    "near to memory": near_to_memory,
    "far to directory": far_to_directory,
}


@contextmanager
def few_bytes(seed):
    """Chunks, ranges and buffers of a few bytes, so that each tensor has several."""
    chance = random.Random(seed)
    small = [
        (streaming, "CHUNK", chance.choice((40, 97, 256))),
        (streaming, "NOTED_EVERY", 64),
        (units, "RANGE", chance.choice((16, 40, 1 << 10))),
        (open_files, "WRITE", chance.choice((8, 24, 512 << 10))),
        (checks, "BUFFER", chance.choice((8, 1 << 20))),
        (run, "_SIDE_BUFFER", 16),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in small]
    try:
        for module, name, value in small:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
