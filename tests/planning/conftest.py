"""Small families written for a test, small checkpoints on disk, and a plan run on NumPy arrays."""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from porter.config.write import dump_config, write_config
from porter.containers.base import Header, StoredTensor
from porter.containers.checkpoint import Checkpoint
from porter.dtypes import DTYPES
from porter.layout import runs
from porter.planning.build import build_plan
from porter.planning.plan_options import PlanOptions
from porter.recognition.identify import Identity
from porter.recognition.stored_names import NameMatcher
from porter.tables import Family, load_families
from porter.tables.bind import bind_dialect
from porter.tables.load import load_canonical, load_dialect


@dataclass
class Lab:
    """Families of a test's own. Tables are given as text; a checkpoint is only its headers."""

    root: Path

    def family(self, canonical: str, **dialects: str) -> Family:
        folder = self.root / "lab"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "canonical.toml").write_text(textwrap.dedent(canonical), "utf-8")
        loaded = load_canonical(folder / "canonical.toml", self.root)
        found = {}
        for name, text in dialects.items():
            head = f'family = "lab"\ndialect = "{name}"\n[files]\nweights = "{name}.safetensors"\n'
            (folder / f"{name}.toml").write_text(head + textwrap.dedent(text), "utf-8")
            found[name] = load_dialect(folder / f"{name}.toml", self.root, loaded)
        return Family(loaded, found)

    def checkpoint(self, shapes, dtypes=None, label="lab") -> Checkpoint:
        tensors, offset = [], 8
        for name, shape in shapes.items():
            dtype = DTYPES[(dtypes or {}).get(name, "F32")]
            tensors.append(StoredTensor(name, dtype, tuple(shape), "x.safetensors", offset))
            offset += tensors[-1].nbytes
        header = Header("safetensors", "x.safetensors", offset, tuple(tensors))
        return Checkpoint(self.root, label, "safetensors", (header,), {})

    def identity(self, family, dialect, checkpoint, hyperparameters) -> Identity:
        found = family.dialect(dialect)
        matcher = NameMatcher(found)
        names = {name: matcher.spelled(name) for name in checkpoint.tensors if matcher.spelled(name)}
        neutral = {name: item.neutral for name, item in family.canonical.hyperparameters.items()}
        return Identity(
            family=family,
            dialect=found,
            hyperparameters={**neutral, **hyperparameters},
            raw={},
            names=names,
            unknown_fields=(),
        )

    def plan(self, family, source, target, shapes, hyperparameters, *, dtypes=None, **options):
        checkpoint = self.checkpoint(shapes, dtypes)
        identity = self.identity(family, source, checkpoint, hyperparameters)
        return build_plan(checkpoint, identity, family.dialect(target), PlanOptions(**options))

    def convert(self, family, source, target, arrays, hyperparameters):
        """The target's arrays by name: the plan's runs, one by one, over flat buffers."""
        shapes = {name: array.shape for name, array in arrays.items()}
        plan = self.plan(family, source, target, shapes, hyperparameters)
        return plan, run(plan, arrays)


def run(plan, arrays):
    made = {tensor.name: np.full(tensor.elements, -1) for tensor in plan.targets()}
    for copy in plan.copies:
        source = np.ascontiguousarray(arrays[copy.source]).reshape(-1)
        for one in runs(copy.loops, copy.source_offset, copy.target_offset):
            made[copy.target][one.target : one.target + one.length] = source[
                one.source : one.source + one.length
            ]
    return {tensor.name: made[tensor.name].reshape(tensor.shape) for tensor in plan.targets()}


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path / "mappings")


@pytest.fixture(scope="session")
def numbers():
    """An array of a shape whose elements are all different, also from another `start`."""
    return lambda *shape, start=0: start + np.arange(int(np.prod(shape))).reshape(shape)


class Shipped:
    """Tiny checkpoints of the shipped families, as files."""

    families = load_families()

    def example(self, family, **changes):
        canonical = self.families[family].canonical
        neutral = {name: item.neutral for name, item in canonical.hyperparameters.items()}
        return {**neutral, **canonical.example, **changes}

    def shapes(self, family, dialect, **changes):
        found = self.families[family]
        hyperparameters = self.example(family, **changes)
        return {
            t.name: t.shape for t in bind_dialect(found.dialect(dialect), found.canonical, hyperparameters)
        }

    def write(self, folder, family, dialect, *, drop=(), add=None, dtype=np.float16, dtypes=None, **changes):
        """A directory with config and weights; `drop` and `add` make it a wrong one."""
        found = self.families[family]
        shapes = self.shapes(family, dialect, **changes)
        config = write_config(
            found.dialect(dialect),
            found.canonical,
            self.example(family, **changes),
            shapes=shapes,
            weights_dtype="float16",
        )
        folder.mkdir(parents=True, exist_ok=True)
        file = found.dialect(dialect).config.file
        (folder / file).write_bytes(dump_config(config, file))
        shapes = {name: shape for name, shape in shapes.items() if name not in drop} | (add or {})
        arrays = {
            name: np.zeros(shape, dtype=(dtypes or {}).get(name, dtype)) for name, shape in shapes.items()
        }
        weights = found.dialect(dialect).files.weights
        save_file(arrays, folder / weights, metadata={"format": "pt"})
        return folder


@pytest.fixture(scope="session")
def shipped():
    return Shipped()


@pytest.fixture
def as_json():
    return lambda value: json.loads(json.dumps(value))
