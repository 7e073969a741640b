"""A torch file that a run writes holds true checksums, also after a resumption, and torch loads it."""

import random
import zipfile
from dataclasses import replace

import pytest
import torch

from porter.containers.torch import torch_zip_writer
from porter.dtypes import DTYPES
from porter.execution import journal, units
from porter.execution.publish import publish_plan
from porter.execution.run_options import RunOptions
from porter.execution.sinks.directory import Interrupted
from porter.layout.copies import Loop
from porter.planning.plan import EXTENT, TILE, Copy
from porter.sources.local_files import LocalSource


@pytest.fixture
def ready(bench, monkeypatch):
    monkeypatch.setattr(units, "RANGE", 1 << 12)
    noise = random.Random(2)
    for name, shape in {"a": (60, 70), "b": (3, 5), "c": (500, 70)}.items():
        bench.source(name, "BF16", shape, noise.randbytes(2 * shape[0] * shape[1]))
    rows, columns = 60, 70
    bench.copies += [
        Copy("a", "a", "a", 0, 0, (Loop(columns, 1, rows), Loop(rows, columns, 1)), TILE),
        Copy("b", "b", "b", 0, 0, (Loop(15, 1, 1),), EXTENT),
        Copy("c", "c", "c", 0, 0, (Loop(35000, 1, 1),), EXTENT),
    ]
    bf16 = DTYPES["BF16"]
    # The tie comes first, before the tensor whose storage it shares.
    specs = [("tie", bf16, (500, 70)), ("a", bf16, (70, 60)), ("b", bf16, (3, 5)), ("c", bf16, (500, 70))]
    file = torch_zip_writer.place("lit_model.pth", specs, {"tie": "c"}, residues={"c": 88})
    return replace(bench.plan(), files=(file,)), bench


def check(path, bench):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    loaded = torch.load(path, weights_only=True, mmap=True)
    for tensor in bench.tensors:
        raw = bytearray(bench.content[tensor.offset : tensor.offset + tensor.nbytes])
        whole = torch.frombuffer(raw, dtype=torch.int16).view(tensor.shape)
        expected = whole.T if tensor.name == "a" else whole
        assert torch.equal(loaded[tensor.name].view(torch.int16), expected)
    assert loaded["tie"].data_ptr() == loaded["c"].data_ptr()


@pytest.mark.parametrize("options", [{}, {"resume": False}, {"digest": "always"}], ids=str)
def test_checksums_are_true_and_torch_loads_it(ready, options):
    plan, bench = ready
    result = publish_plan(
        plan, LocalSource(bench.source_root), bench.root / "out", options=RunOptions(**options)
    )
    check(result.out / "lit_model.pth", bench)
    assert (result.digests["lit_model.pth"] is not None) == (options.get("digest") == "always")


def test_checksums_are_true_after_a_resumption(ready, monkeypatch):
    plan, bench = ready
    with monkeypatch.context() as patch:
        note, noted = journal.Journal.note, []

        def interrupted(self, *given):
            note(self, *given)
            noted.append(given)
            if len(noted) == 8:
                raise KeyboardInterrupt

        patch.setattr(journal.Journal, "note", interrupted)
        with pytest.raises(Interrupted):
            publish_plan(plan, LocalSource(bench.source_root), bench.root / "out")
    result = publish_plan(plan, LocalSource(bench.source_root), bench.root / "out")
    check(result.out / "lit_model.pth", bench)


def test_a_tensor_is_padded_to_where_its_blocks_could_be_shared(ready):
    plan, _ = ready
    assert plan.target_by_name["c"].offset % 4096 == 88
