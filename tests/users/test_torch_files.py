"""Torch files as a user meets them: `--container pth`, and what LitGPT, Lightning and others have saved."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.peer

# Each way in which LitGPT and Lightning leave a checkpoint, by LitGPT's own functions where it has them.
SAVE = """
from pathlib import Path
import lightning as L
import torch
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.pretrain import save_checkpoint
from litgpt.scripts.convert_pretrained_checkpoint import convert_pretrained_checkpoint
from litgpt.utils import copy_config_files, save_config
source, base = Path(sys.argv[1]), Path(sys.argv[2])
config = Config.from_file(source / "model_config.yaml")
fabric = L.Fabric(accelerator="cpu", devices=1)
model = GPT(config)
model.load_state_dict(torch.load(source / "lit_model.pth", mmap=True, weights_only=True), strict=True)

def folder(name):
    made = base / name
    made.mkdir(parents=True)
    copy_config_files(source, made)
    save_config(config, made)
    return made / "lit_model.pth"

# finetune full
fabric.save(folder("finetuned"), {"model": fabric.setup_module(model)})
# finetune lora, merged; LLM.save
torch.save(model.state_dict(), folder("merged"))
# pretrain, compiled, with the optimizer's state
compiled = fabric.setup_module(torch.compile(model))
optimizer = torch.optim.AdamW(model.parameters())
sum(p.square().sum() for p in model.parameters()).backward()
for group in optimizer.param_groups:
    group["lr"] = 0.0
    group["weight_decay"] = 0.0
optimizer.step()
file = base / "pretrained" / "lit_model.pth"
state = {"model": compiled, "optimizer": optimizer, "hparams": {"lr": 1e-3}, "iter_num": 3, "step_count": 1}
import litgpt.pretrain
litgpt.pretrain.save_hyperparameters = lambda *args: None
save_checkpoint(fabric, state, source, file)
convert_pretrained_checkpoint(file.parent, base / "exported")
# a Lightning trainer's own file
checkpoint = {"state_dict": model.state_dict(), "pytorch-lightning_version": L.__version__, "callbacks": {},
              "hyper_parameters": {"path": source}, "optimizer_states": [optimizer.state_dict()]}
torch.save(checkpoint, folder("lightning").with_suffix(".ckpt"))
# distributed, and compiled besides
torch.save({"module._orig_mod." + k: v for k, v in model.state_dict().items()}, folder("distributed"))
# as torch saved before 1.6
torch.save(model.state_dict(), folder("legacy"), _use_new_zipfile_serialization=False)
# a head that was trained on its own
model.lm_head.weight.data += 1
torch.save(model.state_dict(), folder("untied"))
"""
SAVED = ["finetuned", "merged", "pretrained", "exported", "lightning", "distributed"]


def contents(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor of the safetensors files in a folder."""
    from safetensors.torch import load_file

    return {
        name: (str(tensor.dtype), tuple(tensor.shape), tensor.numpy().tobytes())
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`porter …`, for what needs no Hub."""
    here = tmp_path_factory.mktemp("here")

    def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "porter", *map(str, arguments)], cwd=here, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def pth(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory, command: Any) -> Path:
    """The tiny Gemma as a LitGPT directory with a `lit_model.pth`."""
    out: Path = tmp_path_factory.mktemp("pth") / "litgpt"
    done = command("convert", tiny_gemma, "--to", "litgpt", "--container", "pth", "-o", out)
    assert f"load     litgpt generate {out}" in done.stdout.splitlines()
    return out


@pytest.fixture(scope="module")
def saved(pth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("saved")
    words = [sys.executable, "-c", "import sys\n" + SAVE, pth, base]
    done = subprocess.run(words, capture_output=True, text=True, cwd=base)
    assert done.returncode == 0, done.stderr
    return base


def test_torch_reads_what_was_written(pth: Path, tiny_gemma: Path) -> None:
    import torch

    files = {path.name for path in pth.iterdir()}
    assert "lit_model.pth" in files and not any(name.endswith(".safetensors") for name in files)
    mapped = torch.load(pth / "lit_model.pth", mmap=True, weights_only=True)
    loaded = torch.load(pth / "lit_model.pth", weights_only=True)
    assert mapped.keys() == loaded.keys() and len(mapped) == 24
    assert all(torch.equal(mapped[name], loaded[name]) for name in loaded)
    for state in (mapped, loaded):
        assert state["lm_head.weight"].data_ptr() == state["transformer.wte.weight"].data_ptr()
    size = (pth / "lit_model.pth").stat().st_size
    stored = sum(len(data) for _, _, data in contents(tiny_gemma).values())
    assert stored < size < stored + 50_000, "the tie takes no room"


def test_the_plan_of_a_torch_file(command: Any, tiny_gemma: Path) -> None:
    shown = command("convert", tiny_gemma, "--to", "litgpt", "--container", "pth", "--dry-run").stdout
    assert "lit_model.pth" in shown and "lm_head.weight" in shown
    told = command("convert", tiny_gemma, "--to", "hf", "--container", "pth", code=5).stderr
    assert "leave out --container" in told
    assert (
        "--container must be safetensors or pth"
        in command("convert", tiny_gemma, "--to", "litgpt", "--container", "zip", code=2).stderr
    )


def test_litgpt_generate_runs_on_it(pth: Path, tmp_path: Path) -> None:
    litgpt = Path(sys.executable).with_name("litgpt")
    words = ["--prompt", "anna reads the", "--precision", "32-true", "--max_new_tokens", "5"]
    done = subprocess.run([litgpt, "generate", pth, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "anna reads the" in done.stdout


@pytest.mark.parametrize("name", SAVED)
def test_what_litgpt_and_lightning_save_goes_back_to_hf(
    command: Any, saved: Path, tiny_gemma: Path, tmp_path: Path, name: str
) -> None:
    shown = command("inspect", saved / name).stdout
    assert " · gemma (litgpt) · 1 file · 24 tensors · " in shown, "the optimizer's tensors are none of them"
    command("convert", saved / name, "--to", "hf", "-o", tmp_path / "hf")
    assert contents(tmp_path / "hf") == contents(tiny_gemma)


def test_what_goes_back_is_read_by_transformers(
    command: Any, saved: Path, tiny_gemma: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import GemmaForCausalLM

    command("convert", saved / "finetuned" / "lit_model.pth", "--to", "hf", "-o", tmp_path / "hf")
    ids = torch.arange(4, 24)[None]
    with torch.inference_mode():
        one, two = (
            GemmaForCausalLM.from_pretrained(p).eval()(ids).logits for p in (tiny_gemma, tmp_path / "hf")
        )
    assert torch.equal(one, two)


def test_a_head_trained_on_its_own(command: Any, saved: Path, tiny_gemma: Path, tmp_path: Path) -> None:
    """Dropping it would lose it: that is refused, with the way that keeps it."""
    told = command("convert", saved / "untied", "--to", "hf", "-o", tmp_path / "hf", code=3).stderr
    assert "lm_head.weight" in told and "--tied untie" in told
    assert not (tmp_path / "hf").exists()
    command("convert", saved / "untied", "--to", "hf", "--tied", "untie", "-o", tmp_path / "hf")
    written = contents(tmp_path / "hf")
    assert written["lm_head.weight"][2] != written["model.embed_tokens.weight"][2]
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["tie_word_embeddings"] is False


def test_a_file_from_before_the_zip_is_refused_with_a_way_out(command: Any, saved: Path) -> None:
    told = command("convert", saved / "legacy", "--to", "hf", code=5).stderr
    assert "before 1.6" in told and "torch.save(torch.load(" in told


def test_bin_shards_with_an_index(command: Any, tiny_gemma: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    source = tmp_path / "bins"
    source.mkdir()
    for path in tiny_gemma.iterdir():
        if path.suffix == ".safetensors":
            name = path.name.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
            torch.save(load_file(path), source / name)
        elif path.name.endswith(".index.json"):
            text = path.read_text().replace("model-0", "pytorch_model-0").replace(".safetensors", ".bin")
            (source / "pytorch_model.bin.index.json").write_text(text)
        else:
            shutil.copy(path, source)
    assert "gemma (hf) · 2 files · 29 tensors" in command("inspect", source).stdout
    command("convert", source, "--to", "litgpt", "-o", tmp_path / "one")
    command("convert", tiny_gemma, "--to", "litgpt", "-o", tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_hostile_file_runs_nothing(command: Any, pth: Path, tmp_path: Path) -> None:
    import torch

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    shutil.copytree(pth, tmp_path / "hostile")
    torch.save({"model": {"a": torch.zeros(3)}, "x": Hostile()}, tmp_path / "hostile" / "lit_model.pth")
    for words in (["inspect"], ["convert", "--to", "hf", "-o", tmp_path / "out"]):
        done = subprocess.run(
            [sys.executable, "-m", "porter", words[0], str(tmp_path / "hostile"), *map(str, words[1:])],
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "hostile" / "lit_model.pth", weights_only=False)
    assert (tmp_path / "ran").exists(), "the trap works"
