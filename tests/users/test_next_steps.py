"""The lines that a conversion ends with are pasted as they stand, and what they load is the model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.peer

# Each pasted line in a namespace of its own; then one weight of what it made.
_PASTE = """
import json, sys
from pathlib import Path
found = {}
for dialect, lines in json.loads(sys.argv[1]).items():
    for number, line in enumerate(lines):
        made = {}
        exec(line, made)
        value = made.get("model") or made.get("tree") or made.get("state")
        if dialect == "keras":
            value = value.token_embedding.embeddings.value.detach()
        elif dialect == "flax":
            value = value["transformer/embedder"]["input_embedding"]
        else:
            value = value if isinstance(value, dict) else value.state_dict()
            value = value.get("model_state_dict", value)
            value = next(value[name] for name in sys.argv[2:] if name in value).float()
        import numpy
        found[f"{dialect} {number}"] = numpy.asarray(value, dtype=numpy.float32).sum(axis=1).tolist()
print(json.dumps(found))
"""
EMBEDDING = ("model.embed_tokens.weight", "transformer.wte.weight", "embedder.weight")


@pytest.mark.parametrize("dialects", [("hf", "litgpt", "litgpt-legacy", "gemma_pytorch"), ("keras", "flax")])
def test_the_lines_that_a_conversion_ends_with(
    porter: Any, hub: Any, tiny_gemma: Path, here: Path, tmp_path: Path, dialects: tuple[str, ...]
) -> None:
    without_tokenizer = tmp_path / "plain"
    shutil.copytree(tiny_gemma, without_tokenizer, ignore=shutil.ignore_patterns("tokenizer*"))
    lines = {}
    for dialect in dialects:
        # KerasHub wants a real Gemma's special tokens; its model is loaded without any.
        source = without_tokenizer if dialect == "keras" else tiny_gemma
        printed = porter("convert", source, "--to", dialect, "-o", dialect, "-q").stdout.splitlines()
        assert printed[0].startswith("wrote    ")
        assert printed[1].startswith("load     ")
        lines[dialect] = [line[9:] for line in printed[1:]]
    assert len(lines.get("litgpt", "12")) == 2, "porter's own model, and the stock one"
    done = subprocess.run(
        [sys.executable, "-c", _PASTE, json.dumps(lines), *EMBEDDING],
        cwd=here,
        env={
            **hub.env,
            "KERAS_BACKEND": "torch",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == sum(map(len, lines.values()))
    shard = tiny_gemma / "model-00001-of-00002.safetensors"
    expected = load_file(shard)["model.embed_tokens.weight"].sum(axis=1)
    for name, sums in found.items():
        assert np.allclose(sums[: len(expected)], expected, atol=1e-4), name


def test_litgpts_own_commands_are_told_of_where_they_are_used(porter: Any, tiny_gemma: Path) -> None:
    done = porter("convert", tiny_gemma, "--to", "litgpt", "-o", "out")
    assert "add --container pth" in done.stderr
    done = porter("convert", tiny_gemma, "--to", "litgpt", "--container", "pth", "-o", "pth")
    assert "add --container pth" not in done.stderr
    assert done.stdout.splitlines()[1] == "load     litgpt generate pth"


def test_a_model_that_porters_own_does_not_implement_is_not_offered_there(
    porter: Any, tiny_gemma: Path, tmp_path: Path
) -> None:
    """Heads of an odd size cannot be rotated."""
    import porter as package
    from porter.planning.plan import SideFile
    from porter.reporting.next_steps import next_steps

    plan = package.plan(tiny_gemma, to="litgpt")
    assert any("porter.models" in line for line in next_steps(plan, tmp_path))
    from dataclasses import replace

    sides = tuple(
        SideFile(side.name, side.content.replace(b"head_size: 10", b"head_size: 5"))
        if side.content is not None and side.name == "model_config.yaml"
        else side
        for side in plan.side_files
    )
    assert not any("porter.models" in line for line in next_steps(replace(plan, side_files=sides), tmp_path))


def test_many_files_are_counted(porter: Any, tiny_gemma: Path) -> None:
    wrote = porter("convert", tiny_gemma, "--to", "flax", "-o", "out").stdout.splitlines()[0]
    assert wrote.count(", ") == 4
    assert wrote.endswith(" more")


def test_dir_shows_the_api(python: Any) -> None:
    found = python("import porter; emit([dir(porter), porter.models.__name__, 'torch' in sys.modules])")
    assert {"convert", "inspect", "load_state_dict", "models", "PlanOptions"} <= set(found[0])
    assert "annotations" not in found[0]
    assert found[1:] == ["porter.models", False]
