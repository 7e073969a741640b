"""What to type next, once a model has been converted: lines to paste, each with its imports, by dialect."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from porter.errors import PorterError
from porter.models.config import Config
from porter.planning.plan import Plan

_TRANSFORMERS = (
    "from transformers import AutoModelForCausalLM; model = AutoModelForCausalLM.from_pretrained({out!r})"
)
_GPT = "from porter.models import GPT; model = GPT.from_checkpoint({out!r})"
_LITGPT = (
    "import porter, litgpt; model = litgpt.GPT(litgpt.Config.from_file({config!r})); "
    "model.load_state_dict(porter.load_state_dict({out!r}))"
)
_KERAS = "import keras_hub; model = keras_hub.models.{what}.from_preset({out!r})"
_ORBAX = "from orbax.checkpoint import StandardCheckpointer; tree = StandardCheckpointer().restore({whole!r})"
_TORCH = "import torch; state = torch.load({file!r}, weights_only=True)"
_SAFETENSORS = "from safetensors.torch import load_file; state = load_file({file!r})"

# litgpt's own commands look for this name alone.
LITGPT_COMMANDS = "litgpt's own commands read lit_model.pth: add --container pth"


def next_steps(plan: Plan, out: Path) -> list[str]:
    """Lines of Python, or of a shell, that use what lies in `out`; the usual way first."""
    names = [file.name for file in plan.files]
    words = {
        "out": str(out),
        "whole": str(out.absolute()),
        "file": str(out / names[0]),
        "config": str(out / "model_config.yaml"),
    }
    if plan.target_dialect == "hf":
        return [_TRANSFORMERS.format(**words)]
    if plan.target_dialect == "litgpt":
        own = [_GPT.format(**words)] if _is_porters(plan) else []
        has_tokenizer = any(side.name.startswith("tokenizer.") for side in plan.side_files)
        if names == ["lit_model.pth"] and has_tokenizer:
            return [f"litgpt generate {shlex.quote(str(out))}", *own]
        return [*own, _LITGPT.format(**words)]
    if plan.target_dialect == "keras":
        has_tokenizer = any(side.name.startswith("assets/") for side in plan.side_files)
        return [_KERAS.format(what="CausalLM" if has_tokenizer else "Backbone", **words)]
    if plan.target_dialect in ("flax", "flax-transposed"):
        return [_ORBAX.format(**words)]
    if len(names) == 1 and names[0].endswith(".safetensors"):
        return [_SAFETENSORS.format(**words)]
    return [_TORCH.format(**words)] if len(names) == 1 and "." in names[0] else []


def _is_porters(plan: Plan) -> bool:
    """Whether porter's own model implements what the written config says."""
    written = next((side.content for side in plan.side_files if side.name == "model_config.yaml"), None)
    if written is None:
        return False
    try:
        Config.from_mapping(yaml.safe_load(written))
    except PorterError:
        return False
    return True
