"""`porter download gemma-2b`, inspect, convert, and the stock LitGPT computes what transformers computes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.peer

OFFLINE = {"HF_HUB_OFFLINE": "1"}

# transformers and the stock LitGPT on one prompt; the greatest difference, relative to the greatest logit.
COMPARE = """
from pathlib import Path
import torch
torch.set_num_threads(1)
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.tokenizer import Tokenizer
from safetensors.torch import load_file
from transformers import GemmaForCausalLM
hf, out = Path(sys.argv[1]), Path(sys.argv[2])
ids = Tokenizer(out).encode("anna reads the mountain 22 times")
oracle = GemmaForCausalLM.from_pretrained(hf).eval()
with torch.device("meta"):
    model = GPT(Config.from_file(out / "model_config.yaml"))
weights = load_file(out / "lit_model.safetensors")
if sys.argv[3:]:
    name = sys.argv[3]
    weights[name] = weights[name].roll(1, 0)
model.load_state_dict(weights, strict=True, assign=True)
model.cos, model.sin = model.rope_cache(device="cpu")
with torch.inference_mode():
    one, two = oracle(ids[None].long()).logits, model.eval()(ids[None])
emit({"ids": ids.tolist(), "difference": ((one - two).abs().max() / one.abs().max()).item()})
"""


def test_download_inspect_convert_and_the_stock_litgpt(
    hub: Any, porter: Any, python: Any, tiny_gemma: Path, on_the_hub: str, here: Path
) -> None:
    fetched = porter("download", "gemma-2b")
    snapshot = Path(fetched.stdout.strip())
    assert snapshot == hub.cache / "models--google--gemma-2b" / "snapshots" / on_the_hub
    assert "model-00001-of-00002.safetensors" in fetched.stderr, "a line a file where there is no terminal"

    hub.server.forget()
    shown = porter("inspect", "gemma-2b").stdout
    assert shown.startswith("google/gemma-2b · gemma (hf) · 2 files · 29 tensors · ")
    assert re.search(r"model\.layers\.\{0\.\.2\}\.self_attn\.q_proj\.weight +\[60, 66\] +F32 +3 ", shown)
    assert "lm_head.weight  tied to model.embed_tokens.weight" in shown

    done = porter("convert", "gemma-2b", "--to", "litgpt", "-o", "out")
    assert "plan     29 → 24 tensors" in done.stderr
    assert "lit_model.safetensors" in done.stdout
    assert hub.server.log == [], "what is in the cache needs no network"

    found = python(COMPARE, tiny_gemma, here / "out")
    assert found["ids"][0] == 2, "LitGPT puts <bos> first"
    assert len(found["ids"]) > 5
    assert found["difference"] <= 1e-6
    wrong = python(COMPARE, tiny_gemma, here / "out", "transformer.h.1.attn.qkv.weight")
    assert wrong["difference"] > 1e-2, "the comparison can fail"


def test_offline_afterwards(hub: Any, porter: Any, on_the_hub: str) -> None:
    porter("download", "gemma-2b")
    hub.server.close()
    for offline in ({"env": OFFLINE}, {"env": {}}):
        assert "29 tensors" in porter("inspect", "gemma-2b", **offline).stdout
        porter("convert", "gemma-2b", "--to", "litgpt", "--dry-run", **offline)
    assert "29 tensors" in porter("inspect", "gemma-2b", "--offline").stdout
    assert "nothing, all was there" in porter("download", "gemma-2b", "--offline").stderr


def test_what_was_not_downloaded_is_said_with_the_command_that_does_it(
    hub: Any, porter: Any, on_the_hub: str, here: Path
) -> None:
    told = porter("convert", "gemma-2b", "--to", "litgpt", "--offline", code=2).stderr
    assert "hint: porter download gemma-2b\n" in told
    assert "porter download google/gemma-2b" in porter("inspect", "gemma-2b", "--offline", code=2).stderr
    assert hub.server.log == []
    assert list(here.iterdir()) == []


def test_a_part_of_a_model_is_not_converted(porter: Any, on_the_hub: str) -> None:
    porter("download", "gemma-2b", "--exclude", "*-00002-*")
    told = porter("convert", "gemma-2b", "--to", "litgpt", "--offline", code=2).stderr
    assert "not completely" in told and "porter download gemma-2b" in told


def test_the_cache_is_read_where_it_is(hub: Any, porter: Any, tree: Any, on_the_hub: str, here: Path) -> None:
    """A snapshot is links to blobs: they are followed, nothing is copied, nothing is touched."""
    porter("download", "gemma-2b")
    before = tree(hub.home)
    assert any(what.startswith("link to") for what, _ in before.values())
    porter("convert", "gemma-2b", "--to", "litgpt", "-o", "out")
    assert tree(hub.home) == before
    assert not any(path.is_symlink() for path in (here / "out").iterdir())
    porter("convert", "out", "--to", "hf", "-o", "back", "--max-shard-size", "400KB")
    snapshot = hub.cache / "models--google--gemma-2b" / "snapshots" / on_the_hub
    assert _tensors(here / "back") == _tensors(snapshot)


def test_no_source_means_the_last_one_downloaded_and_it_says_which(
    hub: Any, porter: Any, on_the_hub: str, tiny_gemma: Path, here: Path, tmp_path: Path
) -> None:
    assert "porter download gemma-2b" in porter("inspect", code=2).stderr
    other = {path.name: path.read_bytes() for path in tiny_gemma.iterdir()}
    hub.server.add("google/gemma-7b", other | {"generation_config.json": b'{"bos_token_id": 2}'})
    porter("download", "gemma-7b")
    porter("download", "gemma-2b")
    for command in (["inspect"], ["convert", "--to", "litgpt", "--dry-run"]):
        assert "google/gemma-2b" in porter(*command).stderr
    done = porter("convert", "--to", "litgpt")
    assert (here / "gemma-2b-litgpt" / "lit_model.safetensors").is_file()
    assert "google/gemma-2b" in done.stderr
    # A model that is asked for again is the last one, though nothing had to be fetched.
    porter("download", "gemma-7b")
    assert "google/gemma-7b" in porter("inspect").stderr
    # A part of a model is none.
    hub.server.add("google/gemma-2-2b", tiny_gemma)
    porter("download", "gemma-2-2b", "--exclude", "*-00002-*")
    assert "google/gemma-7b" in porter("inspect").stderr
    # Where you stand comes first.
    shutil.copytree(tiny_gemma, tmp_path / "mine")
    told = porter("inspect", cwd=tmp_path / "mine")
    assert told.stdout.startswith("mine · gemma (hf)") and "mine" in told.stderr
    assert "note" not in porter("inspect", "gemma-2b").stderr


def test_a_directory_of_that_name_wins_over_the_alias(
    porter: Any, on_the_hub: str, tiny_gemma: Path, here: Path
) -> None:
    porter("download", "gemma-2b")
    shutil.copytree(tiny_gemma, here / "gemma-2b")
    assert porter("inspect", "gemma-2b").stdout.startswith("gemma-2b · gemma (hf)")
    assert porter("inspect", "hf://google/gemma-2b").stdout.startswith("google/gemma-2b · ")
    (here / "gemma-2b" / "config.json").unlink()
    assert porter("convert", "gemma-2b", "--to", "litgpt", code=5)


def test_a_revision_is_part_of_the_name(hub: Any, porter: Any, on_the_hub: str, tiny_gemma: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_gemma.iterdir()}
    other = hub.server.add("google/gemma-2b", {**files, "generation_config.json": b"{}"}, revision="v2")
    assert other != on_the_hub
    porter("download", "gemma-2b@v2")
    assert "29 tensors" in porter("inspect", "gemma-2b@v2", "--offline").stdout
    assert "porter download google/gemma-2b" in porter("inspect", "gemma-2b", "--offline", code=2).stderr


def _tensors(folder: Path) -> dict[str, tuple[str, bytes]]:
    from safetensors import safe_open

    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                found[name] = (str(tuple(tensor.shape)), tensor.numpy().tobytes())
    return found
