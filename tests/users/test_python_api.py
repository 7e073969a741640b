"""The public functions by a model's short name, one after the other; and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_averysecrettokenthatnobodymaysee"

_WALK = """
import porter
try:
    porter.load_state_dict("gemma-2b", to="litgpt")
except porter.PorterError as error:
    refused = [error.exit_code, error.hint]
afar = porter.inspect("gemma-2b")
got = porter.download("gemma-2b", token=sys.argv[1])
near = porter.inspect("gemma-2b")
plan = porter.plan("gemma-2b", to="litgpt")
done = porter.convert("gemma-2b", "out", to="litgpt")
state = porter.load_state_dict("gemma-2b", to="litgpt")
from porter.models import GPT
model = GPT.from_checkpoint("out")
model.load_state_dict(state, assign=True)
emit({
    "refused": refused, "bytes": got.bytes_fetched, "repo": got.repo, "tensors": len(near.tensors),
    "same": [t.name for t in afar.tensors] == [t.name for t in near.tensors],
    "hash": plan.hash == done.plan.hash,
    "out": sorted(done.sizes), "loaded": len(state), "doctor": porter.doctor().token,
})
"""


@pytest.mark.peer
def test_the_whole_walk(hub: Any, python: Any, tiny_gemma: Path, on_the_hub: str) -> None:
    hub.server.token(TOKEN, "google/gemma-2b")
    found = python(_WALK, TOKEN)
    assert found["refused"] == [2, 'porter.download("gemma-2b")']
    # What was looked at before lies in the cache already.
    looked_at = (
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "model.safetensors.index.json",
    )
    size = sum(path.stat().st_size for path in tiny_gemma.iterdir() if path.name not in looked_at)
    assert (found["repo"], found["bytes"]) == ("google/gemma-2b", size)
    assert (found["tensors"], found["loaded"], found["same"], found["hash"]) == (29, 24, True, True)
    assert {"lit_model.safetensors", "model_config.yaml", "tokenizer.model", "porter-receipt.json"} <= set(
        found["out"]
    )
    assert found["doctor"] is False


def test_every_public_name_is_there_and_import_costs_nothing() -> None:
    code = (
        "import sys, porter\n"
        "assert not {'torch', 'numpy', 'huggingface_hub', 'typer'} & set(sys.modules)\n"
        "assert all(callable(getattr(porter, name)) for name in porter.__all__"
        " if name not in ('__version__', 'compare_logits', 'LogitsComparison'))\n"
        "assert {'download', 'inspect', 'plan', 'convert', 'doctor'} <= set(porter.__all__)\n"
        "assert 'load_state_dict' in porter.__all__\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["download", "--list"],
        ["inspect", "SRC"],
        ["convert", "SRC", "--to", "litgpt", "--dry-run"],
    ],
)
def test_commands_that_move_no_value_never_import_torch(tiny_gemma: Path, words: list[str]) -> None:
    words = [str(tiny_gemma) if word == "SRC" else word for word in words]
    code = (
        "import sys\nfrom porter.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
