"""Small plans made by hand: raw source tensors in one file, and what each copy does with them."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from porter.containers.base import StoredTensor
from porter.containers.safetensors.safetensors_writer import place
from porter.dtypes import DTYPES
from porter.execution.publish import publish_plan
from porter.execution.watch import Watch
from porter.planning.plan import Plan, Summary
from porter.sources.local_files import LocalSource

SOURCE = "source.bin"


@dataclass
class Workbench:
    """Collects tensors and copies, makes a plan of them, and reads what came out."""

    root: Path
    tensors: list = field(default_factory=list)
    targets: list = field(default_factory=list)
    copies: list = field(default_factory=list)
    checks: list = field(default_factory=list)
    side_files: list = field(default_factory=list)
    # Not a multiple of any item size: other people's files are not aligned.
    content: bytearray = field(default_factory=lambda: bytearray(b"HEAD\0"))

    @property
    def source_root(self) -> Path:
        return self.root / "source"

    def source(self, name, dtype, shape, data: bytes):
        stored = StoredTensor(name, DTYPES[dtype], tuple(shape), SOURCE, len(self.content))
        assert stored.nbytes == len(data)
        self.tensors.append(stored)
        self.content += data

    def target(self, name, dtype, shape):
        self.targets.append((name, DTYPES[dtype], tuple(shape)))

    def plan(self) -> Plan:
        self.source_root.mkdir(parents=True, exist_ok=True)
        path = self.source_root / SOURCE
        # A source that did not change keeps its time.
        if not path.exists() or path.read_bytes() != self.content:
            path.write_bytes(self.content)
        return Plan(
            family="test",
            source_dialect="a",
            target_dialect="b",
            tables={},
            hyperparameters={},
            sources=tuple(self.tensors),
            source_sizes={SOURCE: len(self.content)},
            files=(place("model.safetensors", self.targets, {"format": "pt"}),),
            copies=tuple(self.copies),
            checks=tuple(self.checks),
            side_files=tuple(self.side_files),
            summary=Summary(len(self.tensors), len(self.targets)),
        )

    def run(self, name="out", **options):
        plan = self.plan()
        watch = Watch(**{key: options.pop(key) for key in ("progress", "moving", "notice") if key in options})
        result = publish_plan(plan, LocalSource(self.source_root), self.root / name, watch=watch, **options)
        raw = (self.root / name / "model.safetensors").read_bytes()
        return result, {
            tensor.name: raw[tensor.offset : tensor.offset + tensor.nbytes] for tensor in plan.targets()
        }


@pytest.fixture
def bench(tmp_path):
    return Workbench(tmp_path)


@pytest.fixture
def new_bench(tmp_path_factory):
    """A fresh workbench at each call, for tests that run many examples."""
    return lambda: Workbench(tmp_path_factory.mktemp("bench"))
